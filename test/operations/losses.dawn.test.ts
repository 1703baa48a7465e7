// Losses, their gradients, and metrics against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  accuracy,
  argmax,
  bceWithLogits,
  bceWithLogitsBackward,
  type CrossEntropyOptions,
  crossEntropy,
  crossEntropyBackward,
  mseLoss,
  mseLossBackward,
  planCrossEntropyBackward,
  tensor,
} from "../../src/index.ts";
import {
  argmax as argmax64,
  elementLoss,
  elementLossBackward,
  crossEntropy as entropy64,
  crossEntropyBackward as entropyBackward64,
} from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { type Float, product } from "../support/cases.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import {
  type Both,
  expectGradientsClose,
  GradientTensors,
  type Made,
} from "../support/gradients.ts";

failOnGpuErrors();

interface Case {
  readonly shape: readonly number[];
  readonly made?: Made;
  readonly dtype?: Float;
  /** In place of random classes. */
  readonly classes?: readonly number[];
  readonly weighted?: boolean;
  readonly options?: Omit<CrossEntropyOptions, "classWeights" | "loss" | "encoder" | "label">;
  readonly limits?: Record<string, number>;
}

/** Numbers that are off by 1e-6 of themselves or of 1 at most, or not finite in the same way. */
function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>, bound = 1e-6) {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(expected[i])) expect(actual[i], `element ${i}`).toBe(expected[i]);
    else {
      const off = Math.abs(actual[i] - expected[i]) / Math.max(1, Math.abs(expected[i]));
      expect(off, `element ${i}: ${actual[i]}, expected ${expected[i]}`).toBeLessThan(bound);
    }
  }
}

async function entropy({
  shape,
  made,
  dtype = "f32",
  classes,
  weighted,
  options = {},
  limits,
}: Case) {
  const device = limits ? withLimits(await testDevice(), limits) : await testDevice();
  const tensors = new GradientTensors(device);
  const logits = tensors.make(1, shape, { dtype, ...made });
  const outer = shape.slice(0, -1);
  const C = shape[shape.length - 1];
  const y = classes ?? integers(3, product(outer), 0, C - 1);
  const target = tensor(device, outer, { dtype: "i32", data: y });
  const weights = tensors.of(
    normal(4, C).map((x) => Math.abs(x) + 0.1),
    [C],
  );
  const single = options.reduction === "none";
  const lossShape = single ? outer : [];
  const dLoss = tensors.make(5, lossShape);
  const loss = tensors.poisoned(lossShape);
  const again = tensors.poisoned(lossShape);
  const dLogits = tensors.poisoned(shape, { dtype, ...made });
  const given = { ...options, ...(weighted && { classWeights: weights.gpu }) };
  await crossEntropy(logits.gpu, target, { ...given, loss });
  const backward = { ...given, dLoss: dLoss.gpu, loss: again, dLogits };
  await crossEntropyBackward(logits.gpu, target, backward);
  const known = { ...options, ...(weighted && { classWeights: weights.cpu.data }) };
  const values = await loss.read();
  expectNear(values, entropy64(logits.cpu, y, known));
  expect(await again.read()).toEqual(values);
  const gradient = (precision: "f64" | "f32") => ({
    dLogits: entropyBackward64(logits.cpu, y, dLoss.cpu.data, { ...known, precision }),
  });
  await expectGradientsClose({ dLogits }, gradient("f64"), gradient("f32"));
  target.destroy();
  tensors.destroy();
}

const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await entropy(one);
};

describe("crossEntropy and its gradient", () => {
  it("of rows of any length, mean, sum and each by itself", () =>
    all(
      { shape: [5, 64] },
      { shape: [2, 3, 7], options: { reduction: "sum" } },
      { shape: [70, 5], options: { reduction: "none" } },
      { shape: [3, 1] },
    ));
  it("of weighted and smoothed classes, some rows ignored", () =>
    all(
      {
        shape: [6, 9],
        classes: [1, 0, 8, 0, 0, 3],
        weighted: true,
        options: { ignoreIndex: 0, labelSmoothing: 0.1 },
      },
      { shape: [3, 300], weighted: true, options: { reduction: "none", labelSmoothing: 1 } },
      { shape: [4, 8], classes: [-100, 2, -100, 7], options: { labelSmoothing: 0.3 } },
    ));
  it("of large logits, in 16 bits, at strides", () =>
    all(
      { shape: [5, 65], made: { spread: 1e4 } },
      { shape: [4, 16], made: { mean: 1e6 } },
      { shape: [4, 16], dtype: "bf16" },
      { shape: [3, 4, 10], made: { order: [2, 0, 1] }, options: { reduction: "none" } },
    ));
  it("sums many rows in parts, on grids of any width", () =>
    all({ shape: [9000, 3], limits: { maxComputeWorkgroupsPerDimension: 2 } }));

  it("what has no loss is NaN, and no other row", async () => {
    const device = await testDevice();
    const { NaN: nan, POSITIVE_INFINITY: infinity, NEGATIVE_INFINITY: lowest } = Number;
    const data = [
      1,
      nan,
      2,
      infinity,
      1,
      2,
      lowest,
      lowest,
      lowest,
      lowest,
      1,
      2,
      1,
      2,
      3,
      1,
      2,
      3,
    ];
    const logits = tensor(device, [6, 3], { data });
    const target = tensor(device, [6], { dtype: "i32", data: [0, 0, 0, 0, 3, 1] });
    const options = { reduction: "none", loss: true } as const;
    const { dLogits, loss } = await crossEntropyBackward(logits, target, options);
    const values = Array.from((await loss?.read()) ?? []);
    expect(values.slice(0, 3).concat(values[4]).every(Number.isNaN)).toBe(true);
    expect(values[3]).toBe(infinity);
    expect(values[5]).toBeCloseTo(Math.log(Math.E ** -1 + 1 + Math.E), 5);
    const slopes = await dLogits.read();
    const bad = Array.from(slopes, Number.isNaN);
    expect(bad).toEqual(bad.map((_, at) => at < 9 || (at >= 12 && at < 15)));
    expectNear(slopes.subarray(9, 12), [-1, 1 / (1 + Math.E), Math.E / (1 + Math.E)]);
    const ignored = tensor(device, [6], { dtype: "i32", data: new Array(6).fill(-100) });
    const none = await crossEntropyBackward(logits, ignored, { loss: true });
    expect(await none.loss?.read()).toEqual(Float32Array.of(nan));
    expect(await none.dLogits.read()).toEqual(new Float32Array(18));
    for (const one of [logits, target, dLogits, loss, ignored, none.loss, none.dLogits])
      one?.destroy();
  });

  it("has the same bits again from a plan, and refuses what is wrong", async () => {
    const device = await testDevice();
    const logits = tensor(device, [300, 20], { data: normal(7, 6000) });
    const target = tensor(device, [300], { dtype: "i32", data: integers(8, 300, 0, 19) });
    const plan = await planCrossEntropyBackward(device, { logits, target, loss: true });
    const run = async () => {
      const dLogits = tensor(device, [300, 20]);
      const loss = tensor(device, []);
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { dLogits, loss });
      device.queue.submit([encoder.finish()]);
      const bits = [await dLogits.read(), await loss.read()];
      for (const one of [dLogits, loss]) one.destroy();
      return bits;
    };
    expect(await run()).toEqual(await run());
    await expectError(
      () => crossEntropy(logits, logits.view({ shape: [300] })),
      "argument",
      "crossEntropy: target must be i32 or u32, got f32.",
    );
    await expectError(
      () => crossEntropy(logits, target.slice(0, 0, 3)),
      "argument",
      "crossEntropy: target must be [300] a class for each row of logits, got [3].",
    );
    await expectError(
      () => crossEntropy(logits, target, { labelSmoothing: 2 }),
      "argument",
      "crossEntropy: labelSmoothing must be from 0 to 1, got 2.",
    );
    await expectError(
      () => crossEntropy(logits, target, { reduction: "max" as "mean" }),
      "argument",
      'crossEntropy: reduction must be mean, sum or none, got "max".',
    );
    for (const one of [logits, target, plan]) one.destroy();
  });
});

describe("losses of elements and their gradients", () => {
  const run = async (
    kind: "squared" | "logistic",
    reduction: "mean" | "sum" | "none",
    shape: readonly number[],
    { made, weighted = false }: { made?: Made; weighted?: boolean } = {},
  ) => {
    const tensors = new GradientTensors(await testDevice());
    const x = tensors.make(1, shape, { spread: 3, ...made });
    const goal = tensors.make(2, shape, made);
    const dLoss = tensors.make(3, reduction === "none" ? shape : []);
    const loss = tensors.poisoned(reduction === "none" ? shape : []);
    const into = { dX: tensors.poisoned(shape, made), dTarget: tensors.poisoned(shape, made) };
    const weights: Record<string, Both> = weighted
      ? { weight: tensors.make(4, shape), posWeight: tensors.make(5, shape.slice(-1)) }
      : {};
    const of = (what: "gpu" | "cpu") =>
      Object.fromEntries(Object.entries(weights).map(([name, both]) => [name, both[what]]));
    const forward = { reduction, ...of("gpu"), loss };
    await (kind === "squared" ? mseLoss : bceWithLogits)(x.gpu, goal.gpu, forward);
    const gradients = ["dX", "dTarget"] as const;
    const backward = { reduction, ...of("gpu"), dLoss: dLoss.gpu, gradients, ...into };
    const work = kind === "squared" ? mseLossBackward : bceWithLogitsBackward;
    await work(x.gpu, goal.gpu, backward);
    const options = { kind, reduction, ...of("cpu") };
    expectNear(await loss.read(), elementLoss(x.cpu, goal.cpu.data, options));
    const of64 = (precision: "f64" | "f32") => ({
      ...elementLossBackward(x.cpu, goal.cpu.data, dLoss.cpu.data, { ...options, precision }),
    });
    await expectGradientsClose(into, of64("f64"), of64("f32"));
    tensors.destroy();
  };
  it("squared errors", async () => {
    await run("squared", "mean", [3, 7]);
    await run("squared", "sum", [4, 8], { made: { order: [1, 0] } });
    await run("squared", "none", [2, 3, 4], { made: { dtype: "f16" } });
  });
  it("binary cross-entropy", async () => {
    await run("logistic", "mean", [3, 8], { weighted: true });
    await run("logistic", "sum", [5, 3], { made: { spread: 100 } });
    await run("logistic", "none", [4, 4], { weighted: true });
  });
  it("sums many elements with the error of few", () => run("squared", "mean", [100, 1000]));
  it("a mean of nothing is NaN, and what is wrong is refused", async () => {
    const device = await testDevice();
    const none = tensor(device, [0, 4]);
    const { loss } = await mseLoss(none, none);
    expect(await loss.read()).toEqual(Float32Array.of(Number.NaN));
    const x = tensor(device, [2, 3], { data: [1, 2, 3, 4, 5, 6] });
    await expectError(
      () => mseLoss(x, none),
      "argument",
      "mseLoss: target must be [2, 3] like x, got [0, 4].",
    );
    await expectError(
      () => bceWithLogits(x, x, { posWeight: x.view({ shape: [2] }) }),
      "argument",
      "bceWithLogits: posWeight must broadcast to [2, 3], got [2].",
    );
    await expectError(
      () => mseLossBackward(x, x, { dTarget: x }),
      "argument",
      "mseLossBackward: dTarget is given, and gradients don't name it; leave one out.",
    );
    for (const one of [none, loss, x]) one.destroy();
  });
});

describe("argmax and accuracy", () => {
  it("find the first of the largest, a NaN before all", async () => {
    const device = await testDevice();
    const { NaN: nan, NEGATIVE_INFINITY: lowest } = Number;
    const data = [
      0,
      3,
      3,
      nan,
      9,
      nan,
      lowest,
      lowest,
      lowest,
      -2,
      -1,
      -3,
      -0,
      0,
      -1,
      -5,
      1e-40,
      0,
    ];
    const x = tensor(device, [6, 3], { data });
    const { output } = await argmax(x);
    expect(Array.from(await output.read())).toEqual([1, 0, 0, 1, 0, 1]);
    const long = { shape: [3, 700], data: normal(1, 2100) };
    const rows = tensor(device, long.shape, { data: long.data });
    const found = await argmax(rows);
    expect(await found.output.read()).toEqual(argmax64(long));
    const turned = await argmax(rows.permute(1, 0), { axis: 0 });
    expect(await turned.output.read()).toEqual(argmax64(long));
    for (const one of [x, output, rows, found.output, turned.output]) one.destroy();
  });
  it("count hits of the rows that count", async () => {
    const device = await testDevice();
    const count = 20_000;
    const logits = { shape: [count, 3], data: normal(2, 3 * count) };
    const best = argmax64(logits);
    const classes = integers(3, count, -1, 2);
    const x = tensor(device, logits.shape, { data: logits.data });
    const target = tensor(device, [count], { dtype: "i32", data: classes });
    const { counts } = await accuracy(x, target, { ignoreIndex: -1 });
    const counted = Array.from(classes, (y) => y !== -1).filter(Boolean).length;
    const right = Array.from(classes, (y, r) => y === best[r]).filter(Boolean).length;
    expect(Array.from(await counts.read())).toEqual([right, counted]);
    for (const one of [x, target, counts]) one.destroy();
  });
});
