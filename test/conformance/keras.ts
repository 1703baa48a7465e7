// Keras' attention layers and Keras Hub's position encodings, as operators of vectors: thin
// translations, like those of fovea/onnx. Their attributes are the layers' arguments; their inputs
// are what layers are called with, and then their weights.

import {
  type AttentionOptions,
  alibiSlopes,
  attentionWeights,
  MultiHeadAttention,
  multiHeadWeights,
  planPositionEncoding,
  rotary,
  type Similarity,
  type Tensor,
} from "../../src/index.ts";
import { attend, weightsOf } from "../../src/interop/onnx/attention_parts.ts";
import { type OnnxCall, onnxOperator } from "../../src/interop/onnx/operator.ts";

/** Keras' layers know no heads: [B, rows, D] is [B, 1, rows, D]. */
const withHead = (x: Tensor) =>
  x.view({
    shape: [x.shape[0], 1, x.shape[1], x.shape[2]],
    strides: [x.strides[0], 0, ...x.strides.slice(1)],
  });
const withoutHead = (x: Tensor) =>
  x.view({
    shape: [x.shape[0], x.shape[2], x.shape[3]],
    strides: [x.strides[0], x.strides[2], x.strides[3]],
  });

type Scores = Pick<AttentionOptions, "similarity" | "scale">;

/** sum_d vector_d * tanh(innerScale * (q_d + k_d)) */
const additive = (more: object): { similarity: Similarity } => ({
  similarity: { kind: "additive", ...more },
});

const SCORE_ATTRIBUTES = {
  score_mode: "string",
  scale: "float",
  concat_score_weight: "float",
} as const;

/**
 * Returns how the attributes of Attention compare q and k: by plain dot products, unless they say
 * otherwise.
 */
function scoresOf(call: OnnxCall<string, string, typeof SCORE_ATTRIBUTES>): Scores {
  const { score_mode: mode = "dot", scale = 1, concat_score_weight: weight = 1 } = call.attributes;
  call.expect(
    mode === "dot" || mode === "concat",
    () => `score_mode must be dot or concat, got ${mode}`,
  );
  return mode === "dot" ? { scale } : additive({ vector: weight, innerScale: scale });
}

/** Raw scores [B, M, N]. */
async function rawScores(call: OnnxCall, q: Tensor, k: Tensor, options: Scores): Promise<Tensor> {
  const heads = { q: withHead(q), k: withHead(k) };
  return withoutHead(call.own(await weightsOf(call, heads, { ...options, stage: "raw" })));
}

/** An argument of the call in Keras, and of the constructor in tf-keras. */
const CAUSAL = { use_causal_mask: "flag", causal: "flag" } as const;
const isCausal = ({ attributes }: OnnxCall<string, string, typeof CAUSAL>) =>
  attributes.use_causal_mask ?? attributes.causal ?? false;

const LAYER_INPUTS = ["query", "key?", "value", "query_mask?", "value_mask?"] as const;
/** What Keras adds to the scores of keys that are masked. */
const MASKED = -1e9;

/**
 * Computes a layer's output, and its probabilities. A masked key has a bias of -1e9, so that a row
 * whose keys are all masked is their mean. A masked query's output is 0, and its probabilities
 * don't change.
 */
async function layer(
  call: OnnxCall<(typeof LAYER_INPUTS)[number], "output" | "scores?", typeof CAUSAL>,
  options: Scores,
): Promise<{ output: Tensor; scores?: Tensor }> {
  const value = call.tensor("value");
  const [q, k, v] = [call.tensor("query"), call.tensor("key") ?? value, value].map(withHead);
  const [B, , M] = q.shape;
  const N = k.shape[2];
  const seen = await call.numbers("value_mask");
  const causal = isCausal(call);
  const isMasked = (i: number) => {
    const row = Math.floor(i / N); // of [B, M]
    return (causal && i % N > row % M) || seen?.[Math.floor(row / M) * N + (i % N)] === 0;
  };
  const data = Float32Array.from({ length: B * M * N }, (_, i) => (isMasked(i) ? MASKED : 0));
  const masked = {
    ...options,
    ...((seen || causal) && { bias: call.make([B, 1, M, N], "f32", { data }) }),
  };
  const queryMask = call.tensor("query_mask")?.view({ shape: [B, 1, M, 1] });
  const output = call.make([B, 1, M, v.shape[3]], q.dtype);
  await attend(call, { q, k, v }, { ...masked, output, ...(queryMask && { mask: queryMask }) });
  if (!call.wants("scores")) return { output: withoutHead(output) };
  return {
    output: withoutHead(output),
    scores: withoutHead(call.own(await weightsOf(call, { q, k }, masked))),
  };
}

const Attention = onnxOperator(
  {
    operator: "keras.Attention",
    opsets: [1],
    inputs: LAYER_INPUTS,
    outputs: ["output", "scores?"],
    attributes: { ...SCORE_ATTRIBUTES, ...CAUSAL },
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
  async (call) => ({
    scores: await rawScores(call, call.tensor("query"), call.tensor("key"), scoresOf(call)),
  }),
);

const AdditiveAttention = onnxOperator(
  {
    operator: "keras.AdditiveAttention",
    opsets: [1],
    inputs: [...LAYER_INPUTS, "v?"],
    outputs: ["output", "scores?"],
    attributes: { use_scale: "flag", ...CAUSAL },
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

const MULTI_HEAD_INPUTS = [
  ...([
    "query",
    "key?",
    "value",
    "query_mask?",
    "value_mask?",
    "key_mask?",
    "attention_mask?",
  ] as const),
  ...([
    "query/kernel",
    "query/bias?",
    "key/kernel",
    "key/bias?",
    "value/kernel",
    "value/bias?",
  ] as const),
  ...(["attention_output/kernel", "attention_output/bias?"] as const),
] as const;

/**
 * query [B, M, E], value [B, N, ..], key like value, which it is by default; masks [B, M] or [B,
 * N], attention_mask [B, M, N] or what broadcasts to it, u8; kernels [in, H, D] and [H, Dv, out]
 * with their biases. A query sees the keys that no mask hides, and without any its heads are 0.
 * scores [B, H, M, N] are the probabilities.
 */
const KerasMultiHeadAttention = onnxOperator(
  {
    operator: "keras.MultiHeadAttention",
    opsets: [1],
    inputs: MULTI_HEAD_INPUTS,
    outputs: ["output", "scores?"],
    attributes: {
      num_heads: "int",
      key_dim: "int",
      value_dim: "int",
      use_bias: "flag",
      dropout: "float",
      use_causal_mask: "flag",
      return_attention_scores: "flag",
    },
  },
  async (call) => {
    const {
      num_heads: asked,
      key_dim: keyDim,
      value_dim: valueDim,
      use_causal_mask: causal = false,
    } = call.attributes;
    const value = call.tensor("value");
    const query = call.tensor("query");
    const [B, M] = query.shape;
    const N = value.shape[1];
    const kernel = call.tensor("query/kernel");
    const heads = asked ?? kernel.shape[1];
    call.expect(
      kernel.shape[1] === heads && (keyDim ?? kernel.shape[2]) === kernel.shape[2],
      () =>
        `query/kernel must be [in, num_heads, key_dim] = [in, ${heads}, ${keyDim}], got [${kernel.shape}]`,
    );
    const out = call.tensor("attention_output/kernel");
    call.expect(
      (valueDim ?? out.shape[1]) === out.shape[1],
      () =>
        `attention_output/kernel must be [num_heads, value_dim, out] with value_dim = ${valueDim}, got [${out.shape}]`,
    );
    const part = (name: "query" | "key" | "value" | "attention_output") => {
      const bias = call.tensor(`${name}/bias`);
      return [
        [`${name}/kernel`, call.tensor(`${name}/kernel`)],
        ...(bias ? [[`${name}/bias`, bias]] : []),
      ];
    };
    const state = Object.fromEntries(
      [part("query"), part("key"), part("value"), part("attention_output")].flat(),
    );
    const weights = multiHeadWeights.fromKeras(call.device, state);
    const layer = new MultiHeadAttention(call.device, weights, { heads });
    const names = ["query_mask", "value_mask", "key_mask", "attention_mask"] as const;
    const masks = await Promise.all(names.map((name) => call.numbers(name)));
    const given = call.tensor("attention_mask")?.shape ?? [];
    const sizes = [B, M, N].slice(3 - given.length);
    call.expect(
      given.length <= 3 && given.every((size, axis) => size === sizes[axis] || size === 1),
      () => `attention_mask must broadcast to [B, M, N] = [${[B, M, N]}], got [${given}]`,
    );
    const sees = (b: number, m: number, n: number) => {
      const [ofQuery, ofValue, ofKey, whole] = masks;
      const index = [b, m, n].slice(3 - given.length);
      const at = given.reduce(
        (flat, size, axis) => flat * size + (size === 1 ? 0 : index[axis]),
        0,
      );
      const hidden = [
        ofQuery?.[b * M + m],
        ofValue?.[b * N + n],
        ofKey?.[b * N + n],
        whole?.[at],
      ].includes(0);
      return !hidden && !(causal && n > m);
    };
    const data = Array.from({ length: B * M * N }, (_, i) => {
      return Number(sees(Math.floor(i / (M * N)), Math.floor(i / N) % M, i % N));
    });
    const { output, weights: scores } = await layer.forward(query, {
      key: call.tensor("key") ?? value,
      value,
      mask: call.make([B, 1, M, N], "u8", { data }),
      ...(call.wants("scores") && { weights: "perHead" }),
    });
    return { output: call.own(output), ...(scores && { scores: call.own(scores) }) };
  },
);

/** x is [B, M, D] or [B, M, H, D]; row i stands at start_index + i if no positions are given. */
const RotaryEmbedding = onnxOperator(
  {
    operator: "keras.RotaryEmbedding",
    opsets: [1],
    inputs: ["x"],
    outputs: ["output"],
    attributes: {
      max_wavelength: "float",
      scaling_factor: "float",
      layout: "string",
      positions: "ints",
      positions2d: "graph",
      start_index: "int",
    },
  },
  async (call) => {
    const {
      max_wavelength: base = 10000,
      scaling_factor: factor = 1,
      layout = "half_split",
    } = call.attributes;
    const { positions, positions2d, start_index: positionOffset = 0 } = call.attributes;
    call.expect(layout === "half_split", () => `layout must be half_split, got ${layout}`);
    const x = call.tensor("x");
    const [B, M, ...rest] = x.shape;
    const heads = { shape: [B, M, rest.length > 1 ? rest[0] : 1, rest.at(-1) as number] };
    const output = call.make(x.shape, x.dtype);
    const positionIds = positions ?? (positions2d as unknown as number[][] | undefined)?.flat();
    await rotary(x.view(heads), {
      base,
      layout: "bmhd",
      output: output.view(heads),
      ...(positionIds ? { positionIds } : { positionOffset }),
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
    const {
      max_wavelength: maxWavelength = 10000,
      dim = 0,
      positions: positionIds = [],
    } = call.attributes;
    const output = call.make([positionIds.length, dim]);
    const rows = output.view({ shape: [1, positionIds.length, dim] });
    const plan = await planPositionEncoding(call.device, {
      output: rows,
      maxWavelength,
      positionIds,
    });
    const encoder = call.device.createCommandEncoder();
    plan.encode(encoder);
    call.device.queue.submit([encoder.finish()]);
    plan.destroy();
    return { output };
  },
);

/**
 * [1, H, M, N]: slope * (j - (N - 1)) for every query. Queries are zero, so the bias is the whole
 * score.
 */
const AlibiBias = onnxOperator(
  {
    operator: "keras.AlibiBias",
    opsets: [1],
    inputs: [],
    outputs: ["output"],
    attributes: {
      alibi_bias_max: "float",
      num_heads: "int",
      query_length: "int",
      key_length: "int",
    },
  },
  async (call) => {
    const {
      alibi_bias_max: max = 8,
      num_heads: H = 1,
      query_length: M = 1,
      key_length: N = 1,
    } = call.attributes;
    if (H * N === 0) return { output: call.make([1, H, M, N]) };
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
  MultiHeadAttention: KerasMultiHeadAttention,
  RotaryEmbedding,
  SinePositionEncoding,
};
