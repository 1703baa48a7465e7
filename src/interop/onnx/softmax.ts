// ai.onnx Softmax and LogSoftmax.

import { logSoftmax, softmax, type Tensor } from "../../index.ts";
import { type OnnxCall, onnxOperator } from "./operator.ts";
import { axisOf, inOrder } from "./rows.ts";

const DEFINITION = {
  opsets: [1, 11, 13],
  inputs: ["input"],
  outputs: ["output"],
  attributes: { axis: "int" },
} as const;

/**
 * ai.onnx Softmax-13 along `axis` (default -1). Below opset 13 all axes from `axis` (default 1) on
 * are one. A slice that holds nothing but -Infinity is 0; ONNX' reference has NaN.
 *
 * @example
 * const [output] = await Softmax([scores], { axis: 1 });
 */
export const Softmax = /* @__PURE__ */ onnxOperator(
  { ...DEFINITION, operator: "ai.onnx.Softmax" },
  (call) => along(call, softmax),
);

/**
 * ai.onnx LogSoftmax-13 along `axis` (default -1). Below opset 13 all axes from `axis` (default 1)
 * on are one.
 *
 * @example
 * const [output] = await LogSoftmax([logits]);
 */
export const LogSoftmax = /* @__PURE__ */ onnxOperator(
  { ...DEFINITION, operator: "ai.onnx.LogSoftmax" },
  (call) => along(call, logSoftmax),
);

async function along(
  call: OnnxCall<"input", "output", (typeof DEFINITION)["attributes"]>,
  compute: typeof softmax,
): Promise<{ output: Tensor }> {
  const input = call.tensor("input");
  const output = call.make(input.shape, input.dtype);
  if (call.opset >= 13) {
    const axis = axisOf(call, call.attributes.axis ?? -1, input, "input");
    await compute(input, { axis, output, label: call.label });
    return { output };
  }
  const given = call.attributes.axis ?? 1;
  // Rows without an axis have one element.
  const axis = given === input.shape.length ? given : axisOf(call, given, input, "input");
  const sizes = [input.shape.slice(0, axis), input.shape.slice(axis)];
  const shape = sizes.map((some) => some.reduce((total, size) => total * size, 1));
  const rows = (await inOrder(call, input)).view({ shape });
  await compute(rows, { output: output.view({ shape }), label: call.label });
  return { output };
}
