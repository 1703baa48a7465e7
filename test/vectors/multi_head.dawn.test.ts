// Multi-head attention on the vectors of PyTorch's TransformerEncoderLayer, and of ONNX Runtime's com.microsoft Attention
// as far as it has no past: weights in the layouts of both.

import {
  MultiHeadAttention,
  type MultiHeadForwardOptions,
  multiHeadWeights,
  project,
  type Tensor,
  tensor,
  type WeightSource,
} from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { describeVectors, expectVector, floatDtype, type Vector, type VectorTensor } from "../support/vectors.ts";

failOnGpuErrors();

const source = ({ data, shape, ...vector }: VectorTensor) => ({
  data,
  shape,
  dtype: floatDtype({ data, shape, ...vector }),
});
const some = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error("the vector lacks an input");
  return value;
};

/** x -> (x - mean) / sqrt(variance + eps) * weight + bias, of each row. */
function layerNorm(x: Float64Array, weight: Float64Array, bias: Float64Array, eps: number): Float64Array {
  const E = weight.length;
  return x.map((value, index) => {
    const row = x.subarray(index - (index % E), index - (index % E) + E);
    const mean = row.reduce((sum, y) => sum + y, 0) / E;
    const variance = row.reduce((sum, y) => sum + (y - mean) ** 2, 0) / E;
    return ((value - mean) / Math.sqrt(variance + eps)) * weight[index % E] + bias[index % E];
  });
}

const plus = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, index) => value + b[index]);

async function encoderLayer(vector: Vector): Promise<void> {
  const device = await testDevice();
  const [src, padding, ...rest] = vector.inputs;
  const [inWeight, inBias, outWeight, outBias, weight1, bias1, weight2, bias2, ...norms] = rest.map(some);
  const { nhead, layer_norm_eps: eps } = vector.attributes;
  const x = some(src);
  const [S, B, E] = x.shape;
  const used: Tensor[] = [];
  const make = (shape: readonly number[], data: Float64Array, dtype: "f32" | "u8" = "f32") => {
    used.push(tensor(device, shape, { data, dtype }));
    return used[used.length - 1];
  };
  const weights = multiHeadWeights.fromPyTorch(device, {
    in_proj_weight: Float32Array.from(inWeight.data), // arrays without a shape, as a state_dict may come
    in_proj_bias: Float32Array.from(inBias.data),
    "out_proj.weight": Float32Array.from(outWeight.data),
    "out_proj.bias": source(outBias),
  });
  const layer = new MultiHeadAttention(device, weights, { heads: nhead });
  const query = make(x.shape, x.data).permute(1, 0, 2); // batch_first is false: [S, B, E] is looked at as [B, S, E]
  const output = make([S, B, E], new Float64Array(x.data.length).fill(Number.NaN));
  const options = { output: output.permute(1, 0, 2), variant: "32x32" };
  await layer.forward(query, padding ? { ...options, ignoreKeyMask: make([B, S], padding.data, "u8") } : options);

  const first = layerNorm(plus(x.data, await output.read()), norms[0].data, norms[1].data, eps);
  const linear = async (rows: Float64Array, weight: VectorTensor, bias: VectorTensor) => {
    const w = make(weight.shape, weight.data);
    const { output } = await project(make([S, B, w.shape[1]], rows), w, { bias: make(bias.shape, bias.data) });
    used.push(output);
    return Float64Array.from(await output.read());
  };
  const hidden = (await linear(first, weight1, bias1)).map((value) => Math.max(value, 0));
  const second = plus(first, await linear(hidden, weight2, bias2));
  expectVector(vector, layerNorm(second, norms[2].data, norms[3].data, eps));
  for (const one of used) one.destroy();
  layer.destroy();
}

async function onnxAttention(vector: Vector): Promise<void> {
  const device = await testDevice();
  const [input, packed, bias, maskIndex, , attentionBias] = vector.inputs;
  const { num_heads: heads, unidirectional, qkv_hidden_sizes: qkvHiddenSizes, scale } = vector.attributes;
  const x = some(input);
  const [B, S] = x.shape;
  const used: Tensor[] = [];
  const make = (shape: readonly number[], options: Parameters<typeof tensor>[2]) => {
    used.push(tensor(device, shape, options));
    return used[used.length - 1];
  };
  const weights = multiHeadWeights.fromOnnxAttention(device, {
    weights: source(some(packed)) as WeightSource,
    ...(bias && { bias: source(bias) }),
    ...(qkvHiddenSizes && { qkvHiddenSizes }),
  });
  const layer = new MultiHeadAttention(device, weights, { heads });
  const options: MultiHeadForwardOptions = {
    ...{ variant: "32x32", causal: unidirectional ? "bottom-right" : false },
    ...(scale && { scale }),
    ...(attentionBias && { bias: make(attentionBias.shape, { data: attentionBias.data }) }),
    ...(maskIndex && maskOf(maskIndex, B, S, (shape, data) => make(shape, { data, dtype: "u8" }))),
  };
  const { data, shape, dtype } = source(x);
  const { output } = await layer.forward(make(shape, { data, dtype }), options);
  expectVector(vector, await output.read());
  for (const one of [output, ...used]) one.destroy();
  layer.destroy();
}

/** What mask_index says: lengths [B]; ends and begins [2 B]; keys [B, S]; scores [B, S, S]. */
function maskOf(
  { shape, data }: VectorTensor,
  B: number,
  S: number,
  make: (shape: readonly number[], data: Uint8Array) => Tensor,
): Pick<MultiHeadForwardOptions, "kvLengths" | "keyMask" | "mask"> {
  const bytes = Uint8Array.from(data, (value) => Number(value !== 0));
  if (shape.length === 3) return { mask: make([B, 1, S, S], bytes) };
  if (shape.length === 2) return { keyMask: make([B, S], bytes) };
  if (shape[0] === B) return { kvLengths: Array.from(data, (length) => Math.min(length, S)) };
  const within = (key: number, b: number) => key >= data[B + b] && key < data[b];
  return {
    keyMask: make(
      [B, S],
      Uint8Array.from({ length: B * S }, (_, i) => Number(within(i % S, Math.floor(i / S)))),
    ),
  };
}

/**
 * Without a past; without rows whose keys are all masked, which count alike there, because the mask is a bias of -10000;
 * and few sizes, because each is a kernel.
 */
const TAKEN =
  /Attention(?:3DMask|Batch1|Batch1AttentionBias|Batch1WithQKVAttr1|Batch1_Float16|NoMaskIndex|MaskPartialSequence|(?:Batch2Left|Right)PaddingMaskIndex2)$/;

describeVectors(["torch.nn.TransformerEncoderLayer"], encoderLayer);
describeVectors(["com.microsoft.Attention"], onnxAttention, ({ name }) => TAKEN.test(name));
