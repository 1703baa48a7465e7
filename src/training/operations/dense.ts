// Products of matrices, and normalisations of rows.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { planLayerNorm } from "../../operations/layer_norm.ts";
import { planLayerNormBackward } from "../../operations/layer_norm_backward.ts";
import { planProjection } from "../../operations/projection.ts";
import { planProjectionBackward } from "../../operations/projection_backward.ts";
import { planSoftmax } from "../../operations/softmax.ts";
import { planSoftmaxBackward } from "../../operations/softmax_backward.ts";
import { graphOf, takeSettings } from "../arguments.ts";
import { type Differentiation, type Place, Value } from "../value.ts";
import { add, multiply } from "./elements.ts";
import { embedding } from "./tables.ts";

/** The gradients of those of a layer's values that want one, by the names of their options. */
function wanted(
  { wants, into }: Differentiation,
  { x, weight, bias }: Readonly<Record<"x" | "weight" | "bias", Value | undefined>>,
) {
  const gradients: { dX?: Value; dWeight?: Value; dBias?: Value } = {};
  if (wants(x)) gradients.dX = into(x);
  if (wants(weight)) gradients.dWeight = into(weight);
  if (wants(bias)) gradients.dBias = into(bias);
  return {
    names: Object.keys(gradients) as (keyof typeof gradients)[],
    outputs: Object.values(gradients),
    at: (place: Place) =>
      Object.fromEntries(Object.entries(gradients).map(([name, one]) => [name, place(one)])),
  };
}

const values = (...given: readonly (Value | undefined)[]): Value[] =>
  given.filter((value) => value !== undefined);

/**
 * x weight^T + bias, as PyTorch's Linear.
 *
 * @param x [..., K], with up to three axes before the last one
 * @param weight [N, K]; or with the axes that x has before its rows, a weight for each entry.
 *   Frozen ones may be f16, bf16, int8 or int4
 * @param bias [N]; default none
 * @returns [..., N]
 */
export function linear(x: Value, weight: Value, bias?: Value): Value {
  graphOf("linear", { x, weight }, { bias });
  const { graph, memory, shape, strides, offset, adapters } = weight;
  if (adapters.length === 0) return plainLinear(x, weight, bias);
  const base = plainLinear(x, new Value(graph, memory, shape, strides, offset), bias);
  return adapters.reduce((sum, { a, b, scale }) => {
    const factor = typeof scale === "number" ? graph.constant([1], Float32Array.of(scale)) : scale;
    // The product with A is the smallest of all that there is to multiply.
    return add(sum, plainLinear(multiply(plainLinear(x, a), factor), b));
  }, base);
}

function plainLinear(x: Value, weight: Value, bias?: Value): Value {
  const shape = [...x.shape.slice(0, -1), weight.shape[weight.shape.length - 2]];
  const inputs = values(x, weight, bias);
  const output = x.graph.computed("linear", shape, inputs);
  const { quantised } = weight;
  x.graph.add({
    label: "linear",
    inputs,
    outputs: [output],
    integers: weight,
    plan: (device, at) =>
      planProjection(device, {
        x: at(x),
        weight: at(weight),
        ...(quantised && { quantised }),
        ...(bias && { bias: at(bias) }),
        output: at(output),
      }),
    gradient(differentiation) {
      const dOutput = differentiation.of(output);
      if (!dOutput) return;
      const asked = wanted(differentiation, { x, weight, bias });
      const floats = floatsOf(weight);
      x.graph.add({
        label: "linear backward",
        inputs: [x, floats, dOutput],
        outputs: asked.outputs,
        plan: (device, at) =>
          planProjectionBackward(device, {
            x: at(x),
            weight: at(floats),
            dOutput: at(dOutput),
            gradients: asked.names,
            ...asked.at(at),
          }),
      });
    },
  });
  return output;
}

/** A weight as floats: one of integers is unpacked. */
function floatsOf(weight: Value): Value {
  if (!weight.quantised) return weight;
  const rows = weight.shape[0];
  const ids = Int32Array.from({ length: rows }, (_, row) => row);
  return embedding(weight.graph.constant([rows], ids, "i32"), weight);
}

/**
 * The product of matrices.
 *
 * @param a [..., M, K], with up to two axes before them
 * @param b [..., K, N], with the same axes before them, or none
 * @returns [..., M, N]
 */
export function matmul(a: Value, b: Value): Value {
  graphOf("matmul", { a, b });
  const axes = b.shape.map((_, axis) => axis);
  const rows = axes.pop() as number;
  return linear(a, b.permute(...axes.slice(0, -1), rows, axes.at(-1) as number));
}

/** Options of a normalisation. */
export interface NormOptions {
  /** Added to the variance or the mean square. Default 1e-5. */
  readonly epsilon?: number;
}

const NORM_OPTIONS: OptionNames<NormOptions> = { epsilon: "number" };

/**
 * (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last axis.
 *
 * @param x [..., W]
 * @param weight [W]; default ones
 * @param bias [W]; default zeros
 */
export const layerNorm = (
  x: Value,
  weight?: Value,
  bias?: Value,
  options: NormOptions = {},
): Value => normalise("layerNorm", x, weight, bias, options, false);

/** x / sqrt(mean x^2 + epsilon) * weight, over the last axis. */
export const rmsNorm = (x: Value, weight?: Value, options: NormOptions = {}): Value =>
  normalise("rmsNorm", x, weight, undefined, options, true);

function normalise(
  label: string,
  x: Value,
  weight: Value | undefined,
  bias: Value | undefined,
  options: NormOptions,
  rms: boolean,
): Value {
  graphOf(label, { x }, { weight, bias });
  const { epsilon = 1e-5 } = takeSettings(label, options, NORM_OPTIONS);
  const inputs = values(x, weight, bias);
  const output = x.graph.computed(label, x.shape, inputs);
  const settings = { epsilon, rms };
  x.graph.add({
    label,
    inputs,
    outputs: [output],
    plan: (device, at) =>
      planLayerNorm(device, {
        x: at(x),
        ...(weight && { weight: at(weight) }),
        ...(bias && { bias: at(bias) }),
        ...settings,
        output: at(output),
      }),
    gradient(differentiation) {
      const dOutput = differentiation.of(output);
      if (!dOutput) return;
      const asked = wanted(differentiation, { x, weight, bias });
      x.graph.add({
        label: `${label} backward`,
        inputs: [...inputs, dOutput],
        outputs: asked.outputs,
        plan: (device, at) =>
          planLayerNormBackward(device, {
            x: at(x),
            ...(weight && { weight: at(weight) }),
            ...(bias && asked.names.includes("dBias") && { bias: at(bias) }),
            dOutput: at(dOutput),
            ...settings,
            gradients: asked.names,
            ...asked.at(at),
          }),
      });
    },
  });
  return output;
}

/** exp(x) / sum(exp(x)) along the last axis. */
export function softmax(x: Value): Value {
  graphOf("softmax", { x });
  check(x.shape.length > 0, "argument", () => "softmax: a number has no axis.");
  const output = x.graph.computed("softmax", x.shape, [x]);
  x.graph.add({
    label: "softmax",
    inputs: [x],
    outputs: [output],
    plan: (device, at) => planSoftmax(device, { x: at(x), output: at(output) }),
    gradient({ of, into }) {
      const dOutput = of(output);
      if (!dOutput) return;
      const dX = into(x);
      x.graph.add({
        label: "softmax backward",
        inputs: [x, dOutput],
        outputs: [dX],
        plan: (device, at) =>
          planSoftmaxBackward(device, { x: at(x), dOutput: at(dOutput), dX: at(dX) }),
      });
    },
  });
  return output;
}
