// ai.onnx Gelu, com.microsoft Gelu, FastGelu, BiasSplitGelu and BiasAdd.

import { addBias, copyTensor, gelu } from "../../index.ts";
import { expectAxes, expectRank } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import { inOrder } from "./rows.ts";

/**
 * ai.onnx Gelu-20: x Phi(x); `approximate` "tanh" takes the form with tanh in place of erf. Default
 * "none".
 *
 * @example
 * const [Y] = await Gelu([X], { approximate: "tanh" });
 */
export const Gelu = /* @__PURE__ */ onnxOperator(
  {
    operator: "ai.onnx.Gelu",
    opsets: [20],
    inputs: ["X"],
    outputs: ["Y"],
    attributes: { approximate: "string" },
  },
  async (call) => {
    const { approximate = "none" } = call.attributes;
    call.expect(
      approximate === "none" || approximate === "tanh",
      () => `attribute approximate must be "none" or "tanh", got "${approximate}"`,
    );
    const X = call.tensor("X");
    const { output: Y } = await gelu(X, {
      approximate: approximate as "none" | "tanh",
      label: call.label,
    });
    return { Y: call.own(Y) };
  },
);

/**
 * com.microsoft Gelu: x Phi(x), by erf.
 *
 * @example
 * const [Y] = await MicrosoftGelu([X]);
 */
export const MicrosoftGelu = /* @__PURE__ */ onnxOperator(
  { operator: "com.microsoft.Gelu", opsets: [1], inputs: ["X"], outputs: ["Y"], attributes: {} },
  async (call) => ({ Y: call.own((await gelu(call.tensor("X"), { label: call.label })).output) }),
);

/**
 * com.microsoft FastGelu: the form with tanh, of X + bias. bias [C] is repeated along the elements
 * of X in their order; mostly C is the last axis of X.
 *
 * @example
 * const [Y] = await FastGelu([X, bias]);
 */
export const FastGelu = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.FastGelu",
    opsets: [1],
    inputs: ["X", "bias?"],
    outputs: ["Y"],
    attributes: {},
  },
  async (call) => {
    const X = call.tensor("X");
    const bias = call.tensor("bias");
    const Y = call.make(X.shape, X.dtype);
    const tanh = { approximate: "tanh", label: call.label } as const;
    if (!bias) {
      await gelu(X, { ...tanh, output: Y });
      return { Y };
    }
    expectRank(call, "bias", bias, 1, "[C]");
    const [width] = bias.shape;
    call.expect(
      width > 0 || X.size === 0,
      () => `bias must have one element or more for X [${X.shape}], got [0]`,
    );
    if (X.size === 0) return { Y };
    if (X.shape.at(-1) === width) {
      await gelu(X, { ...tanh, bias, output: Y });
      return { Y };
    }
    const ordered = await inOrder(call, X);
    const whole = Math.floor(X.size / width);
    const rest = X.size % width;
    const parts = [
      { shape: [whole, width], offset: 0, bias },
      { shape: [rest], offset: whole * width, bias: bias.slice(0, 0, rest) },
    ];
    for (const { shape, offset, bias: some } of parts) {
      if (shape.includes(0)) continue;
      await gelu(ordered.view({ shape, offset }), {
        ...tanh,
        bias: some,
        output: Y.view({ shape, offset }),
      });
    }
    return { Y };
  },
);

/**
 * com.microsoft BiasAdd: X [N, S, C] + bias [C] + skip [N, S, C].
 *
 * @example
 * const [Y] = await BiasAdd([X, bias, skip]);
 */
export const BiasAdd = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.BiasAdd",
    opsets: [1],
    inputs: ["X", "bias", "skip"],
    outputs: ["Y"],
    attributes: {},
  },
  async (call) => {
    const X = call.tensor("X");
    const bias = call.tensor("bias");
    const skip = call.tensor("skip");
    expectRank(call, "X", X, 3, "[N, S, C]");
    expectAxes(call, "bias", bias, [X.shape[2]], "[C]");
    expectAxes(call, "skip", skip, X.shape, "like X");
    const { output: Y } = await addBias(X, bias, { residual: skip, label: call.label });
    return { Y: call.own(Y) };
  },
);

/**
 * com.microsoft BiasSplitGelu, of diffusion models: l * r Phi(r), by erf, of the halves l and r of
 * X + bias. X [N, S, C] with C even, bias [C], Y [N, S, C / 2].
 *
 * @example
 * const [Y] = await BiasSplitGelu([X, bias]);
 */
export const BiasSplitGelu = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.BiasSplitGelu",
    opsets: [1],
    inputs: ["X", "bias"],
    outputs: ["Y"],
    attributes: {},
  },
  async (call) => {
    const X = call.tensor("X");
    const bias = call.tensor("bias");
    expectRank(call, "X", X, 3, "[N, S, C]");
    const [batch, rows, columns] = X.shape;
    call.expect(columns % 2 === 0, () => `X must be [N, S, C] with C even, got [${X.shape}]`);
    expectAxes(call, "bias", bias, [columns], "[C]");
    const half = columns / 2;
    const { label } = call;
    const left = await copyTensor(X.slice(2, 0, half), {
      bias: bias.slice(0, 0, half),
      dtype: "f32",
      label,
    });
    const Y = call.make([batch, rows, half], X.dtype);
    const right = {
      bias: bias.slice(0, half, columns),
      factor: call.own(left.output),
      output: Y,
      label,
    };
    await gelu(X.slice(2, half, columns), right);
    return { Y };
  },
);
