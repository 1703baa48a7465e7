// Keras' attention layers and Keras Hub's position encodings, as operators of vectors: thin translations, like those of
// fovea/onnx. Their attributes are the layers' arguments, their inputs what layers are called with, then their weights.

import {
  type AttentionOptions,
  alibiSlopes,
  attention,
  attentionWeights,
  planPositionEncoding,
  rotary,
  type Similarity,
  type Tensor,
} from "../../src/index.ts";
import { type OnnxCall, onnxOperator } from "../../src/interop/onnx/operator.ts";

/** Keras' layers know no heads: [B, rows, D] is [B, 1, rows, D]. */
const withHead = (x: Tensor) =>
  x.view({ shape: [x.shape[0], 1, x.shape[1], x.shape[2]], strides: [x.strides[0], 0, ...x.strides.slice(1)] });
const withoutHead = (x: Tensor) =>
  x.view({ shape: [x.shape[0], x.shape[2], x.shape[3]], strides: [x.strides[0], x.strides[2], x.strides[3]] });

type Scores = Pick<AttentionOptions, "similarity" | "scale">;

/** sum_d vector_d * tanh(innerScale * (q_d + k_d)) */
const additive = (more: object): { similarity: Similarity } => ({ similarity: { kind: "additive", ...more } });

const SCORE_ATTRIBUTES = { score_mode: "string", scale: "float", concat_score_weight: "float" } as const;

/** What the attributes of Attention make of q and k: plain dot products, unless they say otherwise. */
function scoresOf(call: OnnxCall<string, string, typeof SCORE_ATTRIBUTES>): Scores {
  const { score_mode: mode = "dot", scale = 1, concat_score_weight: weight = 1 } = call.attributes;
  call.expect(mode === "dot" || mode === "concat", () => `score_mode must be dot or concat, got ${mode}`);
  return mode === "dot" ? { scale } : additive({ vector: weight, innerScale: scale });
}

/** Raw scores [B, M, N]. */
async function rawScores(call: OnnxCall, q: Tensor, k: Tensor, options: Scores): Promise<Tensor> {
  return withoutHead(call.own(await attentionWeights(withHead(q), withHead(k), { ...options, stage: "raw" })));
}

const LAYER_INPUTS = ["query", "key?", "value", "query_mask?", "value_mask?"] as const;
/** What Keras takes from the scores of keys that are masked. */
const MASKED = -1e9;

/**
 * A layer's output, and its probabilities. A masked key has a bias of -1e9, so that a row whose keys are all masked is
 * their mean; a masked query's output is 0, and its probabilities know nothing of that.
 */
async function layer(
  call: OnnxCall<(typeof LAYER_INPUTS)[number], "output" | "scores?", { use_causal_mask: "flag" }>,
  options: Scores,
): Promise<{ output: Tensor; scores?: Tensor }> {
  const value = call.tensor("value");
  const [q, k, v] = [call.tensor("query"), call.tensor("key") ?? value, value].map(withHead);
  const [B, , M] = q.shape;
  const N = k.shape[2];
  const seen = await call.numbers("value_mask");
  const causal = call.attributes.use_causal_mask ?? false;
  const isMasked = (i: number) => {
    const row = Math.floor(i / N); // of [B, M]
    return (causal && i % N > row % M) || seen?.[Math.floor(row / M) * N + (i % N)] === 0;
  };
  const data = Float32Array.from({ length: B * M * N }, (_, i) => (isMasked(i) ? MASKED : 0));
  const masked = { ...options, ...((seen || causal) && { bias: call.make([B, 1, M, N], "f32", { data }) }) };
  const queryMask = call.tensor("query_mask")?.view({ shape: [B, 1, M, 1] });
  const { output } = await attention(q, k, v, { ...masked, ...(queryMask && { mask: queryMask }) });
  call.own(output);
  if (!call.wants("scores")) return { output: withoutHead(output) };
  return { output: withoutHead(output), scores: withoutHead(call.own(await attentionWeights(q, k, masked))) };
}

const Attention = onnxOperator(
  {
    operator: "keras.Attention",
    opsets: [1],
    inputs: LAYER_INPUTS,
    outputs: ["output", "scores?"],
    attributes: { ...SCORE_ATTRIBUTES, use_causal_mask: "flag" },
  },
  (call) => layer(call, scoresOf(call)),
);

const AttentionScores = onnxOperator(
  {
    operator: "keras.AttentionScores",
    opsets: [1],
    inputs: ["query", "key"],
    outputs: ["scores"],
    attributes: SCORE_ATTRIBUTES,
  },
  async (call) => ({ scores: await rawScores(call, call.tensor("query"), call.tensor("key"), scoresOf(call)) }),
);

const AdditiveAttention = onnxOperator(
  {
    operator: "keras.AdditiveAttention",
    opsets: [1],
    inputs: [...LAYER_INPUTS, "v?"],
    outputs: ["output", "scores?"],
    attributes: { use_scale: "flag", use_causal_mask: "flag" },
  },
  async (call) => {
    const vector = await call.numbers("v");
    return layer(call, additive(vector ? { vector } : {}));
  },
);

const AdditiveAttentionScores = onnxOperator(
  {
    operator: "keras.AdditiveAttentionScores",
    opsets: [1],
    inputs: ["query", "key", "v?"],
    outputs: ["scores"],
    attributes: {},
  },
  async (call) => {
    const vector = await call.numbers("v");
    const options = additive(vector ? { vector } : {});
    return { scores: await rawScores(call, call.tensor("query"), call.tensor("key"), options) };
  },
);

/** x is [B, M, D] or [B, M, H, D]; row i stands at start_index + i where no positions are given. */
const RotaryEmbedding = onnxOperator(
  {
    operator: "keras.RotaryEmbedding",
    opsets: [1],
    inputs: ["x"],
    outputs: ["output"],
    attributes: {
      ...{ max_wavelength: "float", scaling_factor: "float", layout: "string" },
      ...{ positions: "ints", positions2d: "graph", start_index: "int" },
    },
  },
  async (call) => {
    const { max_wavelength: base = 10000, scaling_factor: factor = 1, layout = "half_split" } = call.attributes;
    const { positions, positions2d, start_index: positionOffset = 0 } = call.attributes;
    call.expect(layout === "half_split", () => `layout must be half_split, got ${layout}`);
    const x = call.tensor("x");
    const [B, M, ...rest] = x.shape;
    const heads = { shape: [B, M, rest.length > 1 ? rest[0] : 1, rest.at(-1) as number] };
    const output = call.make(x.shape, x.dtype);
    const positionIds = positions ?? (positions2d as unknown as number[][] | undefined)?.flat();
    await rotary(x.view(heads), {
      ...{ base, layout: "bmhd", output: output.view(heads), ...(positionIds ? { positionIds } : { positionOffset }) },
      ...(factor !== 1 && { scaling: { type: "linear", factor } }),
    });
    return { output };
  },
);

const SinePositionEncoding = onnxOperator(
  {
    operator: "keras.SinePositionEncoding",
    opsets: [1],
    inputs: [],
    outputs: ["output"],
    attributes: { max_wavelength: "float", dim: "int", positions: "ints" },
  },
  async (call) => {
    const { max_wavelength: maxWavelength = 10000, dim = 0, positions: positionIds = [] } = call.attributes;
    const output = call.make([positionIds.length, dim]);
    const rows = output.view({ shape: [1, positionIds.length, dim] });
    const plan = await planPositionEncoding(call.device, { output: rows, maxWavelength, positionIds });
    const encoder = call.device.createCommandEncoder();
    plan.encode(encoder);
    call.device.queue.submit([encoder.finish()]);
    plan.destroy();
    return { output };
  },
);

/** [1, H, M, N]: slope * (j - (N - 1)) for every query. Of zero queries, the bias is all of the score. */
const AlibiBias = onnxOperator(
  {
    operator: "keras.AlibiBias",
    opsets: [1],
    inputs: [],
    outputs: ["output"],
    attributes: { alibi_bias_max: "float", num_heads: "int", query_length: "int", key_length: "int" },
  },
  async (call) => {
    const { alibi_bias_max: max = 8, num_heads: H = 1, query_length: M = 1, key_length: N = 1 } = call.attributes;
    const [q, k] = [1, N].map((rows) => call.make([1, H, rows, 4]));
    const slopes = { queryOffset: N - 1, alibiSlopes: alibiSlopes(H, max) };
    const row = call.own(await attentionWeights(q, k, { ...slopes, stage: "scores" }));
    return { output: row.view({ shape: [1, H, M, N], strides: [0, N, 0, 1] }) };
  },
);

export const keras = {
  AdditiveAttention,
  AdditiveAttentionScores,
  AlibiBias,
  Attention,
  AttentionScores,
  RotaryEmbedding,
  SinePositionEncoding,
};
