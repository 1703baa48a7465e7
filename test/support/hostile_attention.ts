// Calls of attention and its kin, for hostile values.

import {
  type AttentionOptions,
  type AttentionProblem,
  additiveAttention,
  attention,
  attentionWeights,
  type LinearAttentionBackwardOptions,
  linearAttention,
  linearAttentionBackward,
  mergeAttention,
  multiplicativeAttention,
  planAttention,
  prewarm,
  type Tensor,
  tensor,
  topKKeys,
  tune,
} from "../../src/index.ts";
import {
  attentionScores,
  topKKeys as bestKeys,
  linearAttention as linear64,
  linearAttentionBackward as linearBackward64,
  type ReferenceOptions,
  type ReferenceTensor,
  attention as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Call, type Given, type Numbers, taken, withBindings } from "./hostile.ts";

const SHAPE = { q: [2, 2, 3, 8], k: [2, 2, 5, 8], v: [2, 2, 5, 8] } as const;

/** Options of attention and of everything that has its scores. */
const SCORES = [
  "layout",
  "scale",
  "causal",
  "queryOffset",
  "kvLengths",
  "qLengths",
  "cuSeqlensQ",
  "cuSeqlensKv",
  "maxSeqlenQ",
  "maxSeqlenKv",
  "window",
  "attentionChunk",
  "sinkTokens",
  "mask",
  "bias",
  "scoreFunction",
  "maskFunction",
  "blockMask",
  "softcap",
  "alibiSlopes",
  "relativeBias",
  "sinks",
  "dropout",
  "similarity",
  "temperature",
  "logTemperature",
  "maxTemperature",
  "maxDispatchFlops",
  "label",
];
const OUTPUTS = ["output", "lse", "rowMax", "kvSplits", "allowF16Products", "variant", "tuned"];

/**
 * Options of these that are numbers, or lists and objects of numbers: the reference has them, too.
 */
const KNOWN64 = [
  "layout",
  "scale",
  "causal",
  "queryOffset",
  "kvLengths",
  "qLengths",
  "window",
  "attentionChunk",
  "sinkTokens",
  "softcap",
  "alibiSlopes",
  "relativeBias",
  "sinks",
  "dropout",
  "similarity",
  "temperature",
  "logTemperature",
  "maxTemperature",
];

/** Returns the part of options that the reference takes. */
function options64(options: Given | undefined): ReferenceOptions {
  const given = Object.entries(options ?? {}).filter(
    ([name, value]) => KNOWN64.includes(name) && value !== undefined,
  );
  return Object.fromEntries(given);
}

export function attentionCalls(device: GPUDevice): Call[] {
  const make = (shape: readonly number[], seed: number) => {
    const data = normal(
      seed,
      shape.reduce((a, b) => a * b, 1),
    );
    return { shape, data, gpu: tensor(device, shape, { data }) };
  };
  const [q, k, v] = (["q", "k", "v"] as const).map((name, seed) => make(SHAPE[name], seed + 1));
  const tensors = { q: q.gpu, k: k.gpu, v: v.gpu };
  const right = (_: Given, options: Given) => reference(q, k, v, options64(options)).output;
  const run = async ([q, k, v]: readonly unknown[], options: unknown) => {
    const { output } = await attention(
      q as Tensor,
      k as Tensor,
      v as Tensor,
      options as AttentionOptions,
    );
    return taken(output, (options as AttentionOptions)?.output);
  };
  const call = (
    name: string,
    options: Given,
    names: readonly string[] = [],
    also: Given = {},
  ): Call => ({
    name,
    options: { variant: "8x32", ...options },
    names,
    run: (_, given) => run(Object.values(tensors), given),
    right: (_, given) => reference(q, k, v, { ...options64(given), ...also }).output,
  });
  const table = Array.from(normal(9, 16));
  const relative = { data: table, shape: [8, 2] };
  const vector = Array.from(normal(10, 8));
  return [
    {
      name: "attention",
      args: tensors,
      options: { variant: "8x32" },
      names: [...SCORES, ...OUTPUTS],
      run,
      right,
    },
    {
      ...call("relativeBias", { relativeBias: { table, buckets: 8 } }, [
        "relativeBias.table",
        "relativeBias.buckets",
        "relativeBias.bidirectional",
        "relativeBias.maxDistance",
      ]),
      right: (_, { relativeBias, ...rest }) => {
        const { bidirectional, maxDistance } = (relativeBias ?? {}) as {
          bidirectional: boolean;
          maxDistance: number;
        };
        const given = relativeBias
          ? { relativeBias: { table: relative, bidirectional, maxDistance } }
          : {};
        return reference(q, k, v, { ...options64(rest), ...given }).output;
      },
    },
    call("dropout", { dropout: { p: 0.5, seed: 3 } }, [
      "dropout.p",
      "dropout.seed",
      "dropout.step",
    ]),
    call("rms similarity", { similarity: { kind: "rms" } }, [
      "similarity.kind",
      "similarity.eps",
      "similarity.qWeights",
      "similarity.kWeights",
    ]),
    call("additive similarity", { similarity: { kind: "additive", vector } }, [
      "similarity.kind",
      "similarity.vector",
      "similarity.innerBias",
      "similarity.innerScale",
      "similarity.normalize",
      "similarity.gain",
    ]),
    call("temperatures", { logTemperature: [0.5, 1], maxTemperature: 2 }),
    {
      name: "additiveAttention",
      args: tensors,
      options: { vector, variant: "8x32" },
      names: ["innerBias", "innerScale", "normalize", "gain", "scale"],
      run: async ([q, k, v], options) => {
        const { output } = await additiveAttention(
          q as Tensor,
          k as Tensor,
          v as Tensor,
          options as { vector: number },
        );
        return taken(output);
      },
      right: (_, { scale, variant, ...rest }) =>
        reference(q, k, v, {
          ...(scale !== undefined && { scale: scale as number }),
          similarity: { kind: "additive", ...rest } as NonNullable<ReferenceOptions["similarity"]>,
        }).output,
    },
    multiplicative(tensors, make([8, 8], 4).gpu),
    plan(device, tensors, right),
    weights(q, k, tensors),
    best(q, k, tensors),
    ...merges(device),
    ...linear(device, tensors, { q, k, v }),
    {
      name: "tune",
      args: { device, problem: { ...tensors, causal: true } },
      options: { budget: 0.001, variants: ["8x32"] },
      slow: [
        "undefined",
        "null",
        "{}",
        "an object without prototype",
        "Symbol.toPrimitive that throws",
      ],
      run: async ([device, problem], options) => {
        await tune(device as GPUDevice, problem as AttentionProblem, options as { budget: number });
        return [1];
      },
    },
    {
      name: "prewarm",
      args: { device, problems: [{ ...tensors, variant: "8x32" }] },
      run: async ([device, problems]) => {
        await prewarm(device as GPUDevice, problems as AttentionProblem[]);
        return [1];
      },
    },
  ];
}

type Tensors = Readonly<Record<"q" | "k" | "v", Tensor>>;

const multiplicative = (tensors: Tensors, weight: Tensor): Call => ({
  name: "multiplicativeAttention",
  args: { ...tensors, weight },
  options: { variant: "8x32" },
  names: ["label", "output"],
  run: async ([q, k, v, weight], options) => {
    const given = [q, k, v, weight] as [Tensor, Tensor, Tensor, Tensor];
    return taken((await multiplicativeAttention(...given, options as AttentionOptions)).output);
  },
});

/** Tries a plan's problem as the options, and then its bindings. */
function plan(device: GPUDevice, tensors: Tensors, right: NonNullable<Call["right"]>): Call {
  return {
    name: "planAttention and encode",
    args: { device, bindings: {} },
    options: { ...tensors, variant: "8x32" },
    names: ["layout", "output", "lse", "rowMax", "kvSplits", "tuned", "label", "allowF16Products"],
    run: async ([device, bindings], options) => {
      const plan = await planAttention(device as GPUDevice, options as AttentionProblem);
      const output = tensor(tensors.q.device, SHAPE.q, {
        data: new Float32Array(96).fill(Number.NaN),
      });
      try {
        const encoder = tensors.q.device.createCommandEncoder();
        plan.encode(encoder, withBindings(bindings, { output }));
        tensors.q.device.queue.submit([encoder.finish()]);
        return Float32Array.from(await output.read());
      } finally {
        output.destroy();
        plan.destroy();
      }
    },
    right,
  };
}

const weights = (q: ReferenceTensor, k: ReferenceTensor, tensors: Tensors): Call => ({
  name: "attentionWeights",
  args: { q: tensors.q, k: tensors.k },
  options: {},
  names: [
    "stage",
    "meanOverHeads",
    "heads",
    "rows",
    "probabilityFunction",
    "lse",
    "output",
    "label",
    "scale",
    "layout",
  ],
  run: async ([q, k], options) =>
    taken(await attentionWeights(q as Tensor, k as Tensor, options as object)),
  right: (_, options) => {
    const all = attentionScores(q, k, { stage: "probabilities", ...options64(options) });
    const { heads, rows } = options as { heads?: readonly number[]; rows?: readonly number[] };
    const mean = (options.meanOverHeads ?? false) as boolean;
    return picked(all, [2, 2, 3, 5], heads ?? [0, 1], rows ?? [0, 1, 2], mean);
  },
});

/** Picks heads and rows of [B, H, M, N], and takes the mean of the heads. */
function picked(
  all: Numbers,
  [B, H, M, N]: readonly number[],
  heads: readonly number[],
  rows: readonly number[],
  mean: boolean,
): number[] {
  const at = (b: number, h: number, m: number, n: number) => all[((b * H + h) * M + m) * N + n];
  const keys = Array.from({ length: N }, (_, n) => n);
  return Array.from({ length: B }, (_, b) => {
    const each = heads.map((h) => rows.flatMap((m) => keys.map((n) => at(b, h, m, n))));
    return mean
      ? each[0].map((_, i) => each.reduce((sum, one) => sum + one[i] / heads.length, 0))
      : each.flat();
  }).flat();
}

const best = (q: ReferenceTensor, k: ReferenceTensor, tensors: Tensors): Call => ({
  name: "topKKeys",
  args: { q: tensors.q, k: tensors.k },
  options: { k: 2 },
  names: ["heads", "rows", "label", "scale", "layout"],
  run: async ([q, k], options) => {
    const { indices, weights } = await topKKeys(q as Tensor, k as Tensor, options as { k: number });
    indices.destroy();
    return taken(weights);
  },
  right: (_, options) => {
    const { heads, rows, k: count } = options as { heads?: number[]; rows?: number[]; k: number };
    const { weights } = bestKeys(q, k, Number(count), options64(options));
    return picked(weights, [2, 2, 3, Number(count)], heads ?? [0, 1], rows ?? [0, 1, 2], false);
  },
});

function merges(device: GPUDevice): Call[] {
  const part = (seed: number) => ({
    output: tensor(device, [1, 2, 3, 4], { data: normal(seed, 24) }),
    lse: tensor(device, [1, 2, 3], { data: normal(seed + 1, 6) }),
  });
  const one = part(20);
  const two = part(30);
  const run = async (partials: unknown, options: unknown) => {
    const { output, lse } = await mergeAttention(partials as [], options as object);
    lse.destroy();
    return taken(output);
  };
  return [
    {
      name: "mergeAttention",
      args: { partials: [one, two] },
      options: {},
      names: ["output", "lse", "layout", "label"],
      run: ([partials], options) => run(partials, options),
    },
    {
      name: "parts of mergeAttention",
      args: { first: one, output: two.output, lse: two.lse },
      run: ([first, output, lse]) => run([first, { output, lse }], {}),
    },
  ];
}

function linear(
  device: GPUDevice,
  tensors: Tensors,
  cpu: Readonly<Record<"q" | "k" | "v", ReferenceTensor>>,
): Call[] {
  const k = tensor(device, [2, 2, 3, 8], { data: normal(40, 96) });
  const v = tensor(device, [2, 2, 3, 8], { data: normal(41, 96) });
  const both = {
    k: { data: normal(40, 96), shape: [2, 2, 3, 8] },
    v: { data: normal(41, 96), shape: [2, 2, 3, 8] },
  };
  return [
    {
      name: "linearAttention",
      args: { q: tensors.q, k, v },
      options: { causal: true },
      names: [
        "updateRule",
        "featureMap",
        "normalized",
        "scale",
        "kvLengths",
        "layout",
        "variant",
        "maxDispatchFlops",
        "label",
        "decay",
        "beta",
        "keyMask",
        "output",
        "state",
        "normalizer",
        "pastState",
        "pastNormalizer",
        "presentState",
        "presentNormalizer",
      ],
      run: async ([q, k, v], options) => {
        const made = await linearAttention(
          q as Tensor,
          k as Tensor,
          v as Tensor,
          options as object,
        );
        for (const state of [made.presentState, made.presentNormalizer]) state?.destroy();
        return taken(made.output);
      },
      right: (_, { causal, normalized, scale, kvLengths }) =>
        linear64(cpu.q, both.k, both.v, {
          ...(causal !== undefined && { causal: causal as boolean }),
          ...(normalized !== undefined && { normalized: normalized as boolean }),
          ...(scale !== undefined && { scale: scale as number }),
          ...(kvLengths !== undefined && { kvLengths: kvLengths as number[] }),
        }).output,
    },
    {
      name: "linearAttentionBackward",
      args: { q: tensors.q, k, v },
      options: { causal: true, dOutput: tensors.q },
      names: [
        "gradients",
        "dOutput",
        "dPresentState",
        "dPresentNormalizer",
        "dQ",
        "dK",
        "dV",
        "dDecay",
        "dBeta",
        "dPastState",
        "dPastNormalizer",
        "kvLengths",
        "normalized",
        "maxDispatchFlops",
      ],
      run: async ([q, k, v], options) => {
        const asked = options as unknown as LinearAttentionBackwardOptions;
        const made = await linearAttentionBackward(q as Tensor, k as Tensor, v as Tensor, asked);
        const { dQ, dV, dPastState, dPastNormalizer } = made;
        for (const one of [dQ, dV, dPastState, dPastNormalizer]) one?.destroy();
        return taken(made.dK as Tensor);
      },
      right: (_, { causal, normalized, scale, kvLengths }) =>
        linearBackward64(cpu.q, both.k, both.v, {
          dOutput: cpu.q.data,
          ...(causal !== undefined && { causal: causal as boolean }),
          ...(normalized !== undefined && { normalized: normalized as boolean }),
          ...(scale !== undefined && { scale: scale as number }),
          ...(kvLengths !== undefined && { kvLengths: kvLengths as number[] }),
        }).dK,
    },
  ];
}
