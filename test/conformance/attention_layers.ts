// PyTorch's layers with attention, and their gradients, as operators of vectors.

import {
  activate,
  activationBackward,
  addBias,
  layerNorm,
  layerNormBackward,
  MultiHeadAttention,
  multiHeadAttentionBackward,
  multiHeadWeights,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { linear } from "./layers.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

/** The parameters of nn.MultiheadAttention. */
const PARAMETERS = [
  "in_proj_weight",
  "q_proj_weight",
  "k_proj_weight",
  "v_proj_weight",
  "in_proj_bias",
  "out_proj.weight",
  "out_proj.bias",
  "bias_k",
  "bias_v",
] as const;

/** The masks of a layer by our names: PyTorch's boolean ones say what is ignored. */
function masksOf(call: NamedCall, scores: readonly number[]) {
  const given = call.optional("attn_mask");
  const padding = call.optional("key_padding_mask");
  // [M, N], or [B * H, M, N]
  const mask = given?.shape.length === 3 ? given.view({ shape: scores }) : given;
  return {
    ...(mask && (mask.dtype === "f32" ? { bias: mask } : { ignoreMask: mask })),
    ...(padding && { ignoreKeyMask: padding }),
  };
}

/** Attention of a layer whose weights have names that begin with `prefix`. */
async function attend(
  call: NamedCall,
  inputs: { readonly query: Tensor; readonly key?: Tensor; readonly value?: Tensor },
  prefix = "",
) {
  const { device, attributes, own } = call;
  const { heads, addZeroAttention: zeroAttention = false, weights: shown = "none" } = attributes;
  const { query, ...memory } = inputs;
  const parameters = PARAMETERS.flatMap((name) => {
    const found = call.optional(prefix + name);
    return found ? [[name, found] as const] : [];
  });
  const state = (entries: readonly (readonly [string, Tensor])[]) =>
    multiHeadWeights.fromPyTorch(device, Object.fromEntries(entries));
  const layer = new MultiHeadAttention(device, state(parameters), { heads, zeroAttention });
  const [batch, rows] = query.shape;
  const options = {
    ...memory,
    ...masksOf(call, [batch, heads, rows, (memory.key ?? query).shape[1]]),
  };
  const forward = await layer.forward(query, {
    ...options,
    ...(shown !== "none" && { weights: shown === "mean" ? "mean" : "perHead" }),
  });
  return {
    output: forward.output,
    weights: forward.weights,
    async backward(dOutput: Tensor) {
      // Gradients in PyTorch's layouts: one tensor for what is packed.
      const gradients = parameters.map(([name, { shape }]) => {
        const data = new Float32Array(shape.reduce((a, b) => a * b)).fill(Number.NaN);
        return [name, tensor(device, shape, { data })] as const;
      });
      const dWeights = call.optional("d_weights");
      const { dQuery, dKey, dValue, dBias } = await multiHeadAttentionBackward(layer, query, {
        ...options,
        dOutput,
        ...(dWeights && { dWeights }),
        ...("bias" in options && { dBias: true }),
        parameters: state(gradients),
      });
      const mask = call.optional("attn_mask");
      const named = {
        ...Object.fromEntries(gradients.map(([name, made]) => [`d_${prefix}${name}`, made])),
        d_attn_mask: dBias && own(dBias).view({ shape: mask?.shape ?? [] }),
      };
      return { dQuery: dQuery as Tensor, dKey, dValue, named };
    },
  };
}

const MultiheadAttention: NamedOperator = async (call) => {
  const key = call.optional("key");
  const value = call.optional("value");
  const query = call.tensor("query");
  const { output, weights, backward } = await attend(call, {
    query,
    ...(key && { key }),
    ...(value && { value }),
  });
  const dOutput = call.optional("d_output") ?? call.own(tensor(call.device, output.shape));
  const { dQuery, dKey, dValue, named } = await backward(dOutput);
  return { output, weights, d_query: dQuery, d_key: dKey, d_value: dValue, ...named };
};

/** A norm of x, or of x + residual. */
async function norm(call: NamedCall, name: string, x: Tensor, residual?: Tensor) {
  const weight = call.optional(`${name}.weight`);
  const bias = call.optional(`${name}.bias`);
  const options = {
    epsilon: call.attributes.eps ?? 1e-5,
    ...(weight && { weight }),
    ...(bias && { bias }),
    ...(residual && { residual }),
  };
  const { output } = await layerNorm(x, options);
  return {
    output: call.own(output),
    /** The gradient of the sum; `dSum` is what comes to it beside the norm. */
    async backward(dOutput: Tensor, dSum?: Tensor) {
      const gradients = [
        ...(["dX"] as const),
        ...(weight ? (["dWeight"] as const) : []),
        ...(bias ? (["dBias"] as const) : []),
      ];
      const { dX, dWeight, dBias } = await layerNormBackward(x, dOutput, {
        ...options,
        gradients,
        ...(dSum && { dSum }),
      });
      const named = { [`d_${name}.weight`]: dWeight, [`d_${name}.bias`]: dBias };
      return { dX: dX as Tensor, named };
    },
  };
}

/** linear2(activation(linear1(x))) */
async function feedForward(call: NamedCall, x: Tensor) {
  const { own, attributes } = call;
  const options = { activation: attributes.activation === "gelu" ? "gelu" : "relu" } as const;
  const first = await linear(call, x, "linear1.");
  const { output: inner } = await activate(own(first.output), options);
  const second = await linear(call, own(inner), "linear2.");
  return {
    output: own(second.output),
    async backward(dOutput: Tensor) {
      const last = await second.backward(dOutput);
      const { dX: dSum } = await activationBackward(first.output, own(last.dX), options);
      const { dX, named } = await first.backward(own(dSum));
      return { dX: own(dX), named: { ...named, ...last.named } };
    },
  };
}

/** x + attention(norm1(x)), and then y + feedForward(norm2(y)). */
async function preNorm(call: NamedCall, x: Tensor, dOutput: Tensor) {
  const { own } = call;
  const norm1 = await norm(call, "norm1", x);
  const attention = await attend(call, { query: norm1.output }, "self_attn.");
  const y = own((await addBias(x, own(attention.output))).output);
  const norm2 = await norm(call, "norm2", y);
  const last = await feedForward(call, norm2.output);
  const { output } = await addBias(y, last.output);
  const ofLast = await last.backward(dOutput);
  const ofNorm2 = await norm2.backward(ofLast.dX, dOutput);
  const ofAttention = await attention.backward(own(ofNorm2.dX));
  const { dX, named } = await norm1.backward(own(ofAttention.dQuery), ofNorm2.dX);
  return { output, d_x: dX, ...named, ...ofAttention.named, ...ofNorm2.named, ...ofLast.named };
}

/** norm1(x + attention(x)), and then norm2(y + feedForward(y)). */
async function postNorm(call: NamedCall, x: Tensor, dOutput: Tensor) {
  const { own } = call;
  const attention = await attend(call, { query: x }, "self_attn.");
  const norm1 = await norm(call, "norm1", own(attention.output), x);
  const last = await feedForward(call, norm1.output);
  const norm2 = await norm(call, "norm2", last.output, norm1.output);
  const ofNorm2 = await norm2.backward(dOutput);
  const ofLast = await last.backward(own(ofNorm2.dX));
  const { output: dY } = await addBias(ofLast.dX, ofNorm2.dX);
  const ofNorm1 = await norm1.backward(own(dY));
  const { dQuery, named } = await attention.backward(own(ofNorm1.dX));
  const { output: dX } = await addBias(own(dQuery), ofNorm1.dX);
  const { output } = norm2;
  return { output, d_x: dX, ...named, ...ofNorm1.named, ...ofNorm2.named, ...ofLast.named };
}

const TransformerEncoderLayer: NamedOperator = (call) =>
  (call.attributes.normFirst ? preNorm : postNorm)(call, call.tensor("x"), call.tensor("d_output"));

export const attentionLayers = { MultiheadAttention, TransformerEncoderLayer };
