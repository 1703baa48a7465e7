// What the definitions of several families have in common.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import { linear } from "../../training/operations/dense.ts";
import { activate, multiply } from "../../training/operations/elements.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import type { Asked, RunSizes, Weight } from "../definition.ts";

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

/** Heads [B, H, T, D] as rows [B, T, H D]. */
export const rowsOf = (x: Value): Value => {
  const [B, H, T, D] = x.shape;
  return x.permute(0, 2, 1, 3).reshape(B, T, H * D);
};

/** The inputs of texts: ids, positions, and a mask if some keys are hidden. */
export const textInputs = (graph: Graph, { batch, rows, masked }: RunSizes) => ({
  ids: graph.input("ids", [batch, rows], "i32"),
  positions: graph.input("positions", [batch, rows], "i32"),
  mask: masked ? graph.input("mask", [batch, 1, 1, rows], "u8") : undefined,
});

/** The option of attention that makes a layer's probabilities a result, if they are asked for. */
export const watched = (asked: Asked, layer: number, results: Record<string, Value>) =>
  asked.attention?.includes(layer)
    ? {
        watch: (weights: Value) => {
          results[`attention.${layer}`] = weights;
        },
      }
    : {};

/** cap tanh(x / cap), element by element. */
export function capped(graph: Graph, x: Value, cap: number): Value {
  const inside = multiply(x, graph.constant([1], Float32Array.of(1 / cap)));
  return multiply(activate(inside, "tanh"), graph.constant([1], Float32Array.of(cap)));
}
