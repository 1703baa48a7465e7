// What is not finite shows in the results that it counts for, and nowhere else: products of
// matrices, rotations and position encodings, whose rows or elements don't depend on each other.

import { expect, it } from "vitest";
import { positionEncoding, project, rotary, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const { NaN: NAN, POSITIVE_INFINITY: INFINITE } = Number;
const M = 5;
const D = 12;

/** Reads the result of rows [.., 5, 12] as they are, and with elements of them replaced. */
async function both(
  set: Readonly<Record<number, number>>,
  run: (data: Float32Array) => Promise<ArrayLike<number>>,
): Promise<[clean: number[], met: number[]]> {
  const data = normal(1, M * D);
  const spoilt = Float32Array.from(data, (value, i) => set[i] ?? value);
  return [Array.from(await run(data)), Array.from(await run(spoilt))];
}

it("project: in the row of x, by the signs of the weight", async () => {
  const device = await testDevice();
  const weight = tensor(device, [8, D], { data: normal(2, 8 * D) });
  const w = await weight.read();
  const [clean, met] = await both(
    { [D + 3]: NAN, [2 * D + 4]: INFINITE, [3 * D]: 3e38 },
    async (data) => {
      const { output } = await project(tensor(device, [M, D], { data }), weight);
      return output.read();
    },
  );
  const expected = clean.map((value, i) => {
    const row = Math.floor(i / 8);
    const column = i % 8;
    if (row === 1) return NAN;
    if (row === 2) return Math.sign(w[column * D + 4]) * INFINITE;
    return row === 3 ? Math.fround(3e38 * w[column * D]) : value;
  });
  for (const [i, value] of met.entries()) {
    if (Math.floor(i / 8) === 3 && Math.abs(expected[i]) < 3.4e38)
      expect(value / expected[i]).toBeCloseTo(1, 6);
    else expect(value, `element ${i}`).toBe(expected[i]);
  }
  expect(met.some((value) => Math.abs(value) > 1e36 && Math.abs(value) < INFINITE)).toBe(true);
});

it("rotary: in the pair of channels", async () => {
  const device = await testDevice();
  const [clean, met] = await both({ [2 * D + 1]: NAN, [4 * D + 7]: INFINITE }, async (data) => {
    const { output } = await rotary(tensor(device, [1, 1, M, D], { data }), { positionOffset: 3 });
    return output.read();
  });
  for (const [i, value] of met.entries()) {
    const row = Math.floor(i / D);
    const pair = i % (D / 2);
    if (row === 2 && pair === 1) expect(value).toBeNaN();
    else if (row === 4 && pair === 1) expect(Math.abs(value)).toBe(INFINITE);
    else expect(value).toBe(clean[i]);
  }
});

it("positionEncoding: in the element, of x and of a table's rows that are asked for", async () => {
  const device = await testDevice();
  const encoded = async (data: Float32Array) => {
    const { output } = await positionEncoding(tensor(device, [1, M, D], { data }), {
      positionOffset: 2,
    });
    return output.read();
  };
  const set = { [2 * D + 1]: NAN, [3 * D]: -INFINITE };
  const [clean, met] = await both(set, encoded);
  expect(met).toEqual(clean.map((value, i) => (i in set ? set[i as keyof typeof set] : value)));
  const rows = Float32Array.from(normal(3, 7 * D), (value, i) =>
    Math.floor(i / D) === 4 ? NAN : value,
  );
  const x = tensor(device, [1, M, D], { data: new Float32Array(M * D) });
  const table = tensor(device, [7, D], { data: rows });
  const { output } = await positionEncoding(x, { table, positionIds: [0, 6, 4, 3, 5] });
  const byRow = Array.from({ length: M }, (_, row) => row);
  const values = await output.read();
  expect(byRow.map((row) => values.slice(row * D, (row + 1) * D).every(Number.isNaN))).toEqual(
    byRow.map((row) => row === 2),
  );
  expect(byRow.map((row) => values.slice(row * D, (row + 1) * D).some(Number.isNaN))).toEqual(
    byRow.map((row) => row === 2),
  );
});
