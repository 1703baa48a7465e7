// Layers with their gradients as operators of vectors, by PyTorch's names of their tensors.

import {
  type Activation,
  activate,
  activationBackward,
  addBias,
  project,
  projectionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import type { NamedCall, NamedOperator } from "./named.ts";

const activation =
  (name: Activation): NamedOperator =>
  async (call) => {
    const x = call.tensor("x");
    const options = { activation: name };
    const { output } = await activate(x, options);
    const { dX } = await activationBackward(x, call.tensor("d_output"), options);
    return { output, d_x: dX };
  };

/** A linear layer whose weights have names that begin with `prefix`. */
export async function linear(call: NamedCall, x: Tensor, prefix = "") {
  const weight = call.tensor(`${prefix}weight`);
  const bias = call.optional(`${prefix}bias`);
  const { output } = await project(x, weight, bias ? { bias } : {});
  return {
    output,
    async backward(dOutput: Tensor) {
      const gradients = ["dX", "dWeight", ...(bias ? (["dBias"] as const) : [])] as const;
      const { dX, dWeight, dBias } = await projectionBackward(x, weight, dOutput, { gradients });
      return { dX, named: { [`d_${prefix}weight`]: dWeight, [`d_${prefix}bias`]: dBias } };
    },
  };
}

/** silu(first half) * second half of the last axis */
async function halves(call: NamedCall) {
  const x = call.tensor("x");
  const axis = x.shape.length - 1;
  const width = x.shape[axis] / 2;
  const half = (of: Tensor, index: number) => of.slice(axis, index * width, (index + 1) * width);
  const options = { activation: "silu", factor: half(x, 1) } as const;
  const { output } = await activate(half(x, 0), options);
  const dX = tensor(call.device, x.shape);
  // Halves that lie between each other in memory can't be bound as two outputs: each has a call.
  const dOutput = call.tensor("d_output");
  const gradient = (name: "dX" | "dFactor", index: number) =>
    activationBackward(half(x, 0), dOutput, {
      ...options,
      gradients: [name],
      [name]: half(dX, index),
    });
  await gradient("dX", 0);
  await gradient("dFactor", 1);
  return { output, d_x: dX };
}

/** down(silu(gate(x)) * up(x)) */
async function gatedLayers(call: NamedCall) {
  const { own } = call;
  const x = call.tensor("x");
  const gate = await linear(call, x, "gate.");
  const up = await linear(call, x, "up.");
  const options = { activation: "silu", factor: own(up.output) } as const;
  const { output: inner } = await activate(own(gate.output), options);
  const down = await linear(call, own(inner), "down.");
  const last = await down.backward(call.tensor("d_output"));
  const { dX: dGate, dFactor: dUp } = await activationBackward(gate.output, own(last.dX), options);
  const ofGate = await gate.backward(own(dGate));
  const ofUp = await up.backward(own(dUp));
  const { output: dX } = await addBias(own(ofGate.dX), own(ofUp.dX));
  return { output: down.output, d_x: dX, ...ofGate.named, ...ofUp.named, ...last.named };
}

export const layers: Readonly<Record<string, NamedOperator>> = {
  GELU: (call) => activation(call.attributes.approximate === "tanh" ? "gelu-tanh" : "gelu")(call),
  Linear: async (call) => {
    const { output, backward } = await linear(call, call.tensor("x"));
    const { dX, named } = await backward(call.tensor("d_output"));
    return { output, d_x: dX, ...named };
  },
  ReLU: activation("relu"),
  SiLU: activation("silu"),
  Sigmoid: activation("sigmoid"),
  SwiGLU: (call) => (call.attributes.form === "mlp" ? gatedLayers(call) : halves(call)),
  Tanh: activation("tanh"),
};
