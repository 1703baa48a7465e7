// ai.onnx LayerNormalization, RMSNormalization and SimplifiedLayerNormalization.

import { type Dtype, layerNorm, rmsNorm } from "../../index.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";
import { alone, axisOf, inOrder, overRows } from "./rows.ts";

/**
 * ai.onnx LayerNormalization-17: (X - mean) / sqrt(variance + epsilon) * Scale + B over the axes
 * from `axis` (default -1) on. Scale and B broadcast to X. Mean and InvStdDev have the shape of X
 * with the normalised axes 1, and the dtype that `stash_type` says: 1 (the default) f32, 10 f16, 16
 * bf16. `epsilon` is 1e-5 by default. The arithmetic is f32 whatever `stash_type` says.
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
    const { epsilon = 1e-5 } = call.attributes;
    const stash = stashOf(call, call.attributes.stash_type);
    const X = await inOrder(call, call.tensor("X"));
    const axis = axisOf(call, call.attributes.axis ?? -1, X, "X");
    const weight = await overRows(call, "Scale", call.tensor("Scale"), X, axis);
    const bias = await overRows(call, "B", call.tensor("B"), X, axis);
    const Y = call.make(X.shape, X.dtype);
    const result = await layerNorm(X, {
      axis,
      epsilon,
      output: Y,
      label: call.label,
      statistics: call.wants("Mean") || call.wants("InvStdDev"),
      ...(weight && { weight }),
      ...(bias && { bias }),
    });
    if (!result.statistics || !result.mean || !result.inverseDeviation) return { Y };
    call.own(result.statistics);
    const Mean = await alone(call, result.mean, stash);
    const InvStdDev = await alone(call, result.inverseDeviation, stash);
    return { Y, Mean, InvStdDev };
  },
);

/**
 * ai.onnx RMSNormalization-23: X / sqrt(mean(X^2) + epsilon) * scale over the axes from `axis`
 * (default -1) on. scale broadcasts to X. `epsilon` is 1e-5 by default. The arithmetic is f32
 * whatever `stash_type` (1, 10 or 16) says.
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
    const { epsilon = 1e-5 } = call.attributes;
    stashOf(call, call.attributes.stash_type);
    const X = await inOrder(call, call.tensor("X"));
    const axis = axisOf(call, call.attributes.axis ?? -1, X, "X");
    const weight = await overRows(call, "scale", call.tensor("scale"), X, axis);
    const Y = call.make(X.shape, X.dtype);
    await rmsNorm(X, { axis, epsilon, output: Y, label: call.label, ...(weight && { weight }) });
    return { Y };
  },
);

/**
 * ai.onnx SimplifiedLayerNormalization, as in ONNX Runtime, which had it before RMSNormalization: X
 * / sqrt(mean(X^2) + epsilon) * scale over the axes from `axis` (default -1) on. Y has the dtype of
 * scale. inv_std_var is 1 / sqrt(mean(X^2) + epsilon), and has the shape of X with the normalised
 * axes 1 and a dtype as in {@link LayerNormalization}.
 *
 * @example
 * const [Y] = await SimplifiedLayerNormalization([X, scale], { epsilon: 1e-6 });
 */
export const SimplifiedLayerNormalization = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.SimplifiedLayerNormalization",
    opsets: [1],
    inputs: ["X", "scale"],
    outputs: ["Y", "inv_std_var?"],
    attributes: { axis: "int", epsilon: "float", stash_type: "int" },
  },
  async (call) => {
    const { epsilon = 1e-5 } = call.attributes;
    const stash = stashOf(call, call.attributes.stash_type);
    const X = await inOrder(call, call.tensor("X"));
    const axis = axisOf(call, call.attributes.axis ?? -1, X, "X");
    const scale = call.tensor("scale");
    const weight = await overRows(call, "scale", scale, X, axis);
    const Y = call.make(X.shape, scale.dtype);
    const statistics = call.wants("inv_std_var");
    const options = { axis, epsilon, statistics, output: Y, label: call.label };
    const result = await rmsNorm(X, { ...options, ...(weight && { weight }) });
    if (!result.statistics || !result.inverseDeviation) return { Y };
    call.own(result.statistics);
    return { Y, inv_std_var: await alone(call, result.inverseDeviation, stash) };
  },
);

/** Dtypes of statistics by TensorProto's FLOAT, FLOAT16 and BFLOAT16. */
const STASHES: Readonly<Record<number, Dtype>> = { 1: "f32", 10: "f16", 16: "bf16" };

function stashOf(call: Call, type: number | undefined): Dtype {
  const stash = STASHES[type ?? 1];
  call.expect(
    stash !== undefined,
    () => `attribute stash_type must be 1 (float), 10 (float16) or 16 (bfloat16), got ${type}`,
  );
  return stash;
}
