// What the definitions of several families have in common.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import { linear } from "../../training/operations/dense.ts";
import { activate, multiply } from "../../training/operations/elements.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import type { Weight } from "../definition.ts";

/** Activations by the names of transformers. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  gelu: "gelu",
  gelu_new: "gelu-tanh",
  gelu_pytorch_tanh: "gelu-tanh",
  relu: "relu",
  silu: "silu",
  swish: "silu",
  tanh: "tanh",
};

export const activationOf = (config: Config, name: string, given?: string): Activation =>
  ACTIVATIONS[config.oneOf(name, Object.keys(ACTIVATIONS), given)];

/** A Linear of PyTorch: weight [outputs, inputs] and, unless it has none, a bias. */
export function linearOf(x: Value, weight: Weight, path: string, outputs: number, bias = true) {
  const inputs = x.shape[x.shape.length - 1];
  return linear(
    x,
    weight(`${path}.weight`, [outputs, inputs]),
    bias ? weight(`${path}.bias`, [outputs]) : undefined,
  );
}

/** Rows [B, T, H D] as heads [B, H, T, D]. */
export const headsOf = (x: Value, heads: number): Value => {
  const [B, T, width] = x.shape;
  return x.reshape(B, T, heads, width / heads).permute(0, 2, 1, 3);
};

/** cap tanh(x / cap), element by element. */
export function capped(graph: Graph, x: Value, cap: number): Value {
  const inside = multiply(x, graph.constant([1], Float32Array.of(1 / cap)));
  return multiply(activate(inside, "tanh"), graph.constant([1], Float32Array.of(cap)));
}
