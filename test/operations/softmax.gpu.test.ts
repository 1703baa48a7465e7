// The softmax kernel against the float64 reference.

import { describe, expect, it } from "vitest";
import { logSoftmax, planSoftmax, softmax, tensor } from "../../src/index.ts";
import { softmaxAlong as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

interface Case {
  readonly shape: readonly number[];
  readonly axis?: number;
  readonly log?: boolean;
  readonly dtypes?: readonly [x: Float, output: Float];
  readonly spread?: number;
  /** Elements between rows that don't belong to the tensor, for the last axis. */
  readonly gap?: number;
  /** Other values for some elements, by their index. */
  readonly set?: Readonly<Record<number, number>>;
}

async function run(
  device: GPUDevice,
  { shape, axis, log = false, dtypes = ["f32", "f32"], ...rest }: Case,
) {
  const { spread = 3, gap = 0, set = {} } = rest;
  const data = normal(1, product(shape), spread).map(ROUND[dtypes[0]]);
  for (const [index, value] of Object.entries(set)) data[Number(index)] = value;
  const padded = [...shape.slice(0, -1), (shape.at(-1) as number) + gap];
  const strides = shape.map((_, i) => product(padded.slice(i + 1)));
  const x = tensor(device, shape, { data, strides, dtype: dtypes[0] });
  const nan = new Float32Array(product(shape)).fill(Number.NaN);
  const output = tensor(device, shape, { data: nan, strides, dtype: dtypes[1] });
  const options = { ...(axis !== undefined && { axis }), output };
  expect((await (log ? logSoftmax : softmax)(x, options)).output).toBe(output);
  const cpu = { ...(axis !== undefined && { axis }), log };
  const f64 = reference({ data, shape }, cpu);
  const plain = reference({ data, shape }, { ...cpu, precision: "f32" }).map(ROUND[dtypes[1]]);
  const values = [...(await output.read())];
  // Infinities are compared first, and then kept out of the bound.
  const finite = (list: ArrayLike<number>) =>
    Array.from(list, (value) => (value === Number.NEGATIVE_INFINITY ? 0 : value));
  expect(values.map((value) => value === Number.NEGATIVE_INFINITY)).toEqual(
    Array.from(f64, (value) => value === Number.NEGATIVE_INFINITY),
  );
  expectClose(
    "softmax",
    finite(values),
    { f64: finite(f64), plain: finite(plain) },
    shape,
    dtypes[1],
  );
  x.destroy();
  output.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(await testDevice(), one);
};

const NONE = Number.NEGATIVE_INFINITY;

describe("softmax", () => {
  it("of rows of 4 lanes", () =>
    all({ shape: [3, 64] }, { shape: [130, 4] }, { shape: [1, 16] }, { shape: [0, 8] }));
  it("of rows of any length", () =>
    all(
      { shape: [5, 1] },
      { shape: [3, 2] },
      { shape: [70, 63] },
      { shape: [2, 0] },
      { shape: [7], gap: 3 },
    ));
  it("of rows of 32 lanes", () => all({ shape: [2, 68] }, { shape: [9, 1024] }));
  it("of rows of a workgroup", () =>
    all({ shape: [2, 1028] }, { shape: [1, 100_000] }, { shape: [3, 4096] }));
  it("of long rows of odd length", () => all({ shape: [2, 1027] }, { shape: [1, 99_991] }));
  it("along an axis in the middle or at the start", () =>
    all(
      { shape: [2, 5, 3], axis: 1 },
      { shape: [67, 70], axis: 0 },
      { shape: [300, 5], axis: 0 },
      { shape: [2, 9, 4, 3], axis: -3 },
      { shape: [2, 5, 1], axis: 1 },
    ));
  it("of large and of low numbers", () =>
    all(
      { shape: [2, 8], spread: 1e4 },
      { shape: [2, 8], spread: 1e38 },
      {
        shape: [2, 4],
        set: { 0: -3.4028234663852886e38, 1: -3.4028234663852886e38, 4: 3e38, 5: 3e38, 6: -3e38 },
      },
      {
        shape: [1, 4],
        set: Object.fromEntries([0, 1, 2, 3].map((i) => [i, -3.4028234663852886e38])),
      },
    ));
  it("counts -Infinity for nothing", () => {
    const row = (start: number, count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [start + i, NONE]));
    return all(
      { shape: [3, 8], set: { ...row(8, 8), 0: NONE, 17: NONE } },
      { shape: [2, 68], set: row(68, 68) },
      { shape: [3, 1028], set: { ...row(0, 1027), ...row(1028, 1028) } },
    );
  });
  it("in 16 bits", () =>
    all(
      { shape: [3, 64], dtypes: ["f16", "f16"] },
      { shape: [3, 63], dtypes: ["bf16", "f16"], set: { 5: NONE } },
    ));
});

describe("logSoftmax", () => {
  it("keeps what is small", () =>
    all(
      { shape: [3, 64], log: true, spread: 50 },
      {
        shape: [3, 8],
        log: true,
        set: Object.fromEntries([3, 8, 9, 10, 11, 12, 13, 14, 15].map((i) => [i, NONE])),
      },
      { shape: [67, 70], axis: 0, log: true },
    ));
  it("is 0 for an axis of one", async () => {
    const { output } = await logSoftmax(tensor(await testDevice(), [2, 1], { data: [5, -7e4] }));
    expect([...(await output.read())]).toEqual([0, 0]);
  });
});

describe("slices with NaN or Infinity", () => {
  // 4, 32 and 256 lanes a row, 4 lanes of rows that fill no vec4, and rows side by side in memory.
  it.each([
    [64, -1],
    [63, -1],
    [68, -1],
    [1028, -1],
    [70, 0],
  ])(
    "of %d along axis %d are NaN, and their neighbours what they are alone",
    async (width, axis) => {
      const device = await testDevice();
      const spoilt: readonly Readonly<Record<number, number>>[] = [
        {},
        { 0: Number.NaN },
        { [width - 1]: Number.NaN },
        { 5: Number.POSITIVE_INFINITY },
        {},
        { 1: NONE, [width - 2]: Number.NaN },
        { 0: Number.POSITIVE_INFINITY, 2: NONE },
        { 3: NONE },
      ];
      const rows = spoilt.map((set, row) => {
        return Array.from(normal(row, width), (value, d) => set[d] ?? value);
      });
      for (const log of [false, true]) {
        const operation = log ? logSoftmax : softmax;
        const resultOf = async (some: readonly number[][]) => {
          const shape = axis === 0 ? [width, some.length] : [some.length, width];
          const at = (i: number) =>
            axis === 0 ? some[i % some.length][Math.floor(i / some.length)] : some.flat()[i];
          const x = tensor(device, shape, {
            data: Array.from({ length: width * some.length }, (_, i) => at(i)),
          });
          const { output } = await operation(x, { axis });
          const values = [...(await output.read())];
          x.destroy();
          output.destroy();
          return some.map((_, row) =>
            Array.from(
              { length: width },
              (_, d) => values[axis === 0 ? d * some.length + row : row * width + d],
            ),
          );
        };
        const found = await resultOf(rows);
        const clean = [0, 4, 7];
        const alone = await resultOf(clean.map((row) => rows[row]));
        expect(clean.map((row) => found[row])).toEqual(alone);
        for (const [row, values] of rows.entries()) {
          const expected = reference({ data: values, shape: [width] }, { log });
          expect(found[row].every(Number.isNaN), `row ${row}`).toBe(!clean.includes(row));
          expect(Array.from(expected).every(Number.isNaN), `reference of row ${row}`).toBe(
            !clean.includes(row),
          );
        }
      }
    },
  );
});

describe("plans of softmax", () => {
  it("cover more rows than a dimension of a grid has workgroups", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { shape: [700, 64] });
  });
  it("run on other memory", async () => {
    const device = await testDevice();
    const plan = await planSoftmax(device, { x: { shape: [1, 4] } });
    const x = tensor(device, [1, 4], { data: [1, 1, 1, 1] });
    const output = tensor(device, [1, 4]);
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { x, output });
    device.queue.submit([encoder.finish()]);
    expect([...(await output.read())]).toEqual([0.25, 0.25, 0.25, 0.25]);
    plan.destroy();
  });
  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3]);
    await expectError(
      () => softmax(x, { axis: 2 }),
      "argument",
      "softmax: axis must be a whole number from -2 up to 1 for [2, 3], got 2.",
    );
    await expectError(
      () => logSoftmax(x, { output: tensor(device, [3, 2]) }),
      "argument",
      "logSoftmax: output must be [2, 3] like x, got [3, 2].",
    );
  });
});
