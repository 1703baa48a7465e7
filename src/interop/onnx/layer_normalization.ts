// ai.onnx LayerNormalization and RMSNormalization.

import { copyTensor, layerNorm, rmsNorm } from "../../index.ts";
import { onnxOperator } from "./operator.ts";
import { axisOf, inOrder, overRows } from "./rows.ts";

/**
 * ai.onnx LayerNormalization-17: (X - mean) / sqrt(variance + epsilon) * Scale + B over the axes from `axis` (default -1) on.
 * Scale and B broadcast to X. Mean and InvStdDev, f32, have the shape of X with the normalised axes 1. `epsilon` is 1e-5 by
 * default. The arithmetic is f32, which is `stash_type` 1, the only one.
 *
 * @example
 * const [Y] = await LayerNormalization([X, scale, bias], { axis: -1, epsilon: 1e-6 });
 */
export const LayerNormalization = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.LayerNormalization",
    opsets: [17],
    inputs: ["X", "Scale", "B?"],
    outputs: ["Y", "Mean?", "InvStdDev?"],
    attributes: { axis: "int", epsilon: "float", stash_type: "int" },
  },
  async (call) => {
    const { epsilon = 1e-5, stash_type: stash = 1 } = call.attributes;
    call.expect(stash === 1, () => `attribute stash_type must be 1 (float), got ${stash}`);
    const X = await inOrder(call, call.tensor("X"));
    const axis = axisOf(call, call.attributes.axis ?? -1, X, "X");
    const weight = await overRows(call, "Scale", call.tensor("Scale"), X, axis);
    const bias = await overRows(call, "B", call.tensor("B"), X, axis);
    const Y = call.make(X.shape, X.dtype);
    const result = await layerNorm(X, {
      ...{ axis, epsilon, output: Y, label: call.label, statistics: call.wants("Mean") || call.wants("InvStdDev") },
      ...(weight && { weight }),
      ...(bias && { bias }),
    });
    if (!result.statistics || !result.mean || !result.inverseDeviation) return { Y };
    call.own(result.statistics);
    // Outputs are destroyed one by one: each has memory of its own.
    const [Mean, InvStdDev] = [result.mean, result.inverseDeviation].map(({ shape }) => call.make(shape));
    await copyTensor(result.mean, { output: Mean, label: call.label });
    await copyTensor(result.inverseDeviation, { output: InvStdDev, label: call.label });
    return { Y, Mean, InvStdDev };
  },
);

/**
 * ai.onnx RMSNormalization-23: X / sqrt(mean(X^2) + epsilon) * scale over the axes from `axis` (default -1) on. scale broadcasts
 * to X. `epsilon` is 1e-5 by default. The arithmetic is f32, which is `stash_type` 1, the only one.
 *
 * @example
 * const [Y] = await RMSNormalization([X, scale], { epsilon: 1e-6 });
 */
export const RMSNormalization = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.RMSNormalization",
    opsets: [23],
    inputs: ["X", "scale"],
    outputs: ["Y"],
    attributes: { axis: "int", epsilon: "float", stash_type: "int" },
  },
  async (call) => {
    const { epsilon = 1e-5, stash_type: stash = 1 } = call.attributes;
    call.expect(stash === 1, () => `attribute stash_type must be 1 (float), got ${stash}`);
    const X = await inOrder(call, call.tensor("X"));
    const axis = axisOf(call, call.attributes.axis ?? -1, X, "X");
    const weight = await overRows(call, "scale", call.tensor("scale"), X, axis);
    const Y = call.make(X.shape, X.dtype);
    await rmsNorm(X, { axis, epsilon, output: Y, label: call.label, ...(weight && { weight }) });
    return { Y };
  },
);
