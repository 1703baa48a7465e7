// Layers of models, from the operations: their parameters have PyTorch's names.

import { check, reading, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import type { TensorData } from "../gpu/elements.ts";
import { checkParameters, graphOf, takeSettings, withoutFunction } from "./arguments.ts";
import { checkShape, Graph } from "./graph.ts";
import { byInputs, type Initial } from "./initial.ts";
import { ATTENTION_SETTINGS, type AttentionSettings, attention } from "./operations/attention.ts";
import { layerNorm, linear } from "./operations/dense.ts";
import { activate, add, concatenate, contiguous } from "./operations/elements.ts";
import { gru, lstm } from "./operations/recurrent.ts";
import type { Value } from "./value.ts";

/** Numbers of a row that kernels read at once: shorter rows take slower ways. */
const VEC4 = 4;

/**
 * Gives the parameter of a name and shape. What a layer says of its first elements is PyTorch's
 * default for it; without a word they are 0.
 */
export type Parameters = (name: string, shape: readonly number[], initial?: Initial) => Value;

/**
 * Parameters of a graph: each is made when it is first asked for, and the same one from then on.
 *
 * @param data The first elements of a parameter: `drawn(seed)`, or those of a file
 * @param frozen Which parameters get no gradient and keep their elements, by their names
 */
export function parametersOf(
  graph: Graph,
  data: (name: string, shape: readonly number[], initial?: Initial) => TensorData,
  frozen: (name: string) => boolean = () => false,
): Parameters {
  const isGraph = reading("parameters: the graph", () => graph instanceof Graph);
  check(
    isGraph,
    "argument",
    () => `parameters: they belong to the graph of a program, got ${show(graph)}.`,
  );
  for (const given of [data, frozen]) checkParameters("parameters", given);
  return (name, shape, initial) => {
    checkShape(name, shape);
    return (
      graph.parameters.get(name)?.value ??
      graph.parameter(name, shape, data(name, shape, initial), { frozen: frozen(name) })
    );
  };
}

/** The parameters whose names begin with a prefix. */
export function under(parameters: Parameters, prefix: string): Parameters {
  checkParameters("under", parameters);
  check(
    typeof prefix === "string",
    "argument",
    () => `under: a prefix is text, got ${show(prefix)}.`,
  );
  return (name, shape, initial) => parameters(`${prefix}.${name}`, shape, initial);
}

/** Throws FoveaError("argument") for what a layer cannot be made of. */
function checkLayer(
  label: string,
  values: Readonly<Record<string, unknown>>,
  parameters: unknown,
): void {
  graphOf(label, values);
  checkParameters(label, parameters);
}

/** Linear of these sizes: parameters `weight` [outputs, inputs] and, if there is one, `bias`. */
export function linearLayer(x: Value, parameters: Parameters, outputs: number, bias = true): Value {
  checkLayer("linear layer", { x }, parameters);
  const inputs = x.shape[x.shape.length - 1];
  return linear(
    x,
    parameters("weight", [outputs, inputs], byInputs(inputs)),
    bias ? parameters("bias", [outputs], byInputs(inputs)) : undefined,
  );
}

/** LayerNorm over the last axis: parameters `weight` and `bias`. */
export function layerNormLayer(x: Value, parameters: Parameters, epsilon = 1e-5): Value {
  checkLayer("norm", { x }, parameters);
  const width = [x.shape[x.shape.length - 1]];
  const weight = parameters("weight", width, { constant: 1 });
  return layerNorm(x, weight, parameters("bias", width), { epsilon });
}

/** Attention of rows [B, T, 3 W] that hold q, k and v one after the other; gives [B, T, W]. */
export function attendPacked(qkv: Value, heads: number, settings: AttentionSettings): Value {
  graphOf("packed attention", { qkv });
  const [B, T, width3] = qkv.shape;
  check(
    Number.isInteger(heads) && heads > 0 && width3 % (3 * heads) === 0,
    "argument",
    () => `packed attention: ${show(heads)} heads do not divide rows of [${qkv.shape}] in three.`,
  );
  const width = width3 / 3;
  const [q, k, v] = [0, 1, 2].map((index) =>
    qkv
      .slice(2, index * width, (index + 1) * width)
      .reshape(B, T, heads, width / heads)
      .permute(0, 2, 1, 3),
  );
  return attention(q, k, v, settings).permute(0, 2, 1, 3).reshape(B, T, width);
}

/**
 * Self-attention of all heads, x [B, T, W]: parameters `in_proj_weight` [3 W, W], `in_proj_bias`,
 * `out_proj.weight`, `out_proj.bias`.
 */
export function multiHeadLayer(
  x: Value,
  parameters: Parameters,
  heads: number,
  settings: AttentionSettings = {},
): Value {
  checkLayer("multi-head layer", { x }, parameters);
  const width = x.shape[2];
  // Xavier's: the root of 6 / (inputs + outputs).
  const weight = parameters("in_proj_weight", [3 * width, width], {
    uniform: Math.sqrt(6 / (4 * width)),
  });
  const qkv = linear(x, weight, parameters("in_proj_bias", [3 * width]));
  const attended = attendPacked(qkv, heads, settings);
  const outputWeight = parameters("out_proj.weight", [width, width], byInputs(width));
  return linear(attended, outputWeight, parameters("out_proj.bias", [width]));
}

/** Options of {@link lstmLayer} and {@link gruLayer}. */
export interface RecurrentLayerSettings {
  /** Numbers of a state. */
  readonly hidden: number;
  /** Whether a second network reads from the end. Default false. */
  readonly bidirectional?: boolean;
  /** [B] i32: how many steps each entry uses. Default all. */
  readonly lengths?: Value | undefined;
  /** [D, B, hidden] f32: the state before the first step. Default zeros. */
  readonly initial?: Value;
}

const RECURRENT_SETTINGS: OptionNames<RecurrentLayerSettings> = {
  hidden: "number",
  bidirectional: "boolean",
  lengths: "any",
  initial: "any",
};

/**
 * An LSTM of one layer over x [B, T, inputs], with PyTorch's names of parameters. `output` is
 * [B, T, D hidden], `last` [D, B, hidden].
 */
export const lstmLayer = (x: Value, parameters: Parameters, settings: RecurrentLayerSettings) =>
  recurrentLayer(lstm, 4, x, parameters, settings);

/** A GRU, likewise. */
export const gruLayer = (x: Value, parameters: Parameters, settings: RecurrentLayerSettings) =>
  recurrentLayer(gru, 3, x, parameters, settings);

function recurrentLayer(
  network: typeof gru,
  gates: number,
  x: Value,
  parameters: Parameters,
  settings: RecurrentLayerSettings,
) {
  const label = network === lstm ? "LSTM" : "GRU";
  const given = takeSettings(label, settings, RECURRENT_SETTINGS);
  const { hidden, bidirectional = false, lengths, initial } = given;
  checkLayer(label, { x }, parameters);
  const weights: Record<string, Value> = {};
  for (const direction of bidirectional ? ["", "_reverse"] : [""]) {
    const add = (name: string, shape: readonly number[]) => {
      const full = `${name}_l0${direction}`;
      weights[full] = parameters(full, shape, byInputs(hidden));
    };
    add("weight_ih", [gates * hidden, x.shape[2]]);
    add("weight_hh", [gates * hidden, hidden]);
    add("bias_ih", [gates * hidden]);
    add("bias_hh", [gates * hidden]);
  }
  const { output, hN } = network(x, weights, {
    ...(lengths && { lengths }),
    ...(initial && { h0: initial }),
  });
  return { output, last: hN };
}

/** Options of {@link encoderLayer}. */
export interface EncoderSettings extends AttentionSettings {
  /** Heads of attention; they divide the width. */
  readonly heads: number;
  /** Width between the two linear layers. */
  readonly feedForward: number;
  /** Added to the variance of norms. Default 1e-5. */
  readonly epsilon?: number;
  /** Default `"gelu"`. */
  readonly activation?: "gelu" | "relu";
}

const ENCODER: OptionNames<Omit<EncoderSettings, "watch">> = {
  ...ATTENTION_SETTINGS,
  heads: "number",
  feedForward: "number",
  epsilon: "number",
  activation: "string",
};

/**
 * A Transformer encoder layer with norms first, as PyTorch's TransformerEncoderLayer with
 * `norm_first`: x + attention(norm1(x)), and x + linear2(activation(linear1(norm2(x)))).
 */
export function encoderLayer(x: Value, parameters: Parameters, settings: EncoderSettings): Value {
  checkLayer("encoder layer", { x }, parameters);
  const [watch, given] = withoutFunction("encoder layer", settings, "watch");
  const taken: Omit<EncoderSettings, "watch"> = takeSettings("encoder layer", given, ENCODER);
  const { heads, feedForward, epsilon, activation = "gelu", ...rest } = taken;
  const attend: AttentionSettings = { ...rest, ...(watch && { watch }) };
  const of = (name: string) => under(parameters, name);
  const normed = layerNormLayer(x, of("norm1"), epsilon);
  const attended = add(x, multiHeadLayer(normed, of("self_attn"), heads, attend));
  const inner = linearLayer(
    layerNormLayer(attended, of("norm2"), epsilon),
    of("linear1"),
    feedForward,
  );
  return add(attended, linearLayer(activate(inner, activation), of("linear2"), x.shape[2]));
}

/**
 * The mean of the rows of x [B, T, W] that count, [B, W]: attention whose scores are all 0.
 *
 * @param lengths [B] i32: how many rows count, for each entry. Default all
 */
export function meanRows(x: Value, lengths?: Value): Value {
  const graph = graphOf("mean of rows", { x }, { lengths });
  const [B, T, W] = x.shape;
  const query = graph.constant([B, 1, 1, VEC4], new Float32Array(VEC4 * B));
  const keys = graph.constant([B, 1, T, VEC4], new Float32Array(VEC4 * B * T));
  const settings = lengths ? { kvLengths: lengths } : {};
  return attention(query, keys, x.reshape(B, 1, T, W), settings).reshape(B, W);
}

/**
 * The sum of the rows of x [B, T, W] weighed by the softmax of their scores [B, T], and these
 * weights: attention pooling. Rows past the lengths [B] do not count.
 */
export function softmaxPool(x: Value, scores: Value, lengths?: Value) {
  const graph = graphOf("pooling", { x, scores }, { lengths });
  const [B, T, W] = x.shape;
  const first = Float32Array.from({ length: VEC4 * B }, (_, at) => (at % VEC4 ? 0 : 1));
  const query = graph.constant([B, 1, 1, VEC4], first);
  const none = graph.constant([B, T, VEC4 - 1], new Float32Array((VEC4 - 1) * B * T));
  const keys = concatenate([scores.reshape(B, T, 1), none], 2).reshape(B, 1, T, VEC4);
  const settings = { scale: 1, ...(lengths && { kvLengths: lengths }) };
  const values = contiguous(x).reshape(B, 1, T, W);
  return { query, keys, settings, pooled: attention(query, keys, values, settings).reshape(B, W) };
}
