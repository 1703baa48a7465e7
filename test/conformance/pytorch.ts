// PyTorch's layers as operators of vectors: inputs are what the layer is called with, then its
// state_dict in its order.

import {
  activate,
  addBias,
  layerNorm,
  MultiHeadAttention,
  multiHeadWeights,
  project,
  type Tensor,
} from "../../src/index.ts";
import { type OnnxCall, onnxOperator } from "../../src/interop/onnx/operator.ts";

const INPUTS = [
  ...(["src", "src_key_padding_mask?"] as const),
  ...(["self_attn.in_proj_weight", "self_attn.in_proj_bias?"] as const),
  ...(["self_attn.out_proj.weight", "self_attn.out_proj.bias?"] as const),
  ...(["linear1.weight", "linear1.bias?", "linear2.weight", "linear2.bias?"] as const),
  ...(["norm1.weight", "norm1.bias?", "norm2.weight", "norm2.bias?"] as const),
] as const;
type Call = OnnxCall<(typeof INPUTS)[number], "output", { nhead: "int"; batch_first: "flag" }>;

/** Self-attention of x [S, B, E], or [B, S, E] if `batch_first` is set. */
async function selfAttention(call: Call, x: Tensor): Promise<Tensor> {
  const { nhead: heads = 1, batch_first: batchFirst = false } = call.attributes;
  const inBias = call.tensor("self_attn.in_proj_bias");
  const outBias = call.tensor("self_attn.out_proj.bias");
  const weights = multiHeadWeights.fromPyTorch(call.device, {
    in_proj_weight: call.tensor("self_attn.in_proj_weight"),
    "out_proj.weight": call.tensor("self_attn.out_proj.weight"),
    ...(inBias && { in_proj_bias: inBias }),
    ...(outBias && { "out_proj.bias": outBias }),
  });
  const layer = new MultiHeadAttention(call.device, weights, { heads });
  const batched = (rows: Tensor) => (batchFirst ? rows : rows.permute(1, 0, 2));
  const output = call.make(x.shape, x.dtype);
  const padding = call.tensor("src_key_padding_mask");
  await layer.forward(batched(x), {
    output: batched(output),
    ...(padding && { ignoreKeyMask: padding }),
  });
  layer.destroy();
  return output;
}

/** Multiplies rows of x by the weight of a linear layer, and adds its bias. */
async function linear(call: Call, name: "linear1" | "linear2", x: Tensor): Promise<Tensor> {
  const weight = call.tensor(`${name}.weight`);
  const bias = call.tensor(`${name}.bias`);
  return call.own((await project(x, weight, bias ? { bias } : {})).output);
}

const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Promise<Tensor>>> = {
  gelu: async (x) => (await activate(x, { activation: "gelu" })).output,
  relu: async (x) => (await activate(x, { activation: "relu" })).output,
};

const TransformerEncoderLayer = onnxOperator(
  {
    operator: "torch.nn.TransformerEncoderLayer",
    opsets: [1],
    inputs: INPUTS,
    outputs: ["output"],
    attributes: {
      d_model: "int",
      nhead: "int",
      dim_feedforward: "int",
      activation: "string",
      norm_first: "flag",
      layer_norm_eps: "float",
      batch_first: "flag",
    },
  },
  async (call) => {
    const {
      activation: name = "relu",
      norm_first: normFirst = false,
      layer_norm_eps: epsilon = 1e-5,
    } = call.attributes;
    const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
    call.expect(activation !== undefined, () => `activation must be relu or gelu, got ${name}`);
    const blocks = {
      norm1: (x: Tensor) => selfAttention(call, x),
      norm2: async (x: Tensor) => {
        const hidden = await linear(call, "linear1", x);
        return linear(
          call,
          "linear2",
          call.own(await (activation as NonNullable<typeof activation>)(hidden)),
        );
      },
    };
    const norm = async (name: "norm1" | "norm2", x: Tensor, residual?: Tensor) => {
      const weight = call.tensor(`${name}.weight`);
      const bias = call.tensor(`${name}.bias`);
      const options = { epsilon, weight, ...(bias && { bias }), ...(residual && { residual }) };
      return call.own((await layerNorm(x, options)).output);
    };
    let output = call.tensor("src");
    for (const name of ["norm1", "norm2"] as const) {
      const x = output;
      if (normFirst)
        output = call.own((await addBias(x, await blocks[name](await norm(name, x)))).output);
      else output = await norm(name, x, await blocks[name](x));
    }
    return { output };
  },
);

export const pytorch = { TransformerEncoderLayer };
