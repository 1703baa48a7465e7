// Every kernel in every variant that the tests look at: roots x head dims x slots.

import { STEPS, stepBindings, stepModules } from "../../bench/ladder.ts";
import { activationModules } from "../../src/kernels/activations.ts";
import {
  ADDITIVE_KEYS_BINDINGS,
  additiveKeysModules,
  STORED_KEYS_BINDING,
} from "../../src/kernels/additive_keys.ts";
import { blockMaskBindings, blockMaskModules } from "../../src/kernels/block_mask.ts";
import {
  ADVANCE_MODULES,
  type AppendChoice,
  advanceKernel,
  appendBindings,
  appendModules,
} from "../../src/kernels/cache.ts";
import {
  CACHE_COPY_BINDINGS,
  CACHE_COPY_MODULES,
  CACHE_WRITE_BINDINGS,
  CACHE_WRITE_MODULES,
} from "../../src/kernels/cache_pages.ts";
import {
  DECODE_SHAPES,
  decodeBindings,
  decodeModules,
  decodeRoot,
} from "../../src/kernels/decode.ts";
import { dropoutSpecialisation } from "../../src/kernels/dropout.ts";
import { embeddingSpecialisation } from "../../src/kernels/embedding.ts";
import { forwardModules, forwardRoot } from "../../src/kernels/forward.ts";
import { FORWARD_TILES, type ForwardTile } from "../../src/kernels/forward_tiles.ts";
import {
  COLUMN_SUMS_BINDINGS,
  columnSumsModules,
  type SumSpecialisation,
} from "../../src/kernels/gradients/column_sums.ts";
import {
  layerNormBackwardSpecialisation,
  NORM_TERMS,
  normSumsSpecialisation,
  normTermTensors,
} from "../../src/kernels/gradients/layer_norm.ts";
import {
  type LinearBackwardSpecialisation,
  linearBackwardParts,
} from "../../src/kernels/gradients/linear.ts";
import { linearBackwardKernels } from "../../src/kernels/gradients/linear_tiles.ts";
import {
  TURNED_BINDINGS,
  TURNED_TILES,
  type TurnedSpecialisation,
  turnedModules,
  turnedRoot,
} from "../../src/kernels/gradients/matmul_turned.ts";
import {
  MERGE_BACKWARD_BINDINGS,
  MERGE_BACKWARD_MODULES,
} from "../../src/kernels/gradients/merge.ts";
import { pointwiseBackwardSpecialisation } from "../../src/kernels/gradients/pointwise_backward.ts";
import {
  biasDiagonalsSpecialisation,
  biasSumsSpecialisation,
  biasTableSpecialisation,
} from "../../src/kernels/gradients/position_bias.ts";
import { softmaxBackwardSpecialisation } from "../../src/kernels/gradients/row_softmax.ts";
import { rowSumsEndSpecialisation } from "../../src/kernels/gradients/row_sums.ts";
import {
  type RowGradientSpecialisation,
  rowGradientBindings,
  rowGradientModules,
} from "../../src/kernels/gradients/rows.ts";
import {
  type TableGradientSpecialisation,
  tableGradientBindings,
  tableGradientModules,
} from "../../src/kernels/gradients/table.ts";
import { kvAccess } from "../../src/kernels/kv_access.ts";
import { layerNormSpecialisation } from "../../src/kernels/layer_norm.ts";
import {
  type LinearKernel,
  type LinearSpecialisation,
  linearBindings,
  linearModules,
  recurrentTile,
} from "../../src/kernels/linear.ts";
import { argmaxSpecialisation } from "../../src/kernels/losses/argmax.ts";
import { crossEntropySpecialisation } from "../../src/kernels/losses/cross_entropy.ts";
import { pointwiseLossSpecialisation } from "../../src/kernels/losses/element_losses.ts";
import { lossSumsSpecialisation } from "../../src/kernels/losses/loss_sums.ts";
import { MASK_BITS_BINDINGS, MASK_BITS_MODULES } from "../../src/kernels/mask_bits.ts";
import {
  MATMUL_TILES,
  type MatmulSpecialisation,
  matmulBindings,
  matmulModules,
  matmulRoot,
} from "../../src/kernels/matmul.ts";
import { MERGE_BINDINGS, MERGE_MODULES } from "../../src/kernels/merge.ts";
import { topSoftmaxSpecialisation } from "../../src/kernels/models/top_softmax.ts";
import { pointwiseSpecialisation } from "../../src/kernels/pointwise.ts";
import { positionBiasSpecialisation } from "../../src/kernels/position_bias.ts";
import {
  type EncodingSpecialisation,
  encodingBindings,
  encodingModules,
} from "../../src/kernels/position_encoding.ts";
import {
  type MatvecSpecialisation,
  matvecModules,
  matvecRoot,
  matvecShape,
} from "../../src/kernels/products/matvec.ts";
import { quantiseSpecialisation } from "../../src/kernels/products/quantise.ts";
import {
  type RotarySpecialisation,
  rotaryKernelBindings,
  rotaryKernelModules,
} from "../../src/kernels/rotary.ts";
import { ROW_NORMS_BINDINGS, rowNormsModules } from "../../src/kernels/row_norms.ts";
import { softmaxSpecialisation } from "../../src/kernels/row_softmax.ts";
import { type RowSpecialisation, rowBindings, rowModules } from "../../src/kernels/rows.ts";
import { PLAIN, type SlotChoice, slotBindings } from "../../src/kernels/slots.ts";
import { TABLES_MODULES, tablesKernel } from "../../src/kernels/tables.ts";
import { scoreBindings, scoreModules, TOP_KEYS, WEIGHTS } from "../../src/kernels/weights.ts";
import type { ModuleMap } from "../../src/shader/link.ts";
import type { Binding } from "../../src/types.ts";
import { BACKWARD_VARIANTS } from "./backward_kernels.ts";
import { CAPTURE_VARIANTS } from "./capture_kernels.ts";
import { OPTIMIZER_VARIANTS } from "./optimizer_kernels.ts";
import { RECURRENT_VARIANTS } from "./recurrent_kernels.ts";
import { SAMPLING_VARIANTS } from "./sampling_kernels.ts";
import { SCORE_GRADIENT_VARIANTS } from "./score_gradient_kernels.ts";
import { SIMILARITY_GRADIENT_VARIANTS } from "./similarity_gradient_kernels.ts";

export interface KernelVariant {
  readonly name: string;
  readonly root: string;
  readonly modules: ModuleMap;
  /** What the TypeScript side binds. */
  readonly bindings: readonly Binding[];
}

const STRIDED: SlotChoice = { q: "strided", k: "strided", v: "strided", o: "strided" };
const SLOTS: Readonly<Record<string, SlotChoice>> = {
  dense: PLAIN,
  "dense with lse and lengths": { ...PLAIN, sequence: "batch", tables: true, lse: true },
  "strided q": { ...PLAIN, q: "strided" },
  "strided k and v": { ...PLAIN, k: "strided", v: "strided" },
  "strided o": { ...PLAIN, o: "strided" },
  "strided with lse and lengths": { ...STRIDED, sequence: "batch", tables: true, lse: true },
};
const HEAD_DIMS = [
  [64, 64],
  [128, 128],
  [40, 40],
  [5, 7],
  [2048, 512],
] as const;

const ATTENTION_VARIANTS = Object.entries(SLOTS).flatMap(([slotName, slots]) =>
  HEAD_DIMS.filter(
    ([d, dv]) => (d % 4 === 0 && dv % 4 === 0) || !slotName.startsWith("dense"),
  ).flatMap(([d, dv]) => [
    // Of tiles that differ only in numbers, one is linked with every slot.
    ...FORWARD_TILES.filter(
      ({ name, form, maxHeadDim }) =>
        d <= maxHeadDim &&
        form !== "half" &&
        (slots === PLAIN || form !== "quads" || name === "16x4-quad") &&
        (slots === PLAIN || !["64x64", "64x32-wide"].includes(name)),
    ).map((tile) => ({
      name: `forward ${tile.name} D=${d} Dv=${dv} ${slotName}`,
      root: forwardRoot(tile),
      modules: forwardModules({ headDim: d, vDim: dv, tile, ...slots }),
      bindings: slotBindings(slots),
    })),
    // Steps keep a whole row in registers; they are for the common head dims.
    ...(d > 64 ? [] : Object.keys(STEPS)).map((root) => ({
      name: `${root.split("::").at(-1)} D=${d} Dv=${dv} ${slotName}`,
      root,
      modules: stepModules(d, dv, slots),
      bindings: stepBindings(slots, {
        scores: root.includes("_1_"),
        gradients: root.endsWith("::backward_1_softmax"),
      }),
    })),
  ]),
);

/** Slots beyond those of plain attention, at one tile and head dim. */
const FEATURES: Readonly<Record<string, SlotChoice>> = {
  "packed sequences": { ...PLAIN, sequence: "packed", tables: true, lse: true, rowMax: true },
  "modified scores": {
    ...PLAIN,
    tables: true,
    softcap: true,
    alibi: true,
    relativeBias: true,
    sinks: true,
  },
  "masks in memory": { ...PLAIN, bias: true, maskTensor: "bytes" },
  "a mask of bits and dropout": { ...PLAIN, maskTensor: "bits", dropout: "seeded" },
  "dropout by a step in memory": { ...PLAIN, tables: true, dropout: "stepped" },
  blocks: { ...PLAIN, blocks: true },
  "a ring": { ...PLAIN, cache: kvAccess({ place: "ring", ring: 60, sinkTokens: 4 }) },
  "int8 in pages": {
    ...PLAIN,
    k: "words",
    v: "words",
    cache: kvAccess({
      place: "paged",
      pageSize: 16,
      quantised: { bits: 8, groupK: 8, groupV: 40 },
    }),
  },
  int4: {
    ...PLAIN,
    cache: kvAccess({ place: "rows", quantised: { bits: 4, groupK: 40, groupV: 40 } }),
  },
  "additive scores": {
    ...PLAIN,
    tables: true,
    softcap: true,
    similarity: { kind: "additive", innerBias: true, unitVector: true },
  },
  "normalised rows": {
    ...PLAIN,
    tables: true,
    sequence: "packed",
    temperature: "log",
    similarity: { kind: "normalized", rms: true, qWeights: true, kWeights: true },
  },
  "16 bits": { q: "f16-packed", k: "f16-packed", v: "bf16-packed", o: "bf16-packed" },
  "16 bits at any strides": {
    q: "f16-packed-strided",
    k: "bf16-packed-strided",
    v: "f16-packed-strided",
    o: "f16-packed-strided",
  },
};

const FEATURE_VARIANTS = Object.entries(FEATURES).flatMap(([slotName, slots]) =>
  ["64x32", "16x4-quad", "64x4"]
    .map((variant) => FORWARD_TILES.find(({ name }) => name === variant) as ForwardTile)
    .map((tile) => ({
      name: `forward ${tile.name} with ${slotName}`,
      root: forwardRoot(tile),
      modules: forwardModules({ headDim: 64, vDim: 64, tile, ...slots }),
      bindings: slotBindings(slots),
    })),
);

/**
 * Additive scores whose keys' exponentials are in memory, and the kernel that leaves them there.
 */
const STORED_KEYS: SlotChoice = {
  ...PLAIN,
  k: "bf16-packed-strided",
  tables: true,
  similarity: { kind: "additive", innerBias: true, unitVector: false, storedKeys: true },
};
const STORED_KEYS_VARIANTS = [
  ...FORWARD_TILES.filter(({ name }) => name === "16x4-quad" || name === "64x4").map((tile) => ({
    name: `forward ${tile.name} with stored keys`,
    root: forwardRoot(tile),
    modules: forwardModules({ headDim: 40, vDim: 40, tile, ...STORED_KEYS }),
    bindings: [...slotBindings(STORED_KEYS), STORED_KEYS_BINDING],
  })),
  ...(["dense", "bf16-packed-strided"] as const).map((k) => ({
    name: `additive keys of ${k} rows`,
    root: "package::additive_keys",
    modules: additiveKeysModules({ headDim: k === "dense" ? 40 : 5, k }),
    bindings: ADDITIVE_KEYS_BINDINGS,
  })),
];

/**
 * Tiles of f16, with the slots that they have beside plain attention, at head dims with and without
 * columns left over.
 */
const HALF: SlotChoice = { q: "f16", k: "f16", v: "f16", o: "f16" };
const HALF_VARIANTS = FORWARD_TILES.filter(({ form }) => form === "half").flatMap((tile) =>
  (
    [
      ["f16", tile.maxHeadDim, tile.maxVDim, HALF],
      [
        "packed sequences and sinks",
        24,
        300,
        { ...HALF, o: "dense", sequence: "packed", tables: true, sinks: true },
      ],
      ["a ring", 52, 20, { ...HALF, cache: kvAccess({ place: "ring", ring: 60, sinkTokens: 4 }) }],
    ] as const
  ).map(([slotName, headDim, vDim, slots]) => ({
    name: `forward ${tile.name} D=${headDim} Dv=${vDim} with ${slotName}`,
    root: forwardRoot(tile),
    modules: forwardModules({ headDim, vDim, tile, ...slots }),
    bindings: slotBindings(slots),
  })),
);

const DECODE_VARIANTS = [
  ...Object.entries(FEATURES).filter(
    ([slotName]) => slotName !== "blocks" && slotName !== "additive scores",
  ),
  ...Object.entries(SLOTS),
].flatMap(([slotName, slots]) =>
  DECODE_SHAPES.flatMap((shape, index) => {
    const spec = { headDim: 40, vDim: 40, tile: { ...shape, rows: 1 + 3 * (index % 2) }, ...slots };
    const split = (["decode", "combine"] as const).map((root) => ({
      name: `${root} of ${shape.name} with ${slotName}`,
      root: root === "decode" ? decodeRoot(shape) : "package::combine",
      modules: decodeModules(spec),
      bindings: decodeBindings(root, slots),
    }));
    if (shape.form === "tiles") return split;
    const whole = {
      name: `${shape.name} of all keys with ${slotName}`,
      root: decodeRoot(shape),
      modules: decodeModules({ ...spec, whole: true }),
      bindings: decodeBindings("decode", slots, true),
    };
    return [...split, whole];
  }),
);

const SCORE_VARIANTS = [
  ...Object.entries(FEATURES),
  ...Object.entries(SLOTS).filter(([slotName]) => /^dense$|^strided with/.test(slotName)),
].flatMap(([slotName, slots]) =>
  [WEIGHTS, TOP_KEYS].map((kernel) => ({
    name: `${kernel.name} with ${slotName}`,
    root: `package::${kernel.name}`,
    modules: scoreModules(kernel, { headDim: 40, ...slots }),
    bindings: scoreBindings(kernel, slots),
  })),
);

const PRODUCT: Omit<MatmulSpecialisation, "tile"> = {
  x: "dense",
  weight: "dense",
  bias: "dense",
  y: "dense",
  columnsAdjacent: false,
  oddColumns: undefined,
};
const PRODUCTS: Readonly<Record<string, MatmulSpecialisation>> = {
  ...Object.fromEntries(MATMUL_TILES.map((tile) => [tile.name, { ...PRODUCT, tile }])),
  "a weight of columns and no bias": {
    ...PRODUCT,
    tile: MATMUL_TILES[2],
    weight: "strided",
    bias: undefined,
    columnsAdjacent: true,
  },
  "16 bits and odd columns": {
    tile: MATMUL_TILES[2],
    x: "bf16-packed-strided",
    weight: "f16-packed-strided",
    bias: "f16-packed-strided",
    y: "f16-packed-strided",
    columnsAdjacent: false,
    oddColumns: 7,
  },
};

const INTEGERS = {
  ...PRODUCT,
  weight: "words",
  quantised: { bits: 8, group: 32 },
} as const;

const PRODUCT_VARIANTS = Object.entries({
  ...PRODUCTS,
  "a weight of bytes": { ...INTEGERS, tile: MATMUL_TILES[2] },
  "a weight of half bytes": {
    ...INTEGERS,
    quantised: { bits: 4, group: 32 } as const,
    tile: MATMUL_TILES[0],
  },
}).map(([name, spec]) => ({
  name: `matmul ${name}`,
  root: matmulRoot(spec.tile),
  modules: matmulModules(spec),
  bindings: matmulBindings(spec),
}));

/** Products of few rows, on software adapters and on GPUs. */
export const FEW_ROWS: Readonly<Record<string, MatvecSpecialisation>> = Object.fromEntries(
  [true, false].flatMap((software) => {
    const shape = (rows: number, columnsAdjacent = false) =>
      matvecShape({ rows, columnsAdjacent }, { software });
    const plain = { ...PRODUCT, endsWithinVec4: false };
    const integers = { ...INTEGERS, endsWithinVec4: false };
    const device = software ? "software" : "a GPU";
    return Object.entries<MatvecSpecialisation>({
      "1 row": { ...plain, shape: shape(1) },
      "8 rows, 16 bits, odd columns": {
        shape: shape(8),
        x: "bf16-packed-strided",
        weight: "f16-packed-strided",
        bias: undefined,
        y: "f16-packed-strided",
        oddColumns: 7,
        endsWithinVec4: true,
      },
      int8: { ...integers, shape: shape(2) },
      "int4, groups that lanes divide unevenly": {
        ...integers,
        quantised: { bits: 4, group: 24 },
        shape: shape(4),
      },
      columns: { ...plain, shape: shape(8, true) },
      "columns, k within a vec4": { ...plain, endsWithinVec4: true, shape: shape(1, true) },
    }).map(([name, spec]) => [`${name} on ${device}`, spec] as const);
  }),
);

const FEW_ROWS_VARIANTS = Object.entries(FEW_ROWS).map(([name, spec]) => ({
  name: `matvec ${name}`,
  root: matvecRoot(spec.shape),
  modules: matvecModules(spec),
  bindings: matmulBindings(spec),
}));

const TURNED_PRODUCT: Omit<TurnedSpecialisation, "tile"> = {
  source: "dense",
  weight: "dense",
  o: "dense",
  sourceTurned: true,
  grouped: false,
  carried: false,
  oddColumns: undefined,
};
const TURNED_PRODUCTS: Readonly<Record<string, TurnedSpecialisation>> = {
  ...Object.fromEntries(
    TURNED_TILES.map((tile) => [
      tile.name,
      { ...TURNED_PRODUCT, tile, sourceTurned: tile.rows % 4 === 0 },
    ]),
  ),
  dX: { ...TURNED_PRODUCT, tile: TURNED_TILES[2], sourceTurned: false },
  ...Object.fromEntries(
    [TURNED_TILES[0], TURNED_TILES[2]].map((tile) => [
      `${tile.name} of long sums over heads, odd columns`,
      {
        tile,
        source: "bf16-packed-strided",
        weight: "strided",
        o: "f16-packed-strided",
        sourceTurned: true,
        grouped: true,
        carried: true,
        oddColumns: 7,
      },
    ]),
  ),
};
const TURNED_VARIANTS = Object.entries(TURNED_PRODUCTS).map(([name, spec]) => ({
  name: `matmul_turned ${name}`,
  root: turnedRoot(spec.tile),
  modules: turnedModules(spec),
  bindings: TURNED_BINDINGS,
}));
const SUMS: Readonly<Record<string, SumSpecialisation>> = {
  dense: { source: "dense", o: "dense", oddColumns: undefined },
  "16 bits, odd columns": {
    source: "bf16-packed-strided",
    o: "f16-packed-strided",
    oddColumns: 7,
  },
};
const SUM_VARIANTS = Object.entries(SUMS).map(([name, spec]) => ({
  name: `column sums, ${name}`,
  root: "package::column_sums",
  modules: columnSumsModules(spec),
  bindings: COLUMN_SUMS_BINDINGS,
}));

const TURNED: RotarySpecialisation = {
  headDim: 64,
  x: "dense",
  o: "dense",
  positions: false,
  rotary: { rotaryDim: 64, interleaved: false, angles: "tables" },
};
const ROTARY: Readonly<Record<string, RotarySpecialisation>> = {
  "half pairs": TURNED,
  "half pairs in place, positions in memory": {
    ...TURNED,
    positions: true,
    rotary: { ...TURNED.rotary, inPlace: true },
  },
  "odd half pairs in place, 16 bits at any strides": {
    headDim: 11,
    x: "f16-packed-strided",
    o: "f16-packed-strided",
    positions: false,
    rotary: { rotaryDim: 6, interleaved: false, inPlace: true, angles: "f16" },
  },
  "interleaved pairs, sections": {
    headDim: 20,
    x: "strided",
    o: "bf16-packed",
    positions: true,
    rotary: {
      rotaryDim: 10,
      interleaved: true,
      sections: [3, 1, 1],
      sectionsInterleaved: true,
      angles: "f32",
    },
  },
};
const ROTARY_VARIANTS = Object.entries(ROTARY).map(([name, spec]) => ({
  name: `rotary of ${name}`,
  root: "package::rotary",
  modules: rotaryKernelModules(spec),
  bindings: rotaryKernelBindings(spec),
}));

const PAIRS = { rotaryDim: 8, interleaved: true, angles: "tables" } as const;
const ENCODINGS: Readonly<Record<string, EncodingSpecialisation>> = {
  sinusoidal: { width: 8, x: "dense", o: "dense", encoding: { pairs: PAIRS }, positions: false },
  "sinusoidal, in place, all sines first": {
    width: 8,
    x: "in place",
    o: "strided",
    positions: false,
    encoding: { pairs: { ...PAIRS, interleaved: false } },
  },
  "learned, alone": {
    width: 7,
    x: undefined,
    o: "strided",
    encoding: { table: "strided" },
    positions: true,
  },
};
const ENCODING_VARIANTS = Object.entries(ENCODINGS).map(([name, spec]) => ({
  name: `position encoding ${name}`,
  root: "package::position_encoding",
  modules: encodingModules(spec),
  bindings: encodingBindings(spec),
}));

const APPEND: AppendChoice = {
  headDim: 64,
  vDim: 64,
  k: "dense",
  v: "dense",
  qNorm: false,
  kNorm: false,
  rotary: undefined,
  positions: false,
  layout: { place: "rows" },
  dtype: "f32",
};
const TURNS = { ...TURNED.rotary, rotaryDim: 32 };
export const APPENDS: Readonly<Record<string, AppendChoice>> = {
  f32: APPEND,
  "bf16 to a ring, odd head dims": {
    ...APPEND,
    headDim: 5,
    vDim: 7,
    k: "strided",
    v: "bf16-packed-strided",
    dtype: "bf16",
    layout: { place: "ring", ring: 9, sinkTokens: 2 },
  },
  "int4 in pages, q in place": {
    ...APPEND,
    headDim: 2048,
    vDim: 80,
    qNorm: true,
    kNorm: true,
    rotary: TURNS,
    positions: true,
    q: { access: "f16-packed-strided", output: "f16-packed-strided", inPlace: true },
    layout: { place: "paged", pageSize: 16, quantised: { bits: 4, groupK: 32, groupV: 80 } },
  },
  "int8, q to another place": {
    ...APPEND,
    headDim: 260,
    kNorm: true,
    qNorm: true,
    rotary: { ...TURNS, interleaved: true },
    q: { access: "dense", output: "bf16-packed", inPlace: false },
    layout: { place: "rows", quantised: { bits: 8, groupK: 260, groupV: 64 } },
  },
};
const CACHE_VARIANTS = Object.entries(APPENDS).map(([name, choice]) => ({
  name: `cache_append of ${name}`,
  root: "package::cache_append",
  modules: appendModules(choice),
  bindings: appendBindings(choice),
}));
const LINEAR_PLAIN: LinearSpecialisation = {
  headDim: 64,
  vDim: 64,
  decayDim: 0,
  elu: true,
  normalized: true,
  causal: true,
  delta: false,
  group: 1,
  q: "dense",
  k: "dense",
  v: "dense",
  o: "dense",
  decay: "dense",
  beta: "dense",
  lengths: false,
  mask: false,
  rows: 8,
  recurrent: recurrentTile("test", { headDim: 64, vDim: 64, decayDim: 0, group: 1 }, 64),
};
const gatedDelta = { headDim: 130, vDim: 70, decayDim: 130, group: 3 };
/** Specialisations of linear attention. */
export const LINEAR_SPECS: Readonly<Record<string, LinearSpecialisation>> = {
  plain: LINEAR_PLAIN,
  "in no order, with lengths and a mask": {
    ...LINEAR_PLAIN,
    causal: false,
    lengths: true,
    mask: true,
    rows: 4,
  },
  gated: {
    ...LINEAR_PLAIN,
    decayDim: 1,
    decay: "strided",
    elu: false,
    normalized: false,
    vDim: 20,
    recurrent: recurrentTile("test", { headDim: 64, vDim: 20, decayDim: 1, group: 1 }, 64),
  },
  "gated delta, 16 bits": {
    ...LINEAR_PLAIN,
    ...gatedDelta,
    delta: true,
    elu: false,
    normalized: false,
    lengths: true,
    q: "f16-packed-strided",
    k: "bf16-packed-strided",
    v: "strided",
    o: "f16-packed-strided",
    decay: "strided",
    beta: "bf16-packed-strided",
    recurrent: recurrentTile("test", gatedDelta, 64),
  },
};
const LINEAR_VARIANTS = Object.entries(LINEAR_SPECS).flatMap(([slotName, spec]) => {
  const chunked: LinearKernel[] = spec.delta ? [] : ["states", "scan", "output"];
  return [...chunked, ...(spec.causal ? (["recurrent"] as const) : [])].map((kernel) => ({
    name: `linear ${kernel}, ${slotName}`,
    root: `package::linear_${kernel}`,
    modules: linearModules(kernel, spec),
    bindings: linearBindings(kernel, spec),
  }));
});

const BACKWARD_PLAIN: LinearBackwardSpecialisation = {
  headDim: 64,
  vDim: 64,
  decayDim: 0,
  normalized: true,
  causal: true,
  delta: false,
  group: 1,
  elu: true,
  lengths: false,
  mask: false,
};
/** Specialisations of linear attention's gradients. */
export const LINEAR_BACKWARD_SPECS: Readonly<Record<string, LinearBackwardSpecialisation>> = {
  plain: BACKWARD_PLAIN,
  "in no order": { ...BACKWARD_PLAIN, causal: false, group: 3 },
  gated: { ...BACKWARD_PLAIN, decayDim: 1, vDim: 20, group: 40 },
  "gated delta": {
    ...BACKWARD_PLAIN,
    headDim: 130,
    vDim: 70,
    decayDim: 130,
    normalized: false,
    delta: true,
    group: 3,
  },
};
const LINEAR_BACKWARD_VARIANTS = [
  ...Object.entries(LINEAR_BACKWARD_SPECS).flatMap(([name, spec]) =>
    linearBackwardKernels(spec).map((kernel) => ({
      name: `linear backward ${kernel}, ${name}`,
      ...linearBackwardParts(kernel, spec),
    })),
  ),
  ...(["prepare", "gradient", "scalars"] as const).map((kernel) => ({
    name: `linear backward ${kernel}`,
    ...linearBackwardParts(
      kernel,
      { ...BACKWARD_PLAIN, lengths: true, mask: true },
      { access: "bf16-packed-strided", width: 5, mapped: true, masked: true },
    ),
  })),
];

/** Kernels of rows, by their root. */
const ROW_OF_256 = { lanes: 256, rowsAdjacent: false };
const PLAIN_LOSS = { smoothed: false, weighted: false, loss: true };
export const ROW_KERNELS: Readonly<Record<string, Readonly<Record<string, RowSpecialisation>>>> = {
  pointwise: {
    copy: pointwiseSpecialisation({ source: "dense", o: "dense" }),
    "gelu of a sum, 16 bits at any strides": pointwiseSpecialisation(
      {
        source: "bf16-packed-strided",
        bias: "f16-packed",
        residual: "strided",
        o: "f16-packed-strided",
      },
      activationModules("gelu"),
    ),
    "gelu with tanh": pointwiseSpecialisation(
      { source: "strided", bias: "strided", o: "bf16-packed" },
      activationModules("gelu-tanh"),
    ),
    ...Object.fromEntries(
      (["relu", "silu", "sigmoid", "tanh"] as const).map((name) => [
        name,
        pointwiseSpecialisation({ source: "dense", o: "dense" }, activationModules(name)),
      ]),
    ),
  },
  pointwise_backward: {
    "of a product": pointwiseBackwardSpecialisation({
      source: "dense",
      shift: "dense",
      weight: "strided",
      o: "dense",
      total: "dense",
    }),
    "of gelu of a sum, 16 bits at any strides": pointwiseBackwardSpecialisation(
      {
        source: "bf16-packed-strided",
        bias: "f16-packed",
        residual: "strided",
        shift: "bf16-packed",
        weight: "strided",
        o: "f16-packed-strided",
        total: "bf16-packed-strided",
      },
      "gelu",
    ),
    ...Object.fromEntries(
      (["gelu-tanh", "relu", "silu", "sigmoid", "tanh"] as const).map((name) => [
        `of ${name}`,
        pointwiseBackwardSpecialisation({ source: "dense", shift: "dense", o: "dense" }, name),
      ]),
    ),
  },
  quantise: {
    bytes: quantiseSpecialisation("dense", { bits: 8, group: 128 }),
    "half bytes": quantiseSpecialisation("bf16-packed-strided", { bits: 4, group: 8 }),
  },
  embedding: {
    plain: embeddingSpecialisation({ source: "dense", o: "dense" }),
    "16 bits": embeddingSpecialisation({ source: "bf16-packed", o: "f16-packed-strided" }),
    "of half bytes": embeddingSpecialisation(
      { source: "words", o: "dense" },
      { bits: 4, group: 32 },
    ),
  },
  top_softmax: {
    plain: topSoftmaxSpecialisation({ source: "dense", o: "dense" }),
    "16 bits": topSoftmaxSpecialisation({ source: "bf16-packed-strided", o: "f16-packed" }),
  },
  dropout: {
    "by a generator": dropoutSpecialisation({ source: "dense", o: "dense" }, false),
    "by a mask, 16 bits": dropoutSpecialisation({ source: "f16-packed", o: "bf16-packed" }, true),
  },
  cross_entropy: {
    loss: crossEntropySpecialisation({ source: "dense" }, { ...ROW_OF_256, ...PLAIN_LOSS }),
    "loss and gradient of smoothed and weighted classes": crossEntropySpecialisation(
      { source: "f16-packed-strided", bias: "strided", o: "bf16-packed-strided" },
      { lanes: 4, rowsAdjacent: true, smoothed: true, weighted: true, loss: true },
    ),
    gradient: crossEntropySpecialisation(
      { source: "dense", bias: "strided", o: "dense" },
      { ...ROW_OF_256, ...PLAIN_LOSS, loss: false },
    ),
  },
  pointwise_loss: {
    "squared errors": pointwiseLossSpecialisation(
      { source: "dense", residual: "dense", o: "dense" },
      "squared",
    ),
    "binary cross-entropy of weighted elements": pointwiseLossSpecialisation(
      { source: "f16-packed", residual: "strided", shift: "strided", weight: "dense", o: "dense" },
      "logistic",
    ),
    "its gradient": pointwiseLossSpecialisation(
      { source: "dense", residual: "dense", bias: "strided", o: "bf16-packed" },
      "logistic",
      "x",
    ),
    "and by the target": pointwiseLossSpecialisation(
      { source: "dense", residual: "dense", bias: "strided", o: "dense" },
      "logistic",
      "target",
    ),
  },
  loss_sums: {
    "of squared errors": lossSumsSpecialisation(
      { of: "elements", kind: "squared", tensors: { source: "dense", residual: "strided" } },
      { loss: true, counted: false, whole: false },
    ),
    "of binary cross-entropies": lossSumsSpecialisation(
      { of: "elements", kind: "logistic", tensors: { source: "dense", residual: "dense" } },
      { loss: true, counted: false, whole: true },
    ),
    "of rows": lossSumsSpecialisation(
      { of: "rows", weighted: true },
      { loss: true, counted: true, whole: true },
    ),
    "of what rows count": lossSumsSpecialisation(
      { of: "counts", weighted: false },
      { loss: false, counted: true, whole: true },
    ),
    "of hits": lossSumsSpecialisation(
      { of: "hits" },
      { loss: true, counted: true, counts: true, whole: true },
    ),
    "of partial sums": lossSumsSpecialisation(
      { of: "partial" },
      { loss: true, counted: true, whole: true },
    ),
  },
  row_argmax: {
    "lanes of a row side by side": argmaxSpecialisation({ source: "dense" }, ROW_OF_256),
    "rows side by side, 16 bits": argmaxSpecialisation(
      { source: "bf16-packed-strided" },
      { lanes: 4, rowsAdjacent: true },
    ),
  },
  position_bias: {
    "of a table": positionBiasSpecialisation({ source: "strided", o: "dense" }, true),
    gated: positionBiasSpecialisation(
      {
        source: "f16-packed",
        residual: "strided",
        shift: "strided",
        weight: "strided",
        o: "f16-packed",
      },
      false,
    ),
  },
  row_softmax: {
    "lanes of a row side by side": softmaxSpecialisation(
      { source: "dense", o: "dense" },
      { lanes: 256, rowsAdjacent: false, logarithm: false },
    ),
    "rows side by side, logarithm, 16 bits": softmaxSpecialisation(
      { source: "f16-packed-strided", o: "bf16-packed-strided" },
      { lanes: 4, rowsAdjacent: true, logarithm: true },
    ),
  },
  layer_norm: {
    plain: layerNormSpecialisation(
      { source: "dense", weight: "dense", bias: "dense", o: "dense" },
      { lanes: 32, workgroup: 256, rowsAdjacent: false, centred: true },
    ),
    "all there is": layerNormSpecialisation(
      {
        source: "strided",
        residual: "f16-packed",
        shift: "bf16-packed",
        weight: "strided",
        bias: "strided",
        o: "f16-packed-strided",
        total: "bf16-packed-strided",
        statistics: "strided",
      },
      { lanes: 256, workgroup: 256, rowsAdjacent: false, centred: true },
    ),
    "by the root mean square": layerNormSpecialisation(
      { source: "dense", residual: "dense", o: "strided", total: "dense", statistics: "strided" },
      { lanes: 4, workgroup: 256, rowsAdjacent: true, centred: false },
    ),
    "few rows of a software adapter": layerNormSpecialisation(
      { source: "dense", residual: "dense", weight: "dense", o: "dense", total: "dense" },
      { lanes: 4, workgroup: 4, rowsAdjacent: false, centred: false },
    ),
  },
};
const ROW_VARIANTS = Object.entries(ROW_KERNELS).flatMap(([root, specs]) =>
  Object.entries(specs).map(([name, spec]) => ({
    name: `${root}, ${name}`,
    root: `package::${root}`,
    modules: rowModules(spec),
    bindings: rowBindings(spec),
  })),
);

const NORM_ALL = {
  source: "strided",
  residual: "f16-packed",
  shift: "bf16-packed",
  weight: "strided",
  gradient: "dense",
  passed: "strided",
} as const;
/** Gradients of operations on rows. */
const GRADIENT_KERNELS: Readonly<
  Record<string, Readonly<Record<string, RowGradientSpecialisation>>>
> = {
  row_softmax_backward: {
    "of 256 lanes": softmaxBackwardSpecialisation(
      { source: "dense", gradient: "dense", o: "dense" },
      { lanes: 256, rowsAdjacent: false, logarithm: false },
    ),
    "rows side by side, logarithm, 16 bits": softmaxBackwardSpecialisation(
      { source: "f16-packed-strided", gradient: "strided", o: "bf16-packed-strided" },
      { lanes: 4, rowsAdjacent: true, logarithm: true },
    ),
  },
  layer_norm_backward: {
    "all there is": layerNormBackwardSpecialisation(
      { ...NORM_ALL, o: "f16-packed-strided" },
      { lanes: 256, rowsAdjacent: false, centred: true, moments: true },
    ),
    "by the root mean square": layerNormBackwardSpecialisation(
      { source: "dense", gradient: "dense", o: "strided" },
      { lanes: 4, rowsAdjacent: true, centred: false, moments: false },
    ),
  },
  row_sums_backward: {
    "of a normalisation": normSumsSpecialisation(
      NORM_ALL,
      {
        lanes: { columns: 16, rows: 16 },
        widthReduced: true,
        terms: Object.values(NORM_TERMS),
      },
      true,
    ),
    "of a gated bias from a table": biasSumsSpecialisation(
      {
        source: "strided",
        residual: "strided",
        shift: "strided",
        weight: "dense",
        gradient: "dense",
      },
      { lanes: { columns: 16, rows: 16 }, widthReduced: true, terms: [1, 2, 3] },
      true,
    ),
    "of the gradient": normSumsSpecialisation(
      normTermTensors(NORM_ALL, [NORM_TERMS.bias]),
      { lanes: { columns: 64, rows: 1 }, widthReduced: false, terms: [NORM_TERMS.bias] },
      false,
    ),
  },
  bias_diagonals_backward: {
    plain: biasDiagonalsSpecialisation({ gradient: "dense" }),
    gated: biasDiagonalsSpecialisation({
      residual: "strided",
      shift: "strided",
      weight: "f16-packed",
      gradient: "bf16-packed-strided",
    }),
  },
  bias_table_backward: { strided: biasTableSpecialisation("strided") },
  row_sums_end_backward: {
    dense: rowSumsEndSpecialisation("dense"),
    "16 bits": rowSumsEndSpecialisation("bf16-packed-strided"),
  },
};
const ORDERED = { positions: true, ordered: true } as const;
const TABLE_SPECIALISATIONS: readonly TableGradientSpecialisation[] = [
  { root: "position_encoding_backward", gradient: "dense", o: "f16-packed" },
  { root: "table_count_backward", positions: true },
  { root: "table_count_backward", ...ORDERED },
  { root: "table_offsets_backward" },
  { root: "table_scatter_backward", positions: true },
  { root: "table_scatter_backward", ...ORDERED },
  { root: "table_backward", gradient: "dense", o: "dense", ordered: true },
  {
    root: "table_backward",
    gradient: "strided",
    o: "bf16-packed-strided",
    ...ORDERED,
    carried: true,
  },
];
const TABLE_GRADIENT_VARIANTS = TABLE_SPECIALISATIONS.map((spec) => ({
  name: `${spec.root}${spec.carried ? " in parts" : ""}${spec.ordered ? " of ordered rows" : ""}`,
  root: `package::${spec.root}`,
  modules: tableGradientModules(spec),
  bindings: tableGradientBindings(spec),
}));
const GRADIENT_VARIANTS = Object.entries(GRADIENT_KERNELS).flatMap(([root, specs]) =>
  Object.entries(specs).map(([name, spec]) => ({
    name: `${root}, ${name}`,
    root: `package::${root}`,
    modules: rowGradientModules(spec),
    bindings: rowGradientBindings(spec),
  })),
);

const VARIANTS: readonly (Omit<KernelVariant, "modules"> & {
  modules: ModuleMap | Promise<ModuleMap>;
})[] = [
  ...ATTENTION_VARIANTS,
  ...FEATURE_VARIANTS,
  ...STORED_KEYS_VARIANTS,
  ...HALF_VARIANTS,
  ...DECODE_VARIANTS,
  ...SCORE_VARIANTS,
  ...ROTARY_VARIANTS,
  ...ENCODING_VARIANTS,
  ...PRODUCT_VARIANTS,
  ...FEW_ROWS_VARIANTS,
  ...TURNED_VARIANTS,
  ...SUM_VARIANTS,
  ...CACHE_VARIANTS,
  {
    name: "cache_advance",
    root: "package::cache_advance",
    modules: ADVANCE_MODULES,
    bindings: advanceKernel().bindings,
  },
  {
    name: "block mask",
    root: "package::block_mask",
    modules: blockMaskModules(),
    bindings: blockMaskBindings(),
  },
  ...(["dense", "strided"] as const).map((access) => ({
    name: `row norms of ${access} rows`,
    root: "package::row_norms",
    modules: rowNormsModules({ ...PLAIN, headDim: 40, q: access, k: access }),
    bindings: ROW_NORMS_BINDINGS,
  })),
  {
    name: "tables",
    root: "package::tables",
    modules: TABLES_MODULES,
    bindings: tablesKernel().bindings,
  },
  ...LINEAR_VARIANTS,
  ...LINEAR_BACKWARD_VARIANTS,
  ...ROW_VARIANTS,
  ...GRADIENT_VARIANTS,
  ...TABLE_GRADIENT_VARIANTS,
  ...SIMILARITY_GRADIENT_VARIANTS,
  ...SCORE_GRADIENT_VARIANTS,
  ...BACKWARD_VARIANTS,
  ...CAPTURE_VARIANTS,
  ...OPTIMIZER_VARIANTS,
  ...RECURRENT_VARIANTS,
  ...SAMPLING_VARIANTS,
  {
    name: "linear copy",
    root: "package::linear_copy",
    modules: linearModules("copy", LINEAR_PLAIN),
    bindings: linearBindings("copy", LINEAR_PLAIN),
  },
  {
    name: "mask bits",
    root: "package::mask_bits",
    modules: MASK_BITS_MODULES,
    bindings: MASK_BITS_BINDINGS,
  },
  { name: "merge", root: "package::merge", modules: MERGE_MODULES, bindings: MERGE_BINDINGS },
  {
    name: "merge backward",
    root: "package::merge_backward",
    modules: MERGE_BACKWARD_MODULES,
    bindings: MERGE_BACKWARD_BINDINGS,
  },
  {
    name: "cache write",
    root: "package::cache_write",
    modules: CACHE_WRITE_MODULES,
    bindings: CACHE_WRITE_BINDINGS,
  },
  {
    name: "cache copy",
    root: "package::cache_copy",
    modules: CACHE_COPY_MODULES,
    bindings: CACHE_COPY_BINDINGS,
  },
];

export const KERNEL_VARIANTS: readonly KernelVariant[] = await Promise.all(
  VARIANTS.map(async (variant) => ({ ...variant, modules: await variant.modules })),
);
