// Multi-head attention on the vectors of ONNX Runtime's com.microsoft Attention, as far as it has no past.

import {
  MultiHeadAttention,
  type MultiHeadForwardOptions,
  multiHeadWeights,
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

describeVectors(["com.microsoft.Attention"], onnxAttention, ({ name }) => TAKEN.test(name));
