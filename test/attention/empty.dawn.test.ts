// Problems whose axes have no elements, in any place. What there is to compute is computed, and
// nothing fails on the way.

import { afterEach, expect, it } from "vitest";
import {
  addBias,
  copyTensor,
  gelu,
  layerNorm,
  logSoftmax,
  positionEncoding,
  project,
  rmsNorm,
  rotary,
  softmax,
  splitHeads,
  type Tensor,
  tensor,
  unpackQkv,
} from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const device = await testDevice();
const made: Tensor[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
/** Makes a tensor of whatever numbers; an output holds a number that nothing computes. */
const t = (...shape: number[]): Tensor => {
  const data = Array.from({ length: shape.reduce((product, size) => product * size, 1) }, (_, i) =>
    Math.sin(i + 1),
  );
  made.push(tensor(device, shape, { data }));
  return made[made.length - 1];
};

type Sizes = Readonly<Record<string, number>>;
type Case = readonly [
  name: string,
  sizes: Sizes,
  run: (sizes: Sizes) => Promise<{ readonly output: Tensor }>,
  shape: (sizes: Sizes) => readonly number[],
];

const CASES: readonly Case[] = [
  [
    "softmax",
    { A: 2, B: 2, C: 3 },
    ({ A, B, C }) => softmax(t(A, B, C), { axis: 1 }),
    ({ A, B, C }) => [A, B, C],
  ],
  ["logSoftmax", { A: 2, C: 3 }, ({ A, C }) => logSoftmax(t(A, C)), ({ A, C }) => [A, C]],
  [
    "layerNorm of one axis",
    { A: 2, C: 3 },
    ({ A, C }) => layerNorm(t(A, C), { weight: t(C), bias: t(C), sum: true }),
    ({ A, C }) => [A, C],
  ],
  [
    "layerNorm of two axes",
    { A: 2, B: 2, C: 3 },
    ({ A, B, C }) => layerNorm(t(A, B, C), { axis: 1, weight: t(B, C), residual: t(1, B, C) }),
    ({ A, B, C }) => [A, B, C],
  ],
  ["rmsNorm", { A: 2, C: 3 }, ({ A, C }) => rmsNorm(t(A, C)), ({ A, C }) => [A, C]],
  ["gelu", { A: 2, C: 3 }, ({ A, C }) => gelu(t(A, C), { bias: t(C) }), ({ A, C }) => [A, C]],
  [
    "addBias",
    { A: 2, C: 3 },
    ({ A, C }) => addBias(t(A, C), t(C), { residual: t(A, C) }),
    ({ A, C }) => [A, C],
  ],
  [
    "copyTensor into a slice",
    { A: 2, B: 2, C: 3 },
    ({ A, B, C }) => copyTensor(t(A, B, C), { output: t(A, B + 2, C).slice(1, 2, B + 2) }),
    ({ A, B, C }) => [A, B, C],
  ],
  [
    "project with a bias",
    { A: 2, I: 3, O: 4 },
    ({ A, I, O }) => project(t(A, I), t(O, I), { bias: t(O) }),
    ({ A, O }) => [A, O],
  ],
  [
    "project of pairs",
    { A: 2, B: 2, O: 4 },
    ({ A, B, O }) => project(t(A, B, 3), t(A, O, 3)),
    ({ A, B, O }) => [A, B, O],
  ],
  [
    "rotary",
    { B: 2, H: 2, M: 3, D: 4 },
    ({ B, H, M, D }) => rotary(t(B, H, M, D)),
    ({ B, H, M, D }) => [B, H, M, D],
  ],
  [
    "rotary in place",
    { B: 2, H: 2, M: 3, D: 4 },
    ({ B, H, M, D }) => rotary(t(B, H, M, D), { inPlace: true, positionOffset: 3 }),
    ({ B, H, M, D }) => [B, H, M, D],
  ],
  [
    "rotary by cos and sin of each row",
    { B: 2, H: 2, M: 3, R: 2 },
    ({ B, H, M, R }) => rotary(t(B, H, M, 2 * R), { cos: t(B, M, R), sin: t(B, M, R) }),
    ({ B, H, M, R }) => [B, H, M, 2 * R],
  ],
  [
    "positionEncoding",
    { B: 2, M: 3, D: 4 },
    ({ B, M, D }) => positionEncoding(t(B, M, D)),
    ({ B, M, D }) => [B, M, D],
  ],
  [
    "positionEncoding by a table",
    { B: 2, M: 3, D: 4 },
    ({ B, M, D }) => positionEncoding(t(B, M, D), { table: t(5, D) }),
    ({ B, M, D }) => [B, M, D],
  ],
  [
    "heads of packed rows",
    { B: 2, M: 3, D: 4 },
    async ({ B, M, D }) => copyTensor(unpackQkv(t(B, M, 6 * D), { heads: 2, headDim: D }).v),
    ({ B, M, D }) => [B, 2, M, D],
  ],
];

it.each(CASES)("%s", async (_, sizes, run, shapeOf) => {
  for (const empty of Object.keys(sizes)) {
    const without = { ...sizes, [empty]: 0 };
    const { output } = await run(without);
    expect(output.shape, `${empty} = 0`).toEqual(shapeOf(without));
    const values = await output.read();
    expect(values.every(Number.isFinite)).toBe(true);
    if (!made.includes(output)) output.destroy();
  }
});

it("copies as many axes as one likes if one is empty", async () => {
  const { output } = await copyTensor(t(2, 3, 2, 3, 2, 0).permute(5, 3, 1, 4, 2, 0));
  expect(output.shape).toEqual([0, 3, 3, 2, 2, 2]);
  output.destroy();
});

it("gives the bias if there is nothing to multiply", async () => {
  const bias = t(4);
  const { output } = await project(t(2, 0), t(4, 0), { bias, output: t(2, 4) });
  const values = Array.from(await bias.read());
  expect(Array.from(await output.read())).toEqual([...values, ...values]);
});

it("slices what is empty at any place, and splits it into heads", async () => {
  const slice = t(2, 0, 8).slice(2, 4, 8).slice(0, 1, 2);
  expect(slice.shape).toEqual([1, 0, 4]);
  expect(splitHeads(slice, 2).shape).toEqual([1, 2, 0, 2]);
  expect(await slice.read()).toHaveLength(0);
});

it("knows no mean of no elements, and no axis of a scalar", async () => {
  const without =
    /: rows of no elements, x \[2, 0\], have no mean and no deviation; leave out statistics\.$/;
  await expectError(() => layerNorm(t(2, 0), { statistics: true }), "argument", without);
  await expectError(() => rmsNorm(t(2, 0), { statistics: t(1, 2, 1) }), "argument", without);
  const { statistics } = await layerNorm(t(0, 3), { statistics: true });
  expect(statistics?.shape).toEqual([2, 0, 1]);
  const scalar = "must have one axis or more, got a scalar, []; view({ shape: [1] }) gives it one.";
  await expectError(() => softmax(t()), "argument", `softmax: x ${scalar}`);
  await expectError(() => layerNorm(t()), "argument", `layerNorm: x ${scalar}`);
});
