// Unknown options and bindings of every public function are refused, with the name that was meant.

import { describe, expect, it } from "vitest";
import * as fovea from "../../src/index.ts";
import { type Tensor, tensor } from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const rows = { shape: [1, 2, 4, 8] };
const qkv = { q: rows, k: rows, v: rows };
/** Makes numbers from -1 to 1. */
const wave = (count: number, step: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(1 + step * i));

/** Numbers of rows, or classes. */
const IDS = { shape: [2], dtype: "i32" } as const;
const ids = (device: GPUDevice) => tensor(device, [2], { dtype: "i32", data: [1, 2] });

/** A layer of two heads whose weights are all the same view. */
const layerOf = (device: GPUDevice, x: Tensor) => {
  const square = { weight: x.view({ shape: [8, 8] }) };
  const weights = { query: square, key: square, value: square };
  return new fovea.MultiHeadAttention(device, weights, { heads: 2 });
};

/** A recurrent network of two units and eight inputs, whose weights are views of x. */
const recurrentOf = (x: Tensor, gates: number) => ({
  weight_ih_l0: x.view({ shape: [2 * gates, 8] }),
  weight_hh_l0: x.view({ shape: [2 * gates, 2] }),
});
const recurrentSpecs = (gates: number) => ({
  x: { shape: [1, 4, 8] },
  weights: {
    weight_ih_l0: { shape: [2 * gates, 8] },
    weight_hh_l0: { shape: [2 * gates, 2] },
  },
});
/** What a run kept, and a gradient, of a network of two units. */
const keptOf = (x: Tensor, gates: number) => ({
  gates: x.view({ shape: [1, 1, 4, 2 * gates] }),
  states: x.view({ shape: [1, 3, 1, 4, 2] }),
  dOutput: x.view({ shape: [1, 4, 2] }),
});

type Call = (device: GPUDevice, x: Tensor, options: object) => unknown;
/** Every public function that has options, called with nothing wrong but the options. */
const CALLS: Readonly<Record<string, Call>> = {
  attention: (_, x, options) => fovea.attention(x, x, x, options),
  planAttention: (device, _, options) => fovea.planAttention(device, { ...qkv, ...options }),
  prewarm: (device, _, options) => fovea.prewarm(device, [{ ...qkv, ...options }]),
  tune: (device, _, options) => fovea.tune(device, qkv, options),
  attentionBackward: (_, x, options) =>
    fovea.attentionBackward(x, x, x, {
      output: x,
      lse: x.view({ shape: [1, 2, 4], strides: [64, 32, 8] }),
      dOutput: x,
      ...options,
    }),
  planAttentionBackward: (device, _, options) =>
    fovea.planAttentionBackward(device, { ...qkv, ...options }),
  additiveAttention: (_, x, options) => fovea.additiveAttention(x, x, x, options),
  planAdditiveAttention: (device, _, options) =>
    fovea.planAdditiveAttention(device, { ...qkv, ...options }),
  multiplicativeAttention: (_, x, options) => fovea.multiplicativeAttention(x, x, x, x, options),
  planMultiplicativeAttention: (device, _, options) =>
    fovea.planMultiplicativeAttention(device, { ...qkv, weight: { shape: [8, 8] }, ...options }),
  multiplicativeAttentionBackward: (_, x, options) =>
    fovea.multiplicativeAttentionBackward(x, x, x, x, {
      output: x,
      lse: x.view({ shape: [1, 2, 4], strides: [64, 32, 8] }),
      dOutput: x,
      ...options,
    }),
  planMultiplicativeAttentionBackward: (device, _, options) =>
    fovea.planMultiplicativeAttentionBackward(device, {
      ...qkv,
      weight: { shape: [8, 8] },
      ...options,
    }),
  attentionWeights: (_, x, options) => fovea.attentionWeights(x, x, options),
  planAttentionWeights: (device, _, options) =>
    fovea.planAttentionWeights(device, { q: rows, k: rows, ...options }),
  topKKeys: (_, x, options) => fovea.topKKeys(x, x, { k: 1, ...options }),
  planTopKKeys: (device, _, options) =>
    fovea.planTopKKeys(device, { q: rows, k: rows, count: 1, ...options }),
  linearAttention: (_, x, options) => fovea.linearAttention(x, x, x, options),
  planLinearAttention: (device, _, options) =>
    fovea.planLinearAttention(device, { ...qkv, ...options }),
  linearAttentionBackward: (_, x, options) =>
    fovea.linearAttentionBackward(x, x, x, { dOutput: x, ...options }),
  planLinearAttentionBackward: (device, _, options) =>
    fovea.planLinearAttentionBackward(device, { ...qkv, dOutput: rows, ...options }),
  mergeAttention: (_, x, options) =>
    fovea.mergeAttention(
      [{ output: x, lse: x.view({ shape: [1, 2, 4], strides: [64, 32, 8] }) }],
      options,
    ),
  planMerge: (device, _, options) =>
    fovea.planMerge(device, {
      partials: [{ output: rows, lse: { shape: [1, 2, 4] } }],
      ...options,
    }),
  mergeAttentionBackward: (_, x, options) =>
    fovea.mergeAttentionBackward(
      [{ output: x, lse: x.view({ shape: [1, 2, 4], strides: [64, 32, 8] }) }],
      { output: x, dOutput: x, ...options },
    ),
  planMergeBackward: (device, _, options) =>
    fovea.planMergeBackward(device, {
      partials: [{ output: rows, lse: { shape: [1, 2, 4] } }],
      ...options,
    }),
  multiHeadAttentionBackward: (device, x, options) => {
    const sequence = x.view({ shape: [1, 8, 8] });
    return fovea.multiHeadAttentionBackward(layerOf(device, x), sequence, {
      dOutput: sequence,
      ...options,
    });
  },
  planMultiHeadAttentionBackward: (device, x, options) =>
    fovea.planMultiHeadAttentionBackward(layerOf(device, x), {
      query: { shape: [1, 8, 8] },
      ...options,
    }),
  lstm: (_, x, options) => fovea.lstm(x.view({ shape: [1, 4, 8] }), recurrentOf(x, 4), options),
  planLstm: (device, _, options) => fovea.planLstm(device, { ...recurrentSpecs(4), ...options }),
  lstmBackward: (_, x, options) =>
    fovea.lstmBackward(x.view({ shape: [1, 4, 8] }), recurrentOf(x, 4), {
      ...keptOf(x, 4),
      ...options,
    }),
  planLstmBackward: (device, _, options) =>
    fovea.planLstmBackward(device, {
      ...recurrentSpecs(4),
      dOutput: { shape: [1, 4, 2] },
      ...options,
    }),
  gru: (_, x, options) => fovea.gru(x.view({ shape: [1, 4, 8] }), recurrentOf(x, 3), options),
  planGru: (device, _, options) => fovea.planGru(device, { ...recurrentSpecs(3), ...options }),
  gruBackward: (_, x, options) =>
    fovea.gruBackward(x.view({ shape: [1, 4, 8] }), recurrentOf(x, 3), {
      ...keptOf(x, 3),
      ...options,
    }),
  planGruBackward: (device, _, options) =>
    fovea.planGruBackward(device, {
      ...recurrentSpecs(3),
      dOutput: { shape: [1, 4, 2] },
      ...options,
    }),
  softmax: (_, x, options) => fovea.softmax(x, options),
  logSoftmax: (_, x, options) => fovea.logSoftmax(x, options),
  planSoftmax: (device, _, options) => fovea.planSoftmax(device, { x: rows, ...options }),
  layerNorm: (_, x, options) => fovea.layerNorm(x, options),
  rmsNorm: (_, x, options) => fovea.rmsNorm(x, options),
  planLayerNorm: (device, _, options) => fovea.planLayerNorm(device, { x: rows, ...options }),
  softmaxBackward: (_, x, options) => fovea.softmaxBackward(x, x, options),
  logSoftmaxBackward: (_, x, options) => fovea.logSoftmaxBackward(x, x, options),
  planSoftmaxBackward: (device, _, options) =>
    fovea.planSoftmaxBackward(device, { x: rows, dOutput: rows, ...options }),
  layerNormBackward: (_, x, options) => fovea.layerNormBackward(x, x, options),
  rmsNormBackward: (_, x, options) => fovea.rmsNormBackward(x, x, options),
  planLayerNormBackward: (device, _, options) =>
    fovea.planLayerNormBackward(device, { x: rows, dOutput: rows, ...options }),
  gelu: (_, x, options) => fovea.gelu(x, options),
  copyTensor: (_, x, options) => fovea.copyTensor(x, options),
  addBias: (_, x, options) => fovea.addBias(x, x, options),
  activate: (_, x, options) => fovea.activate(x, options),
  activationBackward: (_, x, options) => fovea.activationBackward(x, x, options),
  planActivationBackward: (device, _, options) =>
    fovea.planActivationBackward(device, { x: rows, dOutput: rows, ...options }),
  planPointwise: (device, _, options) => fovea.planPointwise(device, { x: rows, ...options }),
  relativePositionBias: (_, x, options) =>
    fovea.relativePositionBias(x.view({ shape: [32, 2] }), { seqQ: 2, seqKv: 2, ...options }),
  gatedPositionBias: (_, x, options) =>
    fovea.gatedPositionBias(x, { update: x, reset: x, scale: x, ...options }),
  planPositionBias: (device, _, options) =>
    fovea.planPositionBias(device, {
      table: { shape: [32, 2] },
      output: { shape: [1, 2, 2, 2] },
      ...options,
    }),
  relativePositionBiasBackward: (_, x, options) =>
    fovea.relativePositionBiasBackward(x.view({ shape: [32, 2] }), x, options),
  gatedPositionBiasBackward: (_, x, options) =>
    fovea.gatedPositionBiasBackward(x, x, { update: x, reset: x, scale: x, ...options }),
  planPositionBiasBackward: (device, _, options) =>
    fovea.planPositionBiasBackward(device, {
      table: { shape: [32, 2] },
      dOutput: { shape: [1, 2, 2, 2] },
      ...options,
    }),
  rotaryBackward: (_, x, options) => fovea.rotaryBackward(x, options),
  planRotaryBackward: (device, _, options) =>
    fovea.planRotaryBackward(device, { dOutput: rows, ...options }),
  positionEncodingBackward: (_, x, options) => fovea.positionEncodingBackward(x, options),
  planPositionEncodingBackward: (device, _, options) =>
    fovea.planPositionEncodingBackward(device, { dOutput: { shape: [1, 4, 8] }, ...options }),
  embedding: (device, x, options) =>
    fovea.embedding(x.view({ shape: [8, 8] }), ids(device), options),
  planEmbedding: (device, _, options) =>
    fovea.planEmbedding(device, { weight: { shape: [8, 8] }, ids: IDS, ...options }),
  embeddingBackward: (device, x, options) =>
    fovea.embeddingBackward(
      x.view({ shape: [8, 8] }),
      ids(device),
      x.view({ shape: [2, 8] }),
      options,
    ),
  planEmbeddingBackward: (device, _, options) =>
    fovea.planEmbeddingBackward(device, {
      weight: { shape: [8, 8] },
      ids: IDS,
      dOutput: { shape: [2, 8] },
      ...options,
    }),
  dropout: (_, x, options) => fovea.dropout(x, { p: 0.5, seed: 1, ...options }),
  planDropout: (device, _, options) =>
    fovea.planDropout(device, { x: rows, p: 0.5, seed: 1, ...options }),
  crossEntropy: (device, x, options) =>
    fovea.crossEntropy(x.view({ shape: [2, 8] }), ids(device), options),
  planCrossEntropy: (device, _, options) =>
    fovea.planCrossEntropy(device, { logits: { shape: [2, 8] }, target: IDS, ...options }),
  crossEntropyBackward: (device, x, options) =>
    fovea.crossEntropyBackward(x.view({ shape: [2, 8] }), ids(device), options),
  planCrossEntropyBackward: (device, _, options) =>
    fovea.planCrossEntropyBackward(device, { logits: { shape: [2, 8] }, target: IDS, ...options }),
  mseLoss: (_, x, options) => fovea.mseLoss(x, x, options),
  planMseLoss: (device, _, options) =>
    fovea.planMseLoss(device, { x: rows, target: rows, ...options }),
  mseLossBackward: (_, x, options) => fovea.mseLossBackward(x, x, options),
  planMseLossBackward: (device, _, options) =>
    fovea.planMseLossBackward(device, { x: rows, target: rows, ...options }),
  bceWithLogits: (_, x, options) => fovea.bceWithLogits(x, x, options),
  planBceWithLogits: (device, _, options) =>
    fovea.planBceWithLogits(device, { x: rows, target: rows, ...options }),
  bceWithLogitsBackward: (_, x, options) => fovea.bceWithLogitsBackward(x, x, options),
  planBceWithLogitsBackward: (device, _, options) =>
    fovea.planBceWithLogitsBackward(device, { x: rows, target: rows, ...options }),
  argmax: (_, x, options) => fovea.argmax(x, options),
  planArgmax: (device, _, options) => fovea.planArgmax(device, { x: rows, ...options }),
  accuracy: (device, x, options) => fovea.accuracy(x.view({ shape: [2, 8] }), ids(device), options),
  planAccuracy: (device, _, options) =>
    fovea.planAccuracy(device, { logits: { shape: [2, 8] }, target: IDS, ...options }),
  project: (_, x, options) => fovea.project(x, x, options),
  planProjection: (device, _, options) =>
    fovea.planProjection(device, { x: rows, weight: { shape: [3, 8] }, ...options }),
  projectionBackward: (_, x, options) => fovea.projectionBackward(x, x, x, options),
  planProjectionBackward: (device, _, options) =>
    fovea.planProjectionBackward(device, {
      x: rows,
      weight: { shape: [3, 8] },
      dOutput: { shape: [1, 2, 4, 3] },
      ...options,
    }),
  rotary: (_, x, options) => fovea.rotary(x, options),
  planRotary: (device, _, options) => fovea.planRotary(device, { x: rows, ...options }),
  rotaryFrequencies: (_device, _x, options) => fovea.rotaryFrequencies(8, options),
  positionEncoding: (_, x, options) => fovea.positionEncoding(x, options),
  planPositionEncoding: (device, _, options) =>
    fovea.planPositionEncoding(device, { x: { shape: [1, 4, 8] }, ...options }),
  sinusoidalPositions: (_device, _x, options) => fovea.sinusoidalPositions(2, 4, options),
  t5Buckets: (_device, _x, options) => fovea.t5Buckets(2, 2, options),
  t5Score: (_, x, options) => fovea.t5Score({ table: x.view({ shape: [32, 2] }), ...options }),
  createBlockMask: (device, _, options) =>
    fovea.createBlockMask(device, fovea.causalMask(), { seqQ: 64, seqKv: 64, ...options }),
  blockMaskOf: (device, _, options) =>
    fovea.blockMaskOf(device, ["full"], { seqQ: 64, seqKv: 64, ...options }),
  createKvCache: (device, _, options) =>
    fovea.createKvCache(device, { batch: 1, kvHeads: 2, headDim: 8, capacity: 8, ...options }),
  createPagedKvCache: (device, _, options) =>
    fovea.createPagedKvCache(device, { entries: 1, kvHeads: 2, headDim: 8, pages: 2, ...options }),
  scoreFunction: (_device, _x, options) =>
    fovea.scoreFunction("fn score(s: f32, at: Position) -> f32 { return s; }", options),
  checkGradient: (device, _, options) =>
    fovea.checkGradient(device, fovea.softcapScore(3), options),
  checkGradients: (device, _, options) => fovea.checkGradients(device, options),
  maskFunction: (_device, _x, options) =>
    fovea.maskFunction("fn mask(at: Position) -> bool { return true; }", options),
  probabilityFunction: (_device, _x, options) =>
    fovea.probabilityFunction("fn probability(p: f32, at: Position) -> f32 { return p; }", options),
  unpackQkv: (_, x, options) =>
    fovea.unpackQkv(x.view({ shape: [1, 2, 24] }), { heads: 1, headDim: 8, ...options }),
  tensor: (device, _, options) => fovea.tensor(device, [1], options),
  requestFoveaDevice: (_device, _x, options) => fovea.requestFoveaDevice(options),
};

/** Public functions and classes without options. */
const WITHOUT = [
  "AttentionPlan",
  "BlockMask",
  "FoveaError",
  "KvCache",
  "LinearAttentionPlan",
  "MergePlan",
  "MultiHeadPlan",
  "MultiplicativeBackwardPlan",
  "MultiplicativePlan",
  "OperationPlan",
  "PagedBatch",
  "PagedKvCache",
  "PositionEncodingPlan",
  "ProjectionPlan",
  "RecurrentPlan",
  "RotaryPlan",
  "Tensor",
  "alibiScore",
  "alibiSlopes",
  "allOf",
  "anyOf",
  "causalMask",
  "chunkMask",
  "createGpuTimer",
  "dilatedWindow",
  "documentMask",
  "globalWindow",
  "neighborhood2d",
  "prefixLm",
  "slidingWindow",
  "softcapScore",
  "splitHeads",
  "release",
  "deviceDescriptor",
  "MultiHeadAttention",
  "multiHeadWeights", // tested below
];

describe("a name that there is not", () => {
  it("every public function is in the table", () => {
    expect(
      Object.keys(fovea).filter((name) => !(name in CALLS) && !WITHOUT.includes(name)),
    ).toEqual([]);
  });

  it.each(Object.keys(CALLS))("is refused by %s", async (name) => {
    const device = await testDevice();
    const x = tensor(device, [1, 2, 4, 8], { data: wave(64, 0.3) });
    await expectError(
      () => CALLS[name](device, x, { nonsense: 1 }),
      "argument",
      /there is no option "nonsense"/,
    );
    x.destroy();
  });

  it.each<[foreign: string, call: string, advice: RegExp]>([
    ["is_causal", "attention", /Here it is causal\.|Did you mean causal/],
    ["attn_mask", "attention", /Here it is mask or bias\./],
    ["alibi", "planAttention", /Here it is alibiSlopes\./],
    ["dropout_p", "attention", /Here it is dropout\./],
    ["softmax_scale", "additiveAttention", /Here it is scale\./],
    ["window_size", "attentionWeights", /Here it is window\./],
    ["sliding_window", "topKKeys", /Here it is window\./],
    ["similarity", "additiveAttention", /there is no option "similarity"/],
    ["rope", "createKvCache", /Here it is rotary\./],
    ["rope", "createPagedKvCache", /Here it is rotary\./],
    ["eps", "layerNorm", /Here it is epsilon\./],
    ["dim", "softmax", /Here it is axis\./],
    ["ignore_index", "crossEntropy", /(Here it is|Did you mean) ignoreIndex/],
    ["weight", "crossEntropy", /Here it is classWeights\./],
    ["padding_idx", "embeddingBackward", /Here it is paddingId\./],
    ["rope_theta", "rotary", /Here it is base\./],
    ["rms", "layerNorm", /there is no option "rms"/],
    ["log", "softmax", /there is no option "log"/],
    ["q", "attention", /there is no option "q"/],
  ])("%s of %s", async (foreign, call, advice) => {
    const device = await testDevice();
    const x = tensor(device, [1, 2, 4, 8], { data: wave(64, 0.3) });
    await expectError(() => CALLS[call](device, x, { [foreign]: true }), "argument", advice);
    x.destroy();
  });

  it.each<[what: string, options: object, message: RegExp]>([
    [
      "dropout",
      { dropout: { rate: 0.1, seed: 1 } },
      /attention: dropout: there is no option "rate"\. Options: p, seed, step/,
    ],
    ["dropout", { dropout: { p: "0.1", seed: 1 } }, /dropout: p must be a number, got "0\.1"/],
    ["dropout", { dropout: { p: [], seed: 1 } }, /dropout: p must be a number, got \[\]/],
    ["dropout", { dropout: { p: null, seed: 1 } }, /dropout: p must be a number, got null/],
    [
      "relativeBias",
      { relativeBias: { table: [1], bidirectionnal: true } },
      /Did you mean bidirectional\?/,
    ],
    [
      "similarity",
      { similarity: { kind: "l2", epsilon: 1 } },
      /similarity: there is no option "epsilon"/,
    ],
    [
      "allowF16Products",
      { allowF16Products: "no" },
      /allowF16Products must be a boolean, got "no"/,
    ],
  ])("of %s within the options", async (_, options, message) => {
    const device = await testDevice();
    await expectError(
      () => fovea.planAttention(device, { ...qkv, ...options }),
      "argument",
      message,
    );
  });

  it("of a layer and of its runs is refused", async () => {
    const device = await testDevice();
    const weights = fovea.multiHeadWeights.glorot(device, { embedDim: 8, heads: 2 });
    const make = (options: object) =>
      new fovea.MultiHeadAttention(device, weights, { heads: 2, ...options });
    await expectError(
      () => make({ num_heads: 2 }),
      "argument",
      /no option "num_heads"\. (Here it is|Did you mean) heads/,
    );
    const layer = make({});
    const x = tensor(device, [1, 4, 8], { data: wave(32, 0.7) });
    const given = (options: object) => options as fovea.MultiHeadForwardOptions;
    await expectError(
      () => layer.forward(x, given({ key_padding_mask: x })),
      "argument",
      /no option "key_padding_mask"\. Here it is ignoreKeyMask or kvLengths\./,
    );
    await expectError(
      () => layer.forward(x, given({ rotary: {} })),
      "argument",
      /rotary\(\) turns queries and keys/,
    );
    await expectError(
      () => layer.plan({ query: x, is_causal: true } as fovea.MultiHeadProblem),
      "argument",
      /no option "is_causal"/,
    );
    x.destroy();
    layer.destroy();
  });
});

describe("bindings that a plan has no use for", () => {
  it.each([
    "mask",
    "bias",
    "kvLengths",
    "sinks",
    "temperature",
    "cache",
    "lse",
    "workspace",
    "nonsense",
  ])("are refused: %s", async (name) => {
    const device = await testDevice();
    const x = tensor(device, [1, 2, 4, 8], { data: wave(64, 0.3) });
    const output = tensor(device, [1, 2, 4, 8]);
    const plan = await fovea.planAttention(device, { q: x, k: x, v: x, variant: "8x32" });
    const encoder = device.createCommandEncoder();
    await expectError(
      () => plan.encode(encoder, { output, [name]: x }),
      "argument",
      `attention: the plan has no use for "${name}"; it takes q, k, v, output. What else a problem has is said when its plan is made.`,
    );
    plan.encode(encoder, { output, [name]: undefined });
    for (const one of [plan, x, output]) one.destroy();
  });
});

it("keys beside a cache, and what is the cache's own, are refused as bindings", async () => {
  const device = await testDevice();
  const cache = await fovea.createKvCache(device, {
    batch: 1,
    kvHeads: 2,
    headDim: 8,
    capacity: 8,
  });
  const x = tensor(device, [1, 2, 4, 8], { data: wave(64, 0.3) });
  await cache.append(x, x);
  const output = tensor(device, [1, 2, 4, 8]);
  const plan = await fovea.planAttention(device, { q: x, cache, variant: "8x32" });
  const encoder = device.createCommandEncoder();
  for (const name of ["k", "v", "kvState"]) {
    const given = { output, [name]: x };
    await expectError(
      () => plan.encode(encoder, given),
      "argument",
      new RegExp(`no use for "${name}"; it takes q, output, cache`),
    );
  }
  plan.encode(encoder, { output, cache });
  for (const one of [plan, x, output, cache]) one.destroy();
});

describe("options that mean nothing by being there", () => {
  it("null, 0 and undefined are as left out, and typed arrays as lists", async () => {
    const device = await testDevice();
    const shape = [1, 2, 5, 8];
    const data = [wave(80, 0.31), wave(80, 0.57), wave(80, 0.93)];
    const [q, k, v] = data.map((one) => tensor(device, shape, { data: one }));
    const cases: readonly [given: fovea.AttentionOptions, same: fovea.AttentionOptions][] = [
      [{ softcap: 0, causal: null, window: null, attentionChunk: null }, {}],
      [{ softcap: null, causal: true, scale: undefined } as never, { causal: true }],
      [{ kvLengths: new Int32Array([3]) }, { kvLengths: [3] }],
      [
        { queryOffset: BigInt64Array.of(-1n), causal: true },
        { queryOffset: -1, causal: true },
      ],
      [{ sinks: Float32Array.of(0.5, -1) }, { sinks: [0.5, -1] }],
      [{ alibiSlopes: Float64Array.of(0.5, 0.25) }, { alibiSlopes: [0.5, 0.25] }],
    ];
    for (const [given, same] of cases) {
      const { output } = await fovea.attention(q, k, v, { ...given, variant: "8x32" });
      const [q64, k64, v64] = data.map((one) => ({ data: one, shape }));
      const expected = reference(q64, k64, v64, same as object as ReferenceOptions).output;
      const values = await output.read();
      for (const [index, value] of expected.entries()) expect(values[index]).toBeCloseTo(value, 5);
      output.destroy();
    }
    for (const one of [q, k, v]) one.destroy();
  });

  it("a call means the moment when it was made", async () => {
    const device = await testDevice();
    const x = tensor(device, [1, 2, 5, 8], { data: wave(80, 0.31) });
    const kvLengths = [2];
    const options = { kvLengths, causal: false, variant: "8x32" };
    const running = fovea.attention(x, x, x, options);
    kvLengths[0] = 5;
    options.causal = true;
    const { output } = await running;
    const { output: expected } = await fovea.attention(x, x, x, {
      kvLengths: [2],
      variant: "8x32",
    });
    expect(await output.read()).toEqual(await expected.read());
    for (const one of [x, output, expected]) one.destroy();
  });
});
