// com.microsoft SkipLayerNormalization and SkipSimplifiedLayerNormalization, which normalise the
// sum of two tensors.

import { layerNorm, rmsNorm, type Tensor } from "../../index.ts";
import { expectAxes } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";
import { alone } from "./rows.ts";

/**
 * com.microsoft SkipLayerNormalization: layer normalisation, over the last axis, of the sum input +
 * skip + bias, with factors gamma [C] and beta [C]. input [B, S, C] or [tokens, C]; skip has its
 * shape, or [1, S, C] or [S, C]. `epsilon` is 1e-12 by default. The sum is an output; mean and
 * inv_std_var, f32 [.., 1], too.
 *
 * @example
 * const [output, , , sum] = await SkipLayerNormalization(
 *   [input, skip, gamma, beta],
 *   {},
 *   { outputs: [true, false, false, true] },
 * );
 */
export const SkipLayerNormalization = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.SkipLayerNormalization",
    opsets: [1],
    inputs: ["input", "skip", "gamma", "beta?", "bias?"],
    outputs: ["output", "mean?", "inv_std_var?", "input_skip_bias_sum?"],
    attributes: { epsilon: "float" },
  },
  async (call) => {
    const { epsilon = 1e-12 } = call.attributes;
    const input = call.tensor("input");
    const given = {
      skip: call.tensor("skip"),
      gamma: call.tensor("gamma"),
      bias: call.tensor("bias"),
    };
    const beta = call.tensor("beta");
    const options = optionsOf(call, input, given, beta);
    const output = call.make(input.shape, input.dtype);
    const wanted = {
      sum: call.wants("input_skip_bias_sum"),
      statistics: call.wants("mean") || call.wants("inv_std_var"),
    };
    const result = await layerNorm(input, { ...options, ...wanted, epsilon, output });
    return { output, ...(await others(call, result)) };
  },
);

/**
 * com.microsoft SkipSimplifiedLayerNormalization: root mean square normalisation, over the last
 * axis, of the sum input + skip + bias, with factors gamma [C]. input [B, S, C] or [tokens, C];
 * skip has its shape, or [1, S, C] or [S, C]. `epsilon` is 1e-12 by default. The sum is an output;
 * inv_std_var, f32 [.., 1], is 1 / sqrt(mean square + epsilon). There is no mean.
 *
 * @example
 * const [output] = await SkipSimplifiedLayerNormalization([input, skip, gamma], { epsilon: 1e-6 });
 */
export const SkipSimplifiedLayerNormalization = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.SkipSimplifiedLayerNormalization",
    opsets: [1],
    inputs: ["input", "skip", "gamma", "bias?"],
    outputs: ["output", "mean?", "inv_std_var?", "input_skip_bias_sum?"],
    attributes: { epsilon: "float" },
  },
  async (call) => {
    const { epsilon = 1e-12 } = call.attributes;
    call.expect(
      !call.wants("mean"),
      () => "output mean: a root mean square normalisation has none",
    );
    const input = call.tensor("input");
    const given = {
      skip: call.tensor("skip"),
      gamma: call.tensor("gamma"),
      bias: call.tensor("bias"),
    };
    const options = optionsOf(call, input, given, undefined);
    const output = call.make(input.shape, input.dtype);
    const wanted = {
      sum: call.wants("input_skip_bias_sum"),
      statistics: call.wants("inv_std_var"),
    };
    const result = await rmsNorm(input, { ...options, ...wanted, epsilon, output });
    return { output, ...(await others(call, result)) };
  },
);

interface Given {
  readonly skip: Tensor;
  readonly gamma: Tensor;
  readonly bias: Tensor | undefined;
}

/** Checks the inputs, and names them as the engine does. */
function optionsOf(
  call: Call,
  input: Tensor,
  { skip, gamma, bias }: Given,
  beta: Tensor | undefined,
) {
  const { shape } = input;
  const rank = shape.length;
  call.expect(
    rank === 2 || rank === 3,
    () => `input must be [B, S, C] or [tokens, C], got [${shape}]`,
  );
  const missing = rank - skip.shape.length;
  call.expect(
    missing >= 0 &&
      skip.shape.length >= 2 &&
      skip.shape.every(
        (size, i) => size === shape[i + missing] || (size === 1 && rank === 3 && i + missing === 0),
      ),
    () =>
      `skip must be like input [${shape}]${rank === 3 ? ", [1, S, C] or [S, C]" : ""}, got [${skip.shape}]`,
  );
  const width = [shape[rank - 1]];
  expectAxes(call, "gamma", gamma, width, "[C]");
  if (beta) expectAxes(call, "beta", beta, width, "[C]");
  if (bias) expectAxes(call, "bias", bias, width, "[C]");
  return {
    residual: skip,
    weight: gamma,
    label: call.label,
    ...(bias && { residualBias: bias }),
    ...(beta && { bias: beta }),
  };
}

/** The optional outputs. */
async function others(call: Call, result: Awaited<ReturnType<typeof layerNorm>>) {
  const { sum, statistics, mean, inverseDeviation } = result;
  if (statistics) call.own(statistics);
  return {
    ...(sum && { input_skip_bias_sum: call.own(sum) }),
    ...(mean && { mean: await alone(call, mean) }),
    ...(inverseDeviation && { inv_std_var: await alone(call, inverseDeviation) }),
  };
}
