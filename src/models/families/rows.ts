// What the definitions of several families have in common.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import { attention } from "../../training/operations/attention.ts";
import { linear, rmsNorm } from "../../training/operations/dense.ts";
import { activate, copyInto, multiply } from "../../training/operations/elements.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import type { Asked, Results, RunSizes, Weight } from "../definition.ts";

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

/** An activation by its name; undefined if there is none of it. */
export const activationNamed = (name: string): Activation | undefined =>
  Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;

/** The same elements as f32, in which attention has its tables. */
export function inF32(x: Value): Value {
  if (x.dtype === "f32") return x;
  const output = x.graph.computed("in f32", x.shape, []);
  copyInto(x, output);
  return output;
}

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
export const textInputs = (
  graph: Graph,
  { batch, rows, masked }: Pick<RunSizes, "batch" | "rows" | "masked">,
  prefix = "",
) => ({
  ids: graph.input(`${prefix}ids`, [batch, rows], "i32"),
  positions: graph.input(`${prefix}positions`, [batch, rows], "i32"),
  mask: masked ? graph.input(`${prefix}mask`, [batch, 1, 1, rows], "u8") : undefined,
});

/** The lists of layers that can be asked for, and what their probabilities are called as results. */
const WATCHED = {
  attention: "attention",
  crossAttention: "cross_attention",
  encoderAttention: "encoder_attention",
} as const;

/** The option of attention that makes a layer's probabilities a result, if they are asked for. */
export const watched = (
  asked: Asked,
  layer: number,
  results: Record<string, Value>,
  kind: keyof typeof WATCHED = "attention",
) =>
  asked[kind]?.includes(layer)
    ? {
        watch: (weights: Value) => {
          results[`${WATCHED[kind]}.${layer}`] = weights;
        },
      }
    : {};

/**
 * The mean of the rows [B, T, W] that a mask [B, 1, 1, T] counts, [B, W]: attention whose scores
 * are all 0.
 */
function meanOfRows(x: Value, mask: Value | undefined): Value {
  const { graph, shape } = x;
  const [B, T, W] = shape;
  const query = graph.constant([B, 1, 1, 4], new Float32Array(4 * B));
  const keys = graph.constant([B, 1, T, 4], new Float32Array(4 * B * T));
  const settings = mask ? { mask } : {};
  return attention(query, keys, x.reshape(B, 1, T, W), settings).reshape(B, W);
}

/** Added to the mean square of what is scaled to length 1, against 0. */
const SMALLEST = 1e-24;

/** Embeddings of whole texts from the rows of their tokens, as sentence-transformers has them. */
export function sentenceResults(x: Value, mask: Value | undefined): Results {
  const mean = meanOfRows(x, mask);
  const [B, W] = mean.shape;
  // The length of a row is the square root of W times its mean square.
  const scale = x.graph.constant([B, 1], new Float32Array(B).fill(W ** -0.5));
  const embedding = multiply(rmsNorm(mean, undefined, { epsilon: SMALLEST }), scale);
  return { mean_pooled: mean, sentence_embedding: embedding };
}

/** cap tanh(x / cap), element by element. */
export function capped(graph: Graph, x: Value, cap: number): Value {
  const inside = multiply(x, graph.constant([1], Float32Array.of(1 / cap)));
  return multiply(activate(inside, "tanh"), graph.constant([1], Float32Array.of(cap)));
}
