// The gradients of the softmax and of its logarithm against the float64 reference.

import { describe, expect, it } from "vitest";
import { logSoftmaxBackward, softmaxBackward, tensor } from "../../src/index.ts";
import { softmaxAlongBackward } from "../../src/reference/index.ts";
import type { Float } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

failOnGpuErrors();

interface Case {
  readonly shape: readonly number[];
  readonly axis?: number;
  readonly dtype?: Float;
  readonly x?: Made;
  readonly dOutput?: Made;
  readonly dX?: Made;
  /** Elements of x that are -Infinity, one in so many; their gradients are NaN. */
  readonly hidden?: number;
}

async function run(log: boolean, { shape, axis = -1, dtype = "f32", hidden, ...made }: Case) {
  const tensors = new GradientTensors(await testDevice());
  const x = tensors.make(1, shape, { dtype, ...made.x });
  const dOutput = tensors.make(2, shape, { dtype, ...made.dOutput });
  for (let at = 0; hidden && at < x.cpu.data.length; at += hidden) {
    x.cpu.data[at] = Number.NEGATIVE_INFINITY;
    dOutput.cpu.data[at] = Number.NaN;
  }
  const [given, gradient] = [x, dOutput].map(({ cpu }) =>
    hidden ? tensors.of(cpu.data, shape, { dtype }).gpu : undefined,
  );
  const dX = tensors.poisoned(shape, { dtype, ...made.dX });
  const backward = log ? logSoftmaxBackward : softmaxBackward;
  const results = await backward(given ?? x.gpu, gradient ?? dOutput.gpu, { axis, dX });
  expect(results.dX === dX).toBe(true);
  const options = { axis, log } as const;
  const f64 = softmaxAlongBackward(x.cpu, dOutput.cpu.data, options);
  const plain = softmaxAlongBackward(x.cpu, dOutput.cpu.data, { ...options, precision: "f32" });
  await expectGradientsClose(results, { dX: f64 }, { dX: plain });
  tensors.destroy();
}

describe.each([
  ["softmaxBackward", false],
  ["logSoftmaxBackward", true],
] as const)("%s", (_, log) => {
  const all = async (...cases: readonly Case[]) => {
    for (const one of cases) await run(log, one);
  };
  it("of rows of any length", () =>
    all({ shape: [3, 64] }, { shape: [70, 8] }, { shape: [3, 768] }, { shape: [0, 4] }));
  it("of any magnitude", () =>
    all(
      { shape: [3, 64], x: { spread: 1e-20 }, dOutput: { spread: 1e-20 } },
      { shape: [3, 64], x: { spread: 30 }, dOutput: { spread: 1e18 } },
      { shape: [3, 64], x: { mean: 1e6 } },
    ));
  it("along other axes, at strides, in 16 bits", () =>
    all({ shape: [2, 7, 5], axis: 1, dX: { order: [1, 0, 2] } }, { shape: [3, 5], dtype: "bf16" }));
  it("of -Infinity is 0, whatever the gradient is", () =>
    all({ shape: [5, 64], hidden: 3 }, { shape: [5, 64], hidden: 1 }));
});

describe("gradients of a softmax", () => {
  it("a NaN or +Infinity stays in its row", async () => {
    const tensors = new GradientTensors(await testDevice());
    const data = Float32Array.of(1, Number.NaN, 2, 3, 1, Infinity, 2, 3, 1, -Infinity, 2, 3);
    const x = tensors.of(data, [3, 4]).gpu;
    const dOutput = tensors.make(2, [3, 4]).gpu;
    for (const backward of [softmaxBackward, logSoftmaxBackward]) {
      const { dX } = await backward(x, dOutput);
      const values = await dX.read();
      expect(Array.from(values, Number.isNaN)).toEqual(Array.from(data, (_, at) => at < 8));
      expect(values[9]).toBe(0);
      dX.destroy();
    }
    const gradient = tensors.of(Float32Array.of(Number.NaN, 1, 1, 1, 1, 1, 1, 2), [2, 4]).gpu;
    const ones = tensors.make(4, [2, 4]).gpu;
    const { dX } = await softmaxBackward(ones, gradient);
    const values = await dX.read();
    expect(Array.from(values, Number.isNaN)).toEqual(Array.from(values, (_, at) => at < 4));
    dX.destroy();
    tensors.destroy();
  });

  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3]);
    const row = tensor(device, [3]);
    await expectError(
      () => softmaxBackward(x, row),
      "argument",
      "softmaxBackward: dOutput must be [2, 3] like x, got [3].",
    );
    await expectError(
      () => logSoftmaxBackward(x, x, { axis: 2 }),
      "argument",
      "logSoftmaxBackward: axis must be a whole number from -2 up to 1 for [2, 3], got 2.",
    );
    for (const one of [x, row]) one.destroy();
  });
});
