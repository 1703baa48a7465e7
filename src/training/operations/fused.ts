// Operations in one pass, for programs without gradients: with gradients they are the operations
// that they consist of.

import { planPointwise } from "../../operations/activations.ts";
import { planLayerNorm } from "../../operations/layer_norm.ts";
import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Value } from "../value.ts";
import { layerNorm, type NormOptions, rmsNorm } from "./dense.ts";
import { activate, add, multiply } from "./elements.ts";

/** @internal activation(x) * factor, of one shape. */
export function gated(x: Value, activation: Activation, factor: Value): Value {
  const { graph } = x;
  if (graph.training) return multiply(activate(x, activation), factor);
  const output = graph.computed(activation, x.shape, [x, factor]);
  graph.add({
    label: `${activation}, multiply`,
    inputs: [x, factor],
    outputs: [output],
    plan: (device, at) =>
      planPointwise(device, { x: at(x), activation, factor: at(factor), output: at(output) }),
  });
  return output;
}

/** What a norm has that is learned. */
interface NormWeights extends NormOptions {
  readonly weight: Value;
  /** Undefined for an RMS norm. */
  readonly bias?: Value;
}

/** @internal x + residual, and its norm over the last axis: layerNorm with a bias, else rmsNorm. */
export function addNorm(
  x: Value,
  residual: Value,
  { weight, bias, ...options }: NormWeights,
): { readonly sum: Value; readonly normed: Value } {
  const { graph, shape } = x;
  if (graph.training) {
    const sum = add(x, residual);
    const normed = bias ? layerNorm(sum, weight, bias, options) : rmsNorm(sum, weight, options);
    return { sum, normed };
  }
  const inputs = [x, residual, weight, ...(bias ? [bias] : [])];
  const sum = graph.computed("add", shape, inputs);
  const normed = graph.computed("norm", shape, inputs);
  graph.add({
    label: "add, norm",
    inputs,
    outputs: [sum, normed],
    plan: (device, at) =>
      planLayerNorm(device, {
        x: at(x),
        residual: at(residual),
        weight: at(weight),
        ...(bias ? { bias: at(bias) } : { rms: true }),
        ...options,
        sum: at(sum),
        output: at(normed),
      }),
  });
  return { sum, normed };
}
