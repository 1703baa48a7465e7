// Checks what TypeScript believes of the shaders against the shaders: bindings, the packing of
// Params, the size of workgroup memory, and a rule of the house about variables.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ArrayInfo, type StructInfo, WgslReflect } from "wgsl_reflect";
import { BLOCKS, blockMaskModules } from "../../src/kernels/block_mask.ts";
import {
  ADVANCE_MODULES,
  ADVANCE_PARAMS,
  APPEND_PARAMS,
  appendModules,
  appendStruct,
  appendTile,
} from "../../src/kernels/cache.ts";
import {
  DECODE_SHAPES,
  decodeModules,
  decodeRoot,
  decodeWorkgroupBytes,
} from "../../src/kernels/decode.ts";
import { forwardModules, forwardRoot } from "../../src/kernels/forward.ts";
import {
  type MatrixTile,
  matrixKernel,
  matrixTile,
  matrixWorkgroupBytes,
} from "../../src/kernels/forward_matrix.ts";
import {
  ADDITIVE_BYTES,
  FORWARD_TILES,
  forwardWorkgroupBytes,
} from "../../src/kernels/forward_tiles.ts";
import { SUM_PARAMS } from "../../src/kernels/gradients/column_sums.ts";
import { LINEAR_BACKWARD_PARAMS, linearBackwardParts } from "../../src/kernels/gradients/linear.ts";
import { linearBackwardKernels } from "../../src/kernels/gradients/linear_tiles.ts";
import { TURNED_PARAMS } from "../../src/kernels/gradients/matmul_turned.ts";
import {
  MERGE_BACKWARD_MODULES,
  MERGE_BACKWARD_PARAMS,
  MERGE_BACKWARD_ROW_TILE,
} from "../../src/kernels/gradients/merge.ts";
import { recurrentBackwardModules } from "../../src/kernels/gradients/recurrent.ts";
import {
  LINEAR_LANES,
  LINEAR_PARAMS,
  LINEAR_WG_SIZE,
  linearModules,
  linearTiles,
  recurrentTile,
  scanBlocks,
  stateVec4s,
} from "../../src/kernels/linear.ts";
import { MASK_BITS_MODULES, MASK_KINDS, MASKS } from "../../src/kernels/mask_bits.ts";
import {
  MATMUL_PARAMS,
  MATMUL_TILES,
  matmulRoot,
  matmulTileSize,
  matmulWorkgroupBytes,
} from "../../src/kernels/matmul.ts";
import {
  MERGE_BINDINGS,
  MERGE_FOLD,
  MERGE_MODULES,
  MERGE_PARAMS,
  MERGE_ROW_TILE,
} from "../../src/kernels/merge.ts";
import {
  MOST_TOP_TOKENS,
  PROBABILITY_LANES,
  SAMPLING_PARAMS,
  samplingParts,
} from "../../src/kernels/models/sampling.ts";
import { PARAMS } from "../../src/kernels/params.ts";
import { ENCODING_PARAMS } from "../../src/kernels/position_encoding.ts";
import { matvecRoot, matvecWorkgroupBytes } from "../../src/kernels/products/matvec.ts";
import { RECURRENT_PARAMS, recurrentModules } from "../../src/kernels/recurrent.ts";
import { ROTARY_HEADS, ROTARY_PARAMS, rotaryKernelModules } from "../../src/kernels/rotary.ts";
import { angleTablesShape } from "../../src/kernels/rotary_angles.ts";
import { ROW_PARAMS, rowModules } from "../../src/kernels/rows.ts";
import { PLAIN } from "../../src/kernels/slots.ts";
import { COPY, TABLES_MODULES } from "../../src/kernels/tables.ts";
import {
  CHUNK_PARAMS,
  ENTRY,
  GROUP,
  MUON_STAGE,
  NORM_PARAMS,
  OPTIMIZER_CHUNK,
  optimizerParts,
  POLYNOMIAL_PARAMS,
  PURPOSE,
  SCHEDULE,
  SCHEDULE_PARAMS,
} from "../../src/kernels/training/optimizer.ts";
import { UniformStruct } from "../../src/kernels/uniform.ts";
import { MOST_KEYS, STAGES, scoreModules, TOP_KEYS, WEIGHTS } from "../../src/kernels/weights.ts";
import { link, type ModuleMap } from "../../src/shader/link.ts";
import { blankComments } from "../../src/shader/source.ts";
import {
  APPENDS,
  FEW_ROWS,
  KERNEL_VARIANTS,
  LINEAR_BACKWARD_SPECS,
  LINEAR_SPECS,
  ROW_KERNELS,
} from "../support/kernels.ts";
import { backwardSpecOf, RECURRENT_SPECS } from "../support/recurrent_kernels.ts";
import { SAMPLING_SPECS } from "../support/sampling_kernels.ts";

const reflect = (variant: Pick<(typeof KERNEL_VARIANTS)[number], "root" | "modules">) =>
  new WgslReflect(link(variant.root, variant.modules).code);

describe.each(KERNEL_VARIANTS)("$name", (variant) => {
  const reflection = reflect(variant);
  const declared = [...reflection.uniforms, ...reflection.storage]
    .sort((a, b) => a.binding - b.binding)
    .map(({ binding, name, resourceType, access }) => {
      const type =
        resourceType === 0 ? "uniform" : access === "read_write" ? "storage" : "read-only-storage";
      return { binding, name, type };
    });

  it("declares the bindings that the dispatcher binds", () => {
    const bindings = variant.bindings.map(({ binding, name, type }) => ({ binding, name, type }));
    // A step may leave bindings unused; the real kernels declare each binding.
    if (variant.root.startsWith("package::steps::")) {
      expect(bindings).toEqual(expect.arrayContaining(declared));
    } else {
      expect(declared).toEqual(bindings);
    }
  });
  it("has one entry point, main", () => {
    expect(reflection.entry.compute.map(({ name }) => name)).toEqual(["main"]);
  });
});

const modulesOf = (variant: string) =>
  (KERNEL_VARIANTS.find(({ name }) => name === variant) as (typeof KERNEL_VARIANTS)[number])
    .modules;

/** Each uniform struct as the host writes it, and a kernel that has it. */
const UNIFORMS: readonly (readonly [
  name: string,
  host: UniformStruct,
  root: string,
  modules: ModuleMap,
])[] = [
  ["Params", PARAMS, KERNEL_VARIANTS[0].root, KERNEL_VARIANTS[0].modules],
  [
    "LinearParams",
    LINEAR_PARAMS,
    "package::linear_scan",
    linearModules("scan", LINEAR_SPECS.plain),
  ],
  [
    "LinearBackwardParams",
    LINEAR_BACKWARD_PARAMS,
    "package::linear_backward_scan",
    linearBackwardParts("scan", LINEAR_BACKWARD_SPECS.plain).modules,
  ],
  ["RowParams", ROW_PARAMS, "package::pointwise", rowModules(ROW_KERNELS.pointwise.copy)],
  ["MatmulParams", MATMUL_PARAMS, "package::matmul", modulesOf("matmul 32x32")],
  ["TurnedParams", TURNED_PARAMS, "package::matmul_turned", modulesOf("matmul_turned 32x32")],
  ["SumParams", SUM_PARAMS, "package::column_sums", modulesOf("column sums, dense")],
  ["RecurrentParams", RECURRENT_PARAMS, "package::recurrent", modulesOf("recurrent lstm")],
  ["RotaryParams", ROTARY_PARAMS, "package::rotary", modulesOf("rotary of half pairs")],
  [
    "EncodingParams",
    ENCODING_PARAMS,
    "package::position_encoding",
    modulesOf("position encoding sinusoidal"),
  ],
  ["AppendParams", APPEND_PARAMS, "package::cache_append", appendModules(APPENDS.f32)],
  ["MergeParams", MERGE_PARAMS, "package::merge", MERGE_MODULES],
  ["MergeBackwardParams", MERGE_BACKWARD_PARAMS, "package::merge_backward", MERGE_BACKWARD_MODULES],
  [
    "SamplingParams",
    SAMPLING_PARAMS,
    "package::sampling_choose",
    samplingParts(SAMPLING_SPECS["that chooses"]).modules,
  ],
  ["Masks", MASKS, "package::mask_bits", MASK_BITS_MODULES],
  ["Blocks", BLOCKS, "package::block_mask", blockMaskModules()],
  ["Copy", COPY, "package::tables", TABLES_MODULES],
  ["Advance", ADVANCE_PARAMS, "package::cache_advance", ADVANCE_MODULES],
  ...(
    [
      ["ChunkParams", CHUNK_PARAMS, "norm"],
      ["Entry", ENTRY, "norm"],
      ["Group", GROUP, "advance"],
      ["ScheduleParams", SCHEDULE_PARAMS, "advance"],
      ["NormParams", NORM_PARAMS, "norm_total"],
      ["PolynomialParams", POLYNOMIAL_PARAMS, "polynomial"],
    ] as const
  ).map(([name, struct, kernel]) => {
    const { root, modules } = optimizerParts(kernel);
    return [name, struct, root, modules] as const;
  }),
  ...Object.values(APPENDS).map(
    (choice) =>
      [
        "Append",
        appendStruct(choice.headDim),
        "package::cache_append",
        appendModules(choice),
      ] as const,
  ),
];

describe.each(UNIFORMS)("the uniform %s", (name, host, root, modules) => {
  const struct = reflect({ root, modules }).structs.find((one) => one.name === name) as StructInfo;
  const read = { u: "getUint32", i: "getInt32", f: "getFloat32" } as const;
  it(`of ${root} has the members of the WGSL struct, in order, at their offsets and of their types`, () => {
    const members = struct.members.map(({ name, offset, type, size }) => ({
      name,
      type: (type as ArrayInfo).format?.name ?? type.name,
      offset,
      count: size / 4,
    }));
    expect(host.members).toEqual(members);
    expect(host.bytes).toBe(Math.ceil(struct.size / 16) * 16);
  });
  it(`of ${root} is packed by the types of its members`, () => {
    const wordOf = (type: string, word: number) =>
      /f/.test(type.slice(-3)) ? word + 0.5 : type === "i32" ? -word : word;
    const values = host.members.map(({ name, type, count, offset }) => {
      return [name, Array.from({ length: count }, (_, i) => wordOf(type, offset + i))] as const;
    });
    const bytes = new ArrayBuffer(256 + host.bytes);
    host.pack(Object.fromEntries(values), bytes, 256);
    const view = new DataView(bytes, 256);
    for (const [index, { name, type, offset, count }] of host.members.entries()) {
      const kind = type.startsWith("vec") ? type.at(-1) : type[0];
      const found = Array.from({ length: count }, (_, i) =>
        view[read[kind as "u"]](offset + 4 * i, true),
      );
      expect(found, name).toEqual(values[index][1].map((x) => x + 0));
    }
  });
});

describe("a uniform", () => {
  const struct = new UniformStruct(
    "struct Some {\n  a: u32,\n  b: vec4f, // four\n  c: i32,\n}",
    "Some",
  );
  const source = (code: string) => ({
    label: "some kernel",
    code,
    bindings: [],
    locate: () => ({ module: "", line: 1 }),
  });
  const bytes = new ArrayBuffer(48);
  it("refuses values that it has no member for, members without a value, and too few numbers", () => {
    const b = [1, 2, 3, 4];
    expect(() => struct.pack({ a: 1, b, c: 2, d: 3 }, bytes)).toThrow(
      "the uniform Some has no member d.",
    );
    expect(() => struct.pack({ a: 1, b }, bytes)).toThrow("the uniform Some gets no value for c.");
    expect(() => struct.pack({ a: 1, b, c: undefined }, bytes)).toThrow("gets no value for c");
    expect(() => struct.pack({ a: 1, b: [1, 2], c: 2 }, bytes)).toThrow(
      "the uniform Some gets 2 numbers for b.",
    );
  });
  it("of several kernels asks for what the kernel reads, and has 0 for the rest", () => {
    new Uint8Array(bytes).fill(255);
    struct.pack({ a: 7 }, bytes, 0, source("let x = params.a;"));
    expect([...new Uint32Array(bytes).subarray(0, 9)]).toEqual([
      7, 0xffffffff, 0xffffffff, 0xffffffff, 0, 0, 0, 0, 0,
    ]);
    const reads = source("let x = params.a + params.c;");
    expect(() => struct.pack({ a: 7 }, bytes, 0, reads)).toThrow(
      "gets no value for c of some kernel",
    );
  });
  it("of an append fits where caches lay it out", () => {
    expect(APPEND_PARAMS.bytes).toBeLessThanOrEqual(PARAMS.stride);
  });
});

describe("linear attention's tiles", () => {
  it.each(Object.entries(LINEAR_SPECS))("of %s are those of the shaders", (_, spec) => {
    const { headDim, vDim, normalized, rows, recurrent } = spec;
    const constant = (kernel: Parameters<typeof linearModules>[0], name: string) =>
      evaluator(link(`package::linear_${kernel}`, linearModules(kernel, spec)).code)(name);
    expect(constant("states", "K_TILES")).toBe(linearTiles(headDim, vDim).kTiles);
    expect(constant("states", "V_TILES")).toBe(linearTiles(headDim, vDim).vTiles);
    expect(constant("states", "STATE_STRIDE")).toBe(stateVec4s(headDim, vDim));
    expect(constant("output", "V_TILES")).toBe(linearTiles(headDim, vDim).vTiles);
    expect(constant("output", "Q_TILE")).toBe(LINEAR_LANES * rows);
    expect(constant("scan", "BLOCKS")).toBe(scanBlocks(headDim, vDim, normalized));
    for (const kernel of ["scan", "copy"] as const)
      expect(constant(kernel, "WG_SIZE")).toBe(LINEAR_WG_SIZE);
    expect(constant("recurrent", "V_BLOCKS")).toBe(recurrent.vBlocks);
  });
  it("take the workgroup memory that their headers say", () => {
    const bytes = (kernel: "states" | "output") =>
      workgroupBytes(
        link(`package::linear_${kernel}`, linearModules(kernel, LINEAR_SPECS.gated)).code,
      );
    expect(bytes("states")).toBeLessThanOrEqual(8704);
    expect(bytes("output")).toBe(13952);
  });
  it("of the recurrent kernel fit what WebGPU guarantees", () => {
    for (const [headDim, vDim, decayDim, group] of [
      [1, 1, 0, 1],
      [64, 64, 64, 16],
      [128, 64, 1, 4],
      [256, 256, 256, 16],
      [1024, 3, 0, 1],
    ]) {
      for (const tokens of [1, 100]) {
        const recurrent = recurrentTile("test", { headDim, vDim, decayDim, group }, tokens);
        const spec = { ...LINEAR_SPECS.plain, headDim, vDim, decayDim, group, recurrent };
        const { code } = link("package::linear_recurrent", linearModules("recurrent", spec));
        expect(workgroupBytes(code)).toBe(recurrent.workgroupBytes);
        expect(recurrent.workgroupBytes).toBeLessThanOrEqual(16384);
      }
    }
  });
});

describe("the tiles of linear attention's gradients", () => {
  it.each(Object.entries(LINEAR_BACKWARD_SPECS))("of %s fit what WebGPU guarantees", (_, spec) => {
    for (const [headDim, vDim, group] of [
      [spec.headDim, spec.vDim, spec.group],
      [1, 1, 1],
      [256, 512, 9],
      [1024, 3, 71],
    ]) {
      const sized = { ...spec, headDim, vDim, group, decayDim: Math.min(spec.decayDim, headDim) };
      for (const kernel of linearBackwardKernels(sized)) {
        const { root, modules } = linearBackwardParts(kernel, sized);
        expect(bytesOfTiles(link(root, modules).code), kernel).toBeLessThanOrEqual(16384);
      }
    }
  });
});

describe("the kernel that joins masks", () => {
  const variant = { root: "package::mask_bits", modules: MASK_BITS_MODULES };
  it("numbers the kinds of masks as the host does", () => {
    const { code } = link(variant.root, variant.modules);
    expect(code).toContain(`const BYTES = ${MASK_KINDS.bytes}u;`);
    expect(code).toContain(`const BITS = ${MASK_KINDS.bits}u;`);
  });
});

describe("the merge kernel", () => {
  const variant = { root: "package::merge", modules: MERGE_MODULES };
  it("comes with the kernel's own tile of rows", () => {
    const { code } = link(variant.root, variant.modules);
    expect(code).toContain(`const ROW_TILE = ${MERGE_ROW_TILE}u;`);
    expect(MERGE_BINDINGS.filter(({ name }) => /^o_\d$/.test(name))).toHaveLength(MERGE_FOLD);
  });
});

describe("the kernels that choose tokens", () => {
  const codeOf = (name: string) => {
    const { root, modules } = samplingParts(SAMPLING_SPECS[name]);
    return link(root, modules).code;
  };
  it("have the sizes that the host knows", () => {
    expect(codeOf("of the largest logits")).toContain(`const MOST = ${MOST_TOP_TOKENS}u;`);
    expect(codeOf("of probabilities")).toContain(`const INVOCATIONS = ${PROBABILITY_LANES}u;`);
  });
  it("take the workgroup memory that their headers say", () => {
    const bytes = (name: string) => workgroupBytes(codeOf(name));
    expect(bytes("of chunks")).toBe(5184);
    expect(bytes("greedy")).toBe(256);
    expect(bytes("that chooses")).toBe(10_672);
    expect(bytes("of the largest logits")).toBe(11_172);
  });
});

describe("the kernels of optimisers", () => {
  const codeOf = (kernel: Parameters<typeof optimizerParts>[0]) => {
    const { root, modules } = optimizerParts(kernel);
    return link(root, modules).code;
  };
  it("cut tensors as the host does, and number what it numbers", () => {
    expect(codeOf("norm")).toContain(`const CHUNK = ${OPTIMIZER_CHUNK}u;`);
    const numbered = [
      ["advance", SCHEDULE],
      ["norm_total", PURPOSE],
      ["muon", MUON_STAGE],
    ] as const;
    for (const [kernel, names] of numbered)
      for (const [name, number] of Object.entries(names))
        expect(codeOf(kernel)).toContain(`const ${name.toUpperCase()} = ${number}u;`);
  });
  it("take the workgroup memory that their headers say", () => {
    expect(workgroupBytes(codeOf("norm"))).toBe(256);
    expect(workgroupBytes(codeOf("norm_total"))).toBe(1024);
  });
});

it("the kernel of a merge's gradients comes with the kernel's own tile of rows", () => {
  const { code } = link("package::merge_backward", MERGE_BACKWARD_MODULES);
  expect(code).toContain(`const ROW_TILE = ${MERGE_BACKWARD_ROW_TILE}u;`);
  expect(workgroupBytes(code)).toBe(256);
});

describe.each(Object.entries(RECURRENT_SPECS))("the recurrent kernels of %s", (_, spec) => {
  it("take the workgroup memory that their headers say", () => {
    const { entries } = spec;
    const steps = link("package::recurrent", recurrentModules(spec)).code;
    expect(workgroupBytes(steps)).toBe(entries * 1024);
    const modules = recurrentBackwardModules(backwardSpecOf(spec));
    const backward = link("package::recurrent_backward", modules).code;
    expect(workgroupBytes(backward)).toBe(entries * 3072);
  });
});

describe.each(Object.entries(APPENDS))("the append of %s", (_, choice) => {
  const modules = appendModules(choice);
  it("takes the workgroup memory that its header says", () => {
    const columns = Math.ceil(Math.max(choice.headDim, choice.vDim) / 4);
    const { lanes, rows } = appendTile(choice);
    expect(lanes * rows).toBe(64);
    expect(workgroupBytes(link("package::cache_append", modules).code)).toBe(16 * columns * rows);
    expect(16 * columns * rows).toBeLessThanOrEqual(columns <= 64 ? 1024 : 16 * columns);
  });
});

describe("workgroup memory", () => {
  it.each([
    [64, 64],
    [40, 72],
    [4, 8],
    [2048, 2048],
  ])("D=%d Dv=%d is what the tile table says", async (headDim, vDim) => {
    for (const tile of FORWARD_TILES.filter(({ maxHeadDim }) => headDim <= maxHeadDim)) {
      const modules = await forwardModules({ headDim, vDim, tile, ...PLAIN });
      const { code } = link(forwardRoot(tile), modules);
      expect(workgroupBytes(code), tile.name).toBe(forwardWorkgroupBytes(tile, headDim, vDim));
    }
  });
  it.each([
    { kernel: WEIGHTS, bytes: 10756 },
    { kernel: TOP_KEYS, bytes: 15876 },
  ])(
    "$kernel.name takes what its header says, below the default limit of WebGPU",
    ({ kernel, bytes }) => {
      const { code } = link(
        `package::${kernel.name}`,
        scoreModules(kernel, { headDim: 64, ...PLAIN }),
      );
      expect(workgroupBytes(code)).toBe(bytes);
      expect(code).toContain(`${bytes.toLocaleString("en")}`);
    },
  );
  it.each(DECODE_SHAPES)("$name takes what the table of shapes says", async (shape) => {
    for (const [headDim, rows] of [
      [64, 1],
      [40, 4],
    ]) {
      const tile = { ...shape, rows };
      const { code } = link(
        decodeRoot(shape),
        await decodeModules({ headDim, vDim: headDim, tile, ...PLAIN }),
      );
      expect(workgroupBytes(code)).toBe(decodeWorkgroupBytes(tile, headDim));
    }
  });
  it.each(MATMUL_TILES)(
    "matmul $name takes what the tile table says, below the default limit of WebGPU",
    (tile) => {
      const variant = KERNEL_VARIANTS.find(({ name }) => name === `matmul ${tile.name}`);
      const { code } = link(matmulRoot(tile), variant?.modules ?? {});
      expect(workgroupBytes(code)).toBe(matmulWorkgroupBytes(tile));
      expect(matmulWorkgroupBytes(tile)).toBeLessThanOrEqual(16384);
      const { rows, columns } = matmulTileSize(tile);
      expect(tile.name.replace("-quad", "")).toBe(`${rows}x${columns}`);
    },
  );
  it.each(Object.entries(FEW_ROWS))("matvec %s takes what its shape says", (name, { shape }) => {
    const modules = modulesOf(`matvec ${name}`);
    const bytes = workgroupBytes(link(matvecRoot(shape), modules).code);
    expect(bytes).toBe(matvecWorkgroupBytes(shape));
    expect(bytes).toBeLessThanOrEqual(16384);
  });
  it.each([
    ["32x16-quad", 0],
    ["8x32", 5248],
    ["32x32", 4096],
    ["dX", 4608],
    ["64x64", 8192],
  ])("matmul_turned %s takes %d bytes", (name, bytes) => {
    const variant = KERNEL_VARIANTS.find((one) => one.name === `matmul_turned ${name}`);
    const { code } = link(variant?.root ?? "", variant?.modules ?? {});
    expect(workgroupBytes(code)).toBe(bytes);
  });
  it.each([
    ["f16", 16, 16, 16, 32],
    ["f16", 8, 16, 16, 64],
    ["f32", 8, 8, 8, 32],
  ] as const)(
    "of matrices of %s, %d x %d x %d, is what the tile says",
    async (component, M, N, K, lanes) => {
      const configs = [{ componentType: component, resultComponentType: "f32", M, N, K }];
      const limits = {
        configs,
        subgroupMinSize: 8,
        subgroupMaxSize: lanes,
        workgroupBytes: 49152,
        invocations: 256,
      };
      for (const [headDim, vDim] of [
        [64, 64],
        [40, 72],
        [5, 132],
        [128, 128],
      ]) {
        const tile = matrixTile(component, headDim, vDim, limits) as MatrixTile;
        const { code } = await matrixKernel({ headDim, vDim, tile, ...PLAIN });
        // the size of one variable isn't a multiple of 16 bytes
        const bytes = Math.ceil(workgroupBytes(code) / 16) * 16;
        expect(bytes, `${headDim}, ${vDim}`).toBe(matrixWorkgroupBytes(tile, headDim, vDim));
      }
    },
  );
  it("has a word more for additive scores", async () => {
    const similarity = { kind: "additive", innerBias: false, unitVector: false } as const;
    for (const tile of FORWARD_TILES.filter(({ form }) => form === "tiles")) {
      const modules = await forwardModules({
        headDim: 64,
        vDim: 64,
        tile,
        ...PLAIN,
        tables: true,
        similarity,
      });
      const { code } = link("package::forward", modules);
      expect(workgroupBytes(code), tile.name).toBe(
        forwardWorkgroupBytes(tile, 64, 64) + ADDITIVE_BYTES,
      );
    }
  });
  it("fits the default limit of WebGPU in some row for every head dim", () => {
    for (const headDim of [1, 32, 64, 128, 256, 2048]) {
      const smallest = Math.min(
        ...FORWARD_TILES.map((tile) => forwardWorkgroupBytes(tile, headDim, headDim)),
      );
      expect(smallest).toBeLessThanOrEqual(16384);
    }
  });
});

/** Counts the bytes of workgroup memory that a kernel declares. */
function workgroupBytes(code: string): number {
  const constants = evaluator(code);
  const component = code.includes("alias Component = f16;") ? 2 : 4;
  const sizes: Readonly<Record<string, number>> = {
    vec4f: 16,
    vec2f: 8,
    vec4h: 8,
    vec4u: 16,
    vec2u: 8,
    Component: component,
    // Structs of the kernels that choose tokens.
    Selection: 32,
    Range: 16,
  };
  return [
    ...code.matchAll(
      /var<workgroup> \w+: (?:array<(\w+(?:<u32>)?), (.+)>|(Selection|Range)|atomic<u32>);/g,
    ),
  ].reduce(
    (total, [, element, count = "1u", struct = element]) =>
      total + constants(count) * (sizes[struct] ?? 4),
    0,
  );
}

/** The same for sizes that several constants decide: the constants are evaluated as JavaScript. */
function bytesOfTiles(code: string): number {
  const text = blankComments(code).replace(/(\d+)u\b/g, "$1");
  const constants = [...text.matchAll(/^const (\w+) = ([^;\n]*);/gm)];
  const tiles = [...text.matchAll(/^var<workgroup> \w+: array<(\w+), (.+)>;/gm)];
  const lines = constants.map(([, name, value]) => `const ${name} = ${value};`);
  const sizes = tiles.map(([, type, count]) => `${type === "vec4f" ? 16 : 4} * (${count})`);
  const select = "const select = (no, yes, flag) => (flag ? yes : no);";
  const { min, max } = Math;
  return new Function(
    "min",
    "max",
    `${select}${sorted(lines).join("")}return ${sizes.join(" + ") || 0};`,
  )(min, max);
}

/** Declarations in an order in which each stands behind those that it names. */
function sorted(lines: readonly string[]): string[] {
  const nameOf = (line: string) => /^const (\w+)/.exec(line)?.[1] ?? "";
  const all = new Map(lines.map((line) => [nameOf(line), line]));
  const done = new Set<string>();
  const visit = (name: string) => {
    const line = all.get(name);
    if (line === undefined || done.has(name)) return;
    for (const [used] of line.slice(6 + name.length).matchAll(/\b[A-Z]\w*/g)) visit(used);
    done.add(name);
  };
  for (const name of all.keys()) visit(name);
  return [...done].map((name) => all.get(name) as string);
}

/** Evaluates the module constants of a kernel, `select` included. */
function evaluator(code: string): (expression: string) => number {
  const constants = new Map(
    [...blankComments(code).matchAll(/^const (\w+) = (.+?);/gm)].map(([, n, e]) => [n, e]),
  );
  return function evaluate(expression: string): number {
    const text = expression
      .replace(/select\((.+), (.+), (\w+)( == \w+)?\)/, (_, no, yes, flag, equal) =>
        equal
          ? `(${flag}${equal} ? ${yes} : ${no})`
          : constants.get(flag) === "true"
            ? `(${yes})`
            : `(${no})`,
      )
      .replace(/(\d+)u\b/g, "$1")
      .replace(/\b[A-Z]\w*/g, (name) => `${evaluate(constants.get(name) ?? "NaN")}`);
    return Math.floor(
      new Function(
        `const { max } = Math; return ${text.replace(/(\([^()]*\)|\w+) \/ (\w+)/g, "Math.floor($1 / $2)")}`,
      )(),
    );
  };
}

describe("numbers that both sides know", () => {
  it("are the stages of a score and the most keys of a list", () => {
    const { code } = link("package::top_keys", scoreModules(TOP_KEYS, { headDim: 8, ...PLAIN }));
    for (const [index, stage] of STAGES.entries()) {
      if (stage !== "raw") expect(code).toContain(`const ${stage.toUpperCase()} = ${index}u;`);
    }
    expect(code).toContain(`const MOST_KEYS = ${MOST_KEYS}u;`);
  });
  it("are the heads of a lane of rotary, and the digits of its positions", () => {
    const rotary = { rotaryDim: 8, interleaved: false, angles: "tables" } as const;
    const spec = { headDim: 8, x: "dense", o: "dense", positions: false, rotary } as const;
    const { code } = link("package::rotary", rotaryKernelModules(spec));
    expect(code).toContain(`const HEADS = ${ROTARY_HEADS}u;`);
    expect(code).toContain(`const DIGITS = vec3u(${angleTablesShape(4)[1]}u);`);
  });
});

describe("shader sources", () => {
  const root = join(import.meta.dirname, "../../shaders");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".wesl"),
  );

  it("are all reflected above if they are kernels, but for the one of subgroup matrices", () => {
    const roots = [
      ...KERNEL_VARIANTS.map(({ root }) => root),
      ...UNIFORMS.map(([, , root]) => root),
    ];
    const kernels = files.filter((file) =>
      readFileSync(join(root, file), "utf8").includes("@compute"),
    );
    const rootOf = (file: string) => `package::${file.replace(".wesl", "").replaceAll("/", "::")}`;
    const others = kernels.filter((file) => !roots.includes(rootOf(file)));
    expect(others).toEqual(["forward_matrix.wesl"]);
  });

  // Chromium 156 does not zero a variable again that a loop declares without an initial value.
  it.each(files)("%s gives every variable an initial value", (file) => {
    const text = blankComments(readFileSync(join(root, file), "utf8"));
    expect(text.match(/^[ \t]+var \w+\s*(?::[^=;]*)?;/gm)).toBeNull();
  });
  it.each(files)("%s has at most 250 lines of at most 120 characters", (file) => {
    const lines = readFileSync(join(root, file), "utf8").trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(250);
    expect(lines.filter((line) => line.length > 120)).toEqual([]);
  });
});
