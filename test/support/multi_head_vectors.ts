// Vectors of PyTorch's MultiheadAttention, through the reference.

import {
  multiHeadAttention,
  multiHeadAttentionBackward,
  type ReferenceLinear,
  type ReferenceMultiHead,
  type ReferenceTensor,
} from "../../src/reference/index.ts";
import { defined, input, type NamedResults, type NamedVector } from "./named_vectors.ts";

/** Outputs and gradients of a vector, by PyTorch's names. */
export function multiHeadOf(vector: NamedVector): NamedResults {
  const { attributes, inputs } = vector;
  const { heads } = attributes;
  const query = input(vector, "query");
  const { key = query, value = key } = inputs;
  const layer = layerOf(vector);
  const masks = masksOf(vector);
  const options = { heads, zeroAttention: attributes.addZeroAttention ?? false, ...masks };
  const { output, weights } = multiHeadAttention(query, key, value, layer, options);
  const [B, M] = query.shape;
  const keys = weights.length / (B * heads * M);
  const mean = attributes.weights === "mean";
  const dWeights =
    inputs.d_weights && spread(inputs.d_weights.data, { heads: mean ? heads : 1, B });
  const gradients = multiHeadAttentionBackward({ query, key, value }, layer, {
    ...options,
    ...defined({ dOutput: inputs.d_output?.data, dWeights }),
  });
  const { query: ofQ, key: ofK, value: ofV, output: last } = gradients;
  const inProj = joined(ofQ.dWeight, ofK.dWeight, ofV.dWeight);
  // An input that is not given is one of those before it, and that gets its gradient.
  const [dQuery, dKey, dValue] = inputs.key
    ? inputs.value
      ? [gradients.dQuery, gradients.dKey, gradients.dValue]
      : [gradients.dQuery, sum(gradients.dKey, gradients.dValue), gradients.dValue]
    : [sum(gradients.dQuery, sum(gradients.dKey, gradients.dValue)), [], []];
  return {
    output,
    weights: mean ? averaged(weights, { heads, B, size: M * keys }) : weights,
    d_query: dQuery,
    d_key: dKey,
    d_value: dValue,
    d_in_proj_weight: inProj,
    d_q_proj_weight: ofQ.dWeight,
    d_k_proj_weight: ofK.dWeight,
    d_v_proj_weight: ofV.dWeight,
    d_in_proj_bias: joined(ofQ.dBias, ofK.dBias, ofV.dBias),
    "d_out_proj.weight": last.dWeight,
    "d_out_proj.bias": last.dBias,
    d_bias_k: gradients.dBiasK,
    d_bias_v: gradients.dBiasV,
    d_attn_mask: gradients.dBias,
  };
}

function layerOf(vector: NamedVector): ReferenceMultiHead {
  const { inputs } = vector;
  const width = input(vector, "query").shape[2];
  const part = (index: number): ReferenceLinear => {
    const own = inputs[`${"qkv"[index]}_proj_weight`];
    const weight = own ?? {
      data: input(vector, "in_proj_weight").data.subarray(
        index * width ** 2,
        (index + 1) * width ** 2,
      ),
      shape: [width, width],
    };
    const bias = inputs.in_proj_bias?.data.subarray(index * width, (index + 1) * width);
    return { weight, ...(bias && { bias: { data: bias, shape: [width] } }) };
  };
  const flat = (name: string): ReferenceTensor | undefined =>
    inputs[name] && { data: inputs[name].data, shape: [width] };
  return defined<ReferenceMultiHead>({
    query: part(0),
    key: part(1),
    value: part(2),
    output: defined({ weight: input(vector, "out_proj.weight"), bias: inputs["out_proj.bias"] }),
    biasK: flat("bias_k"),
    biasV: flat("bias_v"),
  });
}

/** What hides keys and what is added to scores: a true of PyTorch's masks hides. */
function masksOf(vector: NamedVector): { mask?: ReferenceTensor; bias?: ReferenceTensor } {
  const { attn_mask: given, key_padding_mask: padding, key } = vector.inputs;
  const { heads } = vector.attributes;
  const query = input(vector, "query");
  const [B, M] = query.shape;
  const N = (key ?? query).shape[1];
  const scores = given && {
    data: given.data,
    shape: given.shape.length === 2 ? [1, 1, M, N] : [B, heads, M, N],
  };
  const added = given?.dtype === "bool" ? undefined : scores;
  const hiding = given?.dtype === "bool" ? scores : undefined;
  const hidden = (at: number) => {
    const b = Math.floor(at / (heads * M * N));
    const shared = hiding?.shape[0] === 1;
    const byScore = hiding ? hiding.data[shared ? at % (M * N) : at] : 0;
    return byScore !== 0 || (padding ? padding.data[b * N + (at % N)] : 0) !== 0;
  };
  const mask = (hiding || padding) && {
    data: Array.from({ length: B * heads * M * N }, (_, at) => Number(!hidden(at))),
    shape: [B, heads, M, N],
  };
  return defined({ mask, bias: added });
}

const sum = (a: Float64Array, b: Float64Array) => a.map((value, at) => value + b[at]);
const joined = (...parts: readonly Float64Array[]) =>
  Float64Array.from(parts.flatMap((part) => Array.from(part)));

/** The mean over the heads of numbers [B, heads, size]. */
function averaged(
  values: Float64Array,
  { heads, B, size }: { heads: number; B: number; size: number },
): Float64Array {
  return Float64Array.from({ length: B * size }, (_, at) => {
    const start = Math.floor(at / size) * heads * size + (at % size);
    let total = 0;
    for (let h = 0; h < heads; h++) total += values[start + h * size];
    return total / heads;
  });
}

/** The gradient of each head's numbers from that of their mean. */
function spread(values: Float64Array, { heads, B }: { heads: number; B: number }): Float64Array {
  const size = values.length / B;
  return Float64Array.from({ length: values.length * heads }, (_, at) => {
    const entry = Math.floor(at / (heads * size));
    return values[entry * size + (at % size)] / heads;
  });
}
