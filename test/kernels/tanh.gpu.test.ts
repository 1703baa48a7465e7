// The terms of additive scores by themselves: how far they are from tanh.

import { expect, it } from "vitest";
import { attention, attentionWeights, tensor } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

/**
 * Returns scores vector * tanh(q + k) of all pairs of these numbers, from tiles in workgroup
 * memory.
 */
async function inTiles(qs: readonly number[], ks: readonly number[], vector = 1) {
  const device = await testDevice();
  const [q, k] = [qs, ks].map((data) => tensor(device, [1, 1, data.length, 1], { data }));
  const scores = await attentionWeights(q, k, {
    stage: "raw",
    similarity: { kind: "additive", vector },
  });
  const values = await scores.read();
  for (const one of [q, k, scores]) one.destroy();
  return values;
}

/**
 * Returns the same scores from rows in registers: an entry of the batch has one key, whose score is
 * the largest. ALiBi keeps scores in natural units.
 */
async function inRows(qs: readonly number[], ks: readonly number[], vector = 1) {
  const device = await testDevice();
  const q = tensor(device, [1, 1, qs.length, 1], { data: qs }).view({
    shape: [ks.length, 1, qs.length, 1],
    strides: [0, 1, 1, 1],
  });
  const k = tensor(device, [ks.length, 1, 1, 1], { data: ks });
  const similarity = { kind: "additive", vector } as const;
  const options = { similarity, alibiSlopes: [0], rowMax: true, variant: "8x4-quad" } as const;
  const { output, rowMax } = await attention(q, k, k, options);
  const byKey = (await rowMax?.read()) ?? [];
  for (const one of [q, k, output, rowMax]) one?.destroy();
  return qs.flatMap((_, i) => ks.map((_, j) => byKey[j * qs.length + i]));
}

/** Returns the largest distance of the GPU's tanh(q + k) from float64's. */
async function worst(
  scoresOf: typeof inRows | typeof inTiles,
  qs: readonly number[],
  ks: readonly number[],
  vector = 1,
) {
  const values = await scoresOf(qs, ks, vector);
  const qValues = Float32Array.from(qs);
  const kValues = Float32Array.from(ks);
  let error = 0;
  for (const [i, a] of qValues.entries()) {
    for (const [j, b] of kValues.entries()) {
      const off = Math.abs(values[i * ks.length + j] / vector - Math.tanh(a + b));
      error = Number.isNaN(off) ? Number.POSITIVE_INFINITY : Math.max(error, off);
    }
  }
  return error;
}

const spaced = (from: number, to: number, count: number) =>
  Array.from({ length: count }, (_, i) => from + ((to - from) * i) / (count - 1));

it.each([
  ["tiles", inTiles],
  ["rows", inRows],
] as const)("in %s is within 2e-7 of tanh, whatever the parts of the sum", async (_, scoresOf) => {
  const errors = {
    usual: await worst(scoresOf, spaced(-4, 4.1, 301), spaced(-3.9, 4, 299)),
    // Both numbers are far out, and their sum is not.
    opposite: await worst(scoresOf, spaced(8, 19.9, 201), spaced(-19.9, -8, 203)),
    small: await worst(scoresOf, spaced(-0.01, 0.01, 101), spaced(-0.011, 0.01, 99)),
    // These are beyond the range of the product of exponentials.
    large: await worst(
      scoresOf,
      [20.1, 25, 1e3, 1e30, -3e38],
      [-20, -24.9, -1e3, -1e30, 0.5, 3e38],
    ),
    mixed: await worst(scoresOf, spaced(-40, 40, 101), spaced(-40, 40, 99)),
  };
  for (const [name, error] of Object.entries(errors)) expect(error, name).toBeLessThan(2e-7);
});

it.each([
  ["tiles", inTiles],
  ["rows", inRows],
] as const)("in %s is so with elements of the vector of any size", async (_, scoresOf) => {
  for (const vector of [1e-30, 1e-11, 3e-10, -1e19, 2e19, 1e30]) {
    const error = await worst(scoresOf, spaced(-19.9, 19.9, 81), spaced(-19.9, 19.9, 83), vector);
    expect(error, `vector ${vector}`).toBeLessThan(3e-7); // products with the vector round, too
  }
});
