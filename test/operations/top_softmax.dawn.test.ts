// The softmax of the largest elements of rows against float64.

import { expect, it } from "vitest";
import { type Dtype, tensor } from "../../src/index.ts";
import { planTopSoftmax } from "../../src/operations/routing/top_softmax.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

/** Shares of the largest elements of rows, and 0 for the others. */
function reference(x: ArrayLike<number>, width: number, kept: number): number[] {
  const rows = Array.from({ length: x.length / width }, (_, row) =>
    Array.from(x).slice(row * width, (row + 1) * width),
  );
  return rows.flatMap((row) => {
    const order = [...row.keys()].sort((a, b) => row[b] - row[a] || a - b).slice(0, kept);
    const sum = order.reduce((total, at) => total + Math.exp(row[at] - row[order[0]]), 0);
    return row.map((value, at) => (order.includes(at) ? Math.exp(value - row[order[0]]) / sum : 0));
  });
}

async function shares(x: ArrayLike<number>, shape: readonly number[], kept: number, dtype?: Dtype) {
  const device = await testDevice();
  const source = tensor(device, shape, { data: Array.from(x), dtype: dtype ?? "f32" });
  const output = tensor(device, shape, { data: new Float32Array(x.length).fill(Number.NaN) });
  const plan = await planTopSoftmax(device, { x: source, output, kept });
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  const given = await source.read();
  const found = await output.read();
  for (const one of [source, output, plan]) one.destroy();
  return { given: Float32Array.from(given as Float32Array), found };
}

it.each([
  [[3, 70, 7], 2, "f32"],
  [[130, 33], 5, "bf16"],
  [[2, 9], 9, "f32"],
  [[5, 4], 1, "f16"],
] as const)("weighs rows %s, %d of them, in %s", async (shape, kept, dtype) => {
  const size = shape.reduce<number>((product, one) => product * one, 1);
  const { given, found } = await shares(normal(size, size, 3), shape, kept, dtype);
  const expected = reference(given, shape[shape.length - 1], kept);
  for (const [at, value] of expected.entries()) {
    if (value === 0) expect(found[at]).toBe(0);
    else expect(found[at]).toBeCloseTo(value, 5);
  }
});

it("takes the first of equal elements, no NaN, and all that a row has", async () => {
  const x = [
    [1, 2, 2, 1, 2, 2, 1],
    [Number.NaN, 5, -3, 5, Number.NaN, 5, 4],
    [Number.NaN, Number.NaN, 8, Number.NaN, 1e30, Number.NaN, Number.NaN],
    [-1e30, -1e30, -1e30, -1e30, -1e30, -1e30, -1e30],
  ];
  const { found } = await shares(x.flat(), [4, 7], 3);
  const third = expect.closeTo(1 / 3, 6);
  expect(Array.from(found as Float32Array)).toEqual(
    [
      [0, third, third, 0, third, 0, 0],
      [0, third, 0, third, 0, third, 0],
      [0, 0, 0, 0, 1, 0, 0],
      [third, third, third, 0, 0, 0, 0],
    ].flat(),
  );
});

it("refuses numbers that a row does not have", async () => {
  const device = await testDevice();
  const x = { shape: [2, 4] };
  for (const kept of [0, 5, 1.5])
    await expectError(
      () => planTopSoftmax(device, { x, kept }),
      "argument",
      /kept must be a whole number from 1 to 4/,
    );
});
