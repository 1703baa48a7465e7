// PyTorch's layers as operators of vectors: inputs are what the layer is called with, then its state_dict in its order.

import { MultiHeadAttention, multiHeadWeights, project, type Tensor } from "../../src/index.ts";
import { type OnnxCall, onnxOperator } from "../../src/interop/onnx/operator.ts";

/** (x - mean) / sqrt(variance + eps) * weight + bias of each row, on the host. */
function layerNorm(
  x: Float32Array,
  weight: readonly number[],
  bias: readonly number[] | undefined,
  eps: number,
): Float32Array {
  const E = weight.length;
  return x.map((value, index) => {
    const row = x.subarray(index - (index % E), index - (index % E) + E);
    const mean = row.reduce((sum, y) => sum + y, 0) / E;
    const variance = row.reduce((sum, y) => sum + (y - mean) ** 2, 0) / E;
    return ((value - mean) / Math.sqrt(variance + eps)) * weight[index % E] + (bias?.[index % E] ?? 0);
  });
}

const sum = (a: Float32Array, b: Float32Array) => a.map((value, index) => value + b[index]);

const INPUTS = [
  ...(["src", "src_key_padding_mask?"] as const),
  ...(["self_attn.in_proj_weight", "self_attn.in_proj_bias?"] as const),
  ...(["self_attn.out_proj.weight", "self_attn.out_proj.bias?"] as const),
  ...(["linear1.weight", "linear1.bias?", "linear2.weight", "linear2.bias?"] as const),
  ...(["norm1.weight", "norm1.bias?", "norm2.weight", "norm2.bias?"] as const),
] as const;
type Call = OnnxCall<(typeof INPUTS)[number], "output", { nhead: "int"; batch_first: "flag" }>;

/** Self-attention of x [S, B, E], or [B, S, E] where `batch_first` is set. */
async function selfAttention(call: Call, x: Tensor): Promise<Tensor> {
  const { nhead: heads = 1, batch_first: batchFirst = false } = call.attributes;
  const [inBias, outBias] = [call.tensor("self_attn.in_proj_bias"), call.tensor("self_attn.out_proj.bias")];
  const weights = multiHeadWeights.fromPyTorch(call.device, {
    in_proj_weight: call.tensor("self_attn.in_proj_weight"),
    "out_proj.weight": call.tensor("self_attn.out_proj.weight"),
    ...(inBias && { in_proj_bias: inBias }),
    ...(outBias && { "out_proj.bias": outBias }),
  });
  const layer = new MultiHeadAttention(call.device, weights, { heads });
  const batched = (rows: Tensor) => (batchFirst ? rows : rows.permute(1, 0, 2));
  const output = call.make(x.shape);
  const padding = call.tensor("src_key_padding_mask");
  await layer.forward(batched(x), { output: batched(output), ...(padding && { ignoreKeyMask: padding }) });
  layer.destroy();
  return output;
}

const TransformerEncoderLayer = onnxOperator(
  {
    operator: "torch.nn.TransformerEncoderLayer",
    opsets: [1],
    inputs: INPUTS,
    outputs: ["output"],
    attributes: {
      ...{ d_model: "int", nhead: "int", dim_feedforward: "int", activation: "string" },
      ...{ norm_first: "flag", layer_norm_eps: "float", batch_first: "flag" },
    },
  },
  async (call) => {
    const { activation = "relu", norm_first: normFirst = false, layer_norm_eps: eps = 1e-5 } = call.attributes;
    call.expect(activation === "relu", () => `activation must be relu, got ${activation}`);
    const src = call.tensor("src");
    const put = (rows: Float32Array, shape = src.shape) => call.make(shape, "f32", { data: rows });
    const floats = async (x: Tensor) => (await x.read()) as Float32Array;
    const norm = async (name: "norm1" | "norm2", x: Float32Array) =>
      layerNorm(x, await call.numbers(`${name}.weight`), await call.numbers(`${name}.bias`), eps);
    const linear = async (name: "linear1" | "linear2", x: Float32Array) => {
      const [weight, bias] = [call.tensor(`${name}.weight`), call.tensor(`${name}.bias`)];
      const rows = put(x, [x.length / weight.shape[1], weight.shape[1]]);
      const { output } = await project(rows, weight, bias ? { bias } : {});
      return floats(call.own(output));
    };
    const blocks = {
      norm1: async (x: Float32Array) => floats(await selfAttention(call, put(x))),
      norm2: async (x: Float32Array) =>
        linear(
          "linear2",
          (await linear("linear1", x)).map((value) => Math.max(value, 0)),
        ),
    };
    let x = await floats(src);
    for (const name of ["norm1", "norm2"] as const) {
      const block = blocks[name];
      x = normFirst ? sum(x, await block(await norm(name, x))) : await norm(name, sum(x, await block(x)));
    }
    return { output: put(x) };
  },
);

export const pytorch = { TransformerEncoderLayer };
