// What every operator of fovea/onnx does alike: names, attributes, wanted outputs, and who frees what.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { RotaryEmbedding } from "../../src/interop/onnx/index.ts";
import { onnxOperator } from "../../src/interop/onnx/operator.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const made: Tensor[] = [];
/** Returns some of what it makes, and fails where it is told to. */
const Made = onnxOperator(
  {
    operator: "test.Made",
    opsets: [3, 5],
    inputs: ["X", "lengths?"],
    outputs: ["Y", "extra?"],
    attributes: { fail: "flag", size: "int", names: "ints", mode: "string", alpha: "float" },
  },
  async (call) => {
    const { size = 1, fail = false } = call.attributes;
    const [Y, extra, scratch] = [1, 2, 3].map(() => call.make([size]));
    made.push(Y, extra, scratch);
    call.expect(!fail, () => `opset ${call.opset} fails with ${call.integers("lengths")}`);
    return { Y, ...(call.wants("extra") && { extra }) };
  },
);

describe("an operator of fovea/onnx", () => {
  it("gives the outputs that are wanted, and frees everything else", async () => {
    const X = tensor(await testDevice(), [1]);
    for (const [outputs, kept] of [
      [undefined, 1],
      [2, 2],
      [[true, false], 1],
      [[false, true], 1],
      [0, 0],
    ] as const) {
      made.length = 0;
      const results = await Made([X], { size: 2 }, outputs === undefined ? {} : { outputs });
      expect(results).toHaveLength(2);
      const alive = made.filter((one) => !one.destroyed);
      expect(alive).toHaveLength(kept);
      expect(new Set(results.filter(Boolean))).toEqual(new Set(alive));
      for (const one of alive) one.destroy();
    }
    X.destroy();
  });

  it("frees what it made when it fails", async () => {
    const X = tensor(await testDevice(), [1]);
    made.length = 0;
    await expectError(() => Made([X, [4, 5]], { fail: 1 }), "argument", "test.Made: opset 5 fails with 4,5.");
    expect(made).toHaveLength(3);
    for (const one of made) expect(one.destroyed).toBe(true);
    X.destroy();
  });

  it("refuses what it does not know, by name", async () => {
    const X = tensor(await testDevice(), [1]);
    const cases: [() => unknown, string][] = [
      [() => Made([]), "test.Made: input 0, X, is required."],
      [() => Made([null]), "test.Made: input 0, X, is required."],
      [() => Made([X, null, X]), "test.Made: expected at most 2 inputs (X, lengths), got 3."],
      [
        () => Made([X, "5" as never]),
        "test.Made: lengths must be a Tensor (make one with tensor()) or a list of numbers, got 5.",
      ],
      [
        () => Made([X], { axis: 1 } as never),
        "test.Made: no attribute axis; there are: fail, size, names, mode, alpha.",
      ],
      [
        () => Made([X], { toString: 1 } as never),
        "test.Made: no attribute toString; there are: fail, size, names, mode, alpha.",
      ],
      [() => Made([X], { size: 1.5 }), "test.Made: attribute size must be a whole number, got 1.5."],
      [() => Made([X], { fail: 2 as never }), "test.Made: attribute fail must be 0 or 1, got 2."],
      [() => Made([X], { names: [0.5] }), "test.Made: attribute names must be a list of whole numbers, got [0.5]."],
      [() => Made([X], { alpha: Number.NaN }), "test.Made: attribute alpha must be a finite number, got null."],
      [() => Made([X], {}, { opset: 2 }), "test.Made: known from opset 3 on, got opset 2."],
      [() => Made([X], {}, { outputs: 3 }), "test.Made: has 2 outputs (Y, extra), asked for 3."],
      [() => Made([[1]]), "test.Made: no input is a tensor; say which device to run on."],
      [() => RotaryEmbedding([[1], X, X]), "ai.onnx.RotaryEmbedding: X must be a Tensor, not numbers."],
      [() => RotaryEmbedding([X, X, X]), "ai.onnx.RotaryEmbedding: X must be [B, H, S, D] or [B, S, H * D], got [1]."],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
    X.destroy();
  });
});
