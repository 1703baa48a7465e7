// Normalised rows at the ends of f32: large means, huge and tiny numbers, zeros, NaN and
// infinities, each row compared by itself with float64, and its neighbours in a workgroup with what
// they give alone.

import { describe, expect, it } from "vitest";
import { type LayerNormOptions, layerNorm, rmsNorm, tensor } from "../../src/index.ts";
import { layerNorm as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

type Rows = Readonly<Record<string, readonly number[]>>;
const WIDTHS = [64, 768, 4096]; // 4, 32 and 256 lanes a row
const LARGEST = 3.4028234663852886e38;
const list = (length: number, element: (index: number) => number) =>
  Array.from({ length }, (_, i) => element(i));
const equal = (width: number, value: number) => new Array<number>(width).fill(value);

interface Options extends Pick<LayerNormOptions, "epsilon"> {
  readonly rms?: boolean;
  readonly residual?: Rows;
}

/**
 * Runs all rows in one call, with poison where results go, and returns the rows of the results by
 * name.
 */
async function run(rows: Rows, { rms = false, epsilon = 1e-5, residual }: Options) {
  const device = await testDevice();
  const names = Object.keys(rows);
  const width = rows[names[0]].length;
  const shape = [names.length, width];
  const put = (of: Rows) => tensor(device, shape, { data: names.flatMap((name) => of[name]) });
  const output = tensor(device, shape, { data: equal(names.length * width, Number.NaN) });
  const options = {
    output,
    epsilon,
    statistics: true,
    ...(residual && { residual: put(residual), sum: true }),
  };
  const x = put(rows);
  const result = await (rms ? rmsNorm : layerNorm)(x, options);
  const [values, means, inverses, sums] = await Promise.all([
    output.read(),
    result.mean?.read(),
    result.inverseDeviation?.read(),
    result.sum?.read(),
  ]);
  for (const one of [x, options.residual, result.sum, result.statistics, output]) one?.destroy();
  const found = names.map((name, row) => {
    const from = row * width;
    const to = (row + 1) * width;
    const statistics = { mean: means?.[row] ?? 0, inverseDeviation: inverses?.[row] as number };
    return [
      name,
      { output: values.slice(from, to), sum: sums?.slice(from, to), ...statistics },
    ] as const;
  });
  return Object.fromEntries(found);
}

/** Computes the float64 result of a row, whose numbers are f32. */
function float64(
  row: readonly number[],
  { rms = false, epsilon = 1e-5 }: Options,
  residual?: readonly number[],
) {
  const as32 = (data: readonly number[]) => ({
    data: Float32Array.from(data),
    shape: [data.length],
  });
  const added = residual && { residual: as32(residual) };
  return reference(as32(row), { rms, epsilon: Math.fround(epsilon), ...added });
}

async function expectRows(rows: Rows, options: Options): Promise<void> {
  const found = await run(rows, options);
  for (const [name, row] of Object.entries(rows)) {
    const expected = float64(row, options, options.residual?.[name]);
    // The plain evaluation in f32 overflows, so float64's result rounded to f32 takes its place.
    const both = { f64: expected.output, plain: expected.output.map(Math.fround) };
    expectClose(`${name}, epsilon ${options.epsilon}`, found[name].output, both, [row.length]);
    const magnitude = Math.max(...row.map(Math.abs));
    if (magnitude < 1e38) {
      expect(Math.abs(found[name].mean - expected.mean[0]), `mean of ${name}`).toBeLessThanOrEqual(
        3e-7 * magnitude,
      );
    }
    const inverse = expected.inverseDeviation[0];
    const off = Math.abs(found[name].inverseDeviation / inverse - 1);
    // WGSL may take subnormal numbers for 0, and numbers beyond f32 are infinite.
    if (inverse > 1.2e-38 && inverse < LARGEST)
      expect(off, `inverse of ${name}`).toBeLessThan(2e-6);
  }
}

describe.each(WIDTHS)("rows of %d", (width) => {
  const noise = normal(5, width);
  const scaled = (scale: number) =>
    list(width, (i) => Math.max(-LARGEST, Math.min(LARGEST, noise[i] * scale)));

  it("are normalised wherever their mean lies", async () => {
    const rows: Rows = {
      "1000 + i / 1000": list(width, (i) => 1000 + i / 1000),
      "10000 + i / 1000": list(width, (i) => 10000 + i / 1000),
      "8e6 + 0 .. 3": list(width, (i) => 8e6 + (i % 4)),
      "4e7 + 0, 4, 8, 12": list(width, (i) => 4e7 + 4 * (i % 4)),
      "all but the first equal": list(width, (i) => 1e7 + Number(i === 0)),
      "all but the last equal": list(width, (i) => 1e7 + Number(i === width - 1)),
      "1e6 among small ones": list(width, (i) => (i ? noise[i] : 1e6)),
      "far from 0": list(width, (i) => noise[i] - 3e5),
    };
    for (const epsilon of [1e-5, 1e-12]) await expectRows(rows, { epsilon });
  });
  it("of equal numbers are exactly 0", async () => {
    const values = [1000.1, 5.1, -3.3e7, 1 / 3, 3.3e38, LARGEST, -1.7e-20, 1.2e-38, 0];
    const rows = Object.fromEntries(values.map((value) => [String(value), equal(width, value)]));
    for (const epsilon of [1e-5, 1e-12, 0]) {
      const found = await run(
        { ...rows, "one that its workgroup reads twice": scaled(1e30) },
        { epsilon },
      );
      for (const value of values) {
        const { output, mean, inverseDeviation } = found[String(value)];
        expect(new Set(output), `${value}`).toEqual(new Set([0]));
        expect(mean).toBe(Math.fround(value));
        if (epsilon === 0) expect(inverseDeviation).toBe(Number.POSITIVE_INFINITY);
        else expect(inverseDeviation * Math.sqrt(epsilon)).toBeCloseTo(1, 6);
      }
    }
  });
  it.each([false, true])("are normalised at any magnitude, by the mean square %s", async (rms) => {
    const large = [1e15, 1e18, 1e19, 1e25, 1e30, 1e37, 1e38];
    const small = [1e-10, 1e-19, 1e-20, 1e-25, 1e-30];
    const rows: Rows = {
      ...Object.fromEntries([...large, ...small].map((scale) => [`${scale}`, scaled(scale)])),
      "near 1e30": list(width, (i) => 1e30 * (1 + noise[i] / 1000)),
      "the largest, of both signs": list(width, (i) => (i % 3 ? LARGEST : -LARGEST)),
      "huge, tiny and 0": list(width, (i) => [1e30, 1e-30, 1, -1e20, 5e29, 0, 1e-38, 7][i % 8]),
      "1e30 among small ones": list(width, (i) => (i < width - 1 ? noise[i] : 1e30)),
      "tiny and 0": list(width, (i) => [1e-20, 1e-30, 3e-20, 0][i % 4]),
      zeros: equal(width, 0),
    };
    for (const epsilon of [0, 1e-5, 1e-36]) await expectRows(rows, { epsilon, rms });
    expect(new Set((await run(rows, { epsilon: 0, rms })).zeros.output)).toEqual(new Set([0]));
  });
  it.each([false, true])(
    "with NaN and infinities are as in float64, others as without, by the mean square %s",
    async (rms) => {
      const clean = { first: scaled(1), middle: scaled(2), last: scaled(3) };
      const spoilt = (set: Readonly<Record<number, number>>) =>
        list(width, (i) => set[i] ?? noise[i]);
      const rows: Rows = {
        first: clean.first,
        "NaN first": spoilt({ 0: Number.NaN }),
        "NaN last": spoilt({ [width - 1]: Number.NaN }),
        middle: clean.middle,
        infinite: spoilt({ 5: Number.POSITIVE_INFINITY }),
        "infinite below": spoilt({ [width - 2]: Number.NEGATIVE_INFINITY }),
        "of both signs": spoilt({ 0: Number.NEGATIVE_INFINITY, 9: Number.POSITIVE_INFINITY }),
        last: clean.last,
      };
      const found = await run(rows, { rms });
      const alone = await run(clean, { rms });
      for (const name of Object.keys(clean)) expect(found[name], name).toEqual(alone[name]);
      for (const name of Object.keys(rows).filter((name) => !(name in clean))) {
        const { output } = float64(rows[name], { rms });
        const unsigned = (values: ArrayLike<number>) => Array.from(values, (value) => value + 0);
        expect(unsigned(found[name].output), name).toEqual(unsigned(output));
      }
    },
  );
});

describe("sums that f32 has no room for", () => {
  it.each([false, true])("are normalised all the same, by the mean square %s", async (rms) => {
    const rows: Rows = {
      beyond: list(64, (i) => 3e38 - i * 1e36),
      within: Array.from(normal(1, 64)),
    };
    const residual: Rows = {
      beyond: list(64, (i) => (i % 4 ? 3e38 : -1e38)),
      within: Array.from(normal(2, 64)),
    };
    await expectRows(rows, { rms, residual });
    const { sum } = (await run(rows, { rms, residual })).beyond;
    const added = rows.beyond.map((x, i) =>
      Math.fround(Math.fround(x) + Math.fround(residual.beyond[i])),
    );
    expect(added).toContain(Number.POSITIVE_INFINITY);
    expect([...(sum as Float32Array)]).toEqual(added);
  });
});

it("rows of one element are 0, or 1 by the mean square", async () => {
  for (const value of [3.7, 3e38, 1.5e-38, -2e-20]) {
    const rows = { one: [value] };
    for (const epsilon of [0, 1e-5]) await expectRows(rows, { epsilon, rms: true });
    expect((await run(rows, { epsilon: 0, rms: true })).one.output[0]).toBeCloseTo(
      Math.sign(value),
      6,
    );
    expect((await run(rows, { epsilon: 0 })).one.output[0]).toBe(0);
  }
});
