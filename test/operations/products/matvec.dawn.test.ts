// Products of few rows, and of weights of integers, against float64.

import { describe, expect, it } from "vitest";
import { embedding, planProjection, project, type Tensor, tensor } from "../../../src/index.ts";
import { chooseMatvec } from "../../../src/kernels/products/matvec.ts";
import { planQuantise, quantiseInto } from "../../../src/operations/products/quantise.ts";
import { groupSizeFor } from "../../../src/operations/products/weight_integers.ts";
import {
  dequantiseRow,
  quantisedWords,
  quantiseRow,
  project as reference,
} from "../../../src/reference/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { type Float, product, ROUND } from "../../support/cases.ts";
import { expectClose } from "../../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";

failOnGpuErrors();

interface Few {
  /** Axes of x before K. */
  readonly rows: readonly number[];
  readonly K: number;
  readonly N: number;
  readonly variant?: string;
  readonly dtypes?: readonly [x: Float, weight: Float, y: Float];
  /** Whether the weight is stored [K, N]. */
  readonly columns?: boolean;
  /** Axes of the weight before its last two. */
  readonly each?: readonly number[];
  readonly bias?: boolean;
  /** Elements between rows of x and of the weight, which are NaN. */
  readonly gap?: number;
  readonly quantised?: { readonly dtype: "int8" | "int4"; readonly groupSize: number };
}

let seed = 500;

const bitsOf = (dtype: "int8" | "int4") => (dtype === "int8" ? 8 : 4);

/** The rows of a weight as words, and the numbers that these stand for. */
function integersOf(
  data: Float32Array,
  K: number,
  { dtype, groupSize }: Required<Few>["quantised"],
) {
  const options = { bits: bitsOf(dtype), group: groupSize } as const;
  const rows = Array.from({ length: data.length / K }, (_, n) => data.subarray(n * K, n * K + K));
  return {
    words: rows.flatMap((row) => Array.from(quantisedWords(row, options))),
    numbers: Float64Array.from(
      rows.flatMap((row) => Array.from(dequantiseRow(quantiseRow(row, options), options))),
    ),
  };
}

/** Runs a product into a poisoned output and compares. Gives the kernel. */
async function run(problem: Few): Promise<string> {
  const device = await testDevice();
  const { rows, K, N, variant, columns = false, each = [], bias = true, gap = 0 } = problem;
  const { dtypes = ["f32", "f32", "f32"], quantised } = problem;
  const used: Tensor[] = [];
  const store = (data: ArrayLike<number>, shape: readonly number[], dtype: Float) => {
    const width = shape[shape.length - 1];
    const wide = new Float32Array((data.length / width) * (width + gap)).fill(Number.NaN);
    for (let i = 0; i < data.length; i++)
      wide[Math.floor(i / width) * (width + gap) + (i % width)] = data[i];
    const whole = tensor(device, [...shape.slice(0, -1), width + gap], { data: wide, dtype });
    used.push(whole);
    return whole.slice(shape.length - 1, 0, width);
  };
  const x = normal(seed++, product(rows) * K).map(ROUND[dtypes[0]]);
  const w = normal(seed++, product(each) * N * K).map(ROUND[dtypes[1]]);
  const b = normal(seed++, N);
  const integers = quantised && integersOf(w, K, quantised);
  const turned = (data: Float32Array) => {
    const out = new Float32Array(data.length);
    for (let i = 0; i < data.length; i++) {
      const entry = Math.floor(i / (N * K)) * N * K;
      const n = Math.floor((i - entry) / K);
      const k = i % K;
      out[entry + k * N + n] = data[i];
    }
    return out;
  };
  const axes = [...each.keys(), each.length + 1, each.length];
  const weight = integers
    ? tensor(device, [...each, N, integers.words.length / (product(each) * N)], {
        data: integers.words,
        dtype: "u32",
      })
    : columns
      ? store(turned(w), [...each, K, N], dtypes[1]).permute(...axes)
      : store(w, [...each, N, K], dtypes[1]);
  if (integers) used.push(weight);
  const biasTensor = tensor(device, [N], { data: b });
  const poison = new Float32Array(product(rows) * N).fill(Number.NaN);
  const output = tensor(device, [...rows, N], { data: poison, dtype: dtypes[2] });
  used.push(biasTensor, output);
  const plan = await planProjection(device, {
    x: store(x, [...rows, K], dtypes[0]),
    weight,
    output,
    ...(bias && { bias: biasTensor }),
    ...(variant && { variant }),
    ...(quantised && { quantised }),
  });
  try {
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    const X = { data: x, shape: [...rows, K] };
    const W = { data: integers?.numbers ?? w, shape: [...each, N, K] };
    const B = bias ? { data: b, shape: [N] } : undefined;
    const plain = reference(X, W, B, { precision: "f32" }).map(ROUND[dtypes[2]]);
    const expected = { f64: reference(X, W, B), plain };
    const what = JSON.stringify(problem);
    expectClose(what, await output.read(), expected, [...rows, N], dtypes[2]);
    return plan.kernel;
  } finally {
    plan.destroy();
    for (const one of used) one.destroy();
  }
}

describe.each(["matvec-4", "matvec-16"])("a product of few rows, %s", (variant) => {
  it("of one row and of eight, over any K and N", async () => {
    for (const [K, N] of [
      [1, 1],
      [64, 33],
      [132, 8],
      [260, 21],
    ])
      await run({ rows: [1], K, N, variant });
    await run({ rows: [1], K: 37, N: 17, variant });
    await run({ rows: [8], K: 68, N: 18, variant });
    await run({ rows: [11], K: 68, N: 18, variant }); // more than a workgroup holds
  });
  it("is the bias if there is nothing to sum", async () => {
    await run({ rows: [1], K: 0, N: 6, variant });
  });
  it("of 16 bits, with NaN behind the ends of rows", async () => {
    await run({ rows: [1], K: 36, N: 8, dtypes: ["f32", "f16", "f32"], variant });
    await run({ rows: [2], K: 35, N: 7, dtypes: ["f16", "bf16", "bf16"], gap: 1, variant });
  });
  it("with a weight that is stored [in, out]", async () => {
    await run({ rows: [1], K: 70, N: 36, columns: true, variant });
    await run({ rows: [3], K: 37, N: 19, columns: true, gap: 1, variant });
  });
  it("with a weight for each batch entry and head", async () => {
    await run({ rows: [2, 3, 1], each: [2, 3], K: 36, N: 12, bias: false, variant });
    await run({ rows: [2, 3, 1], each: [1, 3], K: 36, N: 12, columns: true, variant });
  });
  it.each([
    ["int8", 32, 96],
    ["int8", 24, 72],
    ["int8", 128, 256],
    ["int4", 32, 160],
    ["int4", 8, 40],
    ["int4", 40, 80],
  ] as const)("with a weight of %s, a scale for each %d of %d", async (dtype, groupSize, K) => {
    await run({ rows: [1], K, N: 13, quantised: { dtype, groupSize }, variant });
  });
  it("with integers for five rows, and for each head", async () => {
    const quantised = { dtype: "int4", groupSize: 16 } as const;
    await run({ rows: [5], K: 48, N: 9, quantised, variant });
    await run({ rows: [3, 2], each: [3], K: 48, N: 9, quantised, variant });
  });
  it("keeps what a NaN and an infinity in x mean, in their own rows", async () => {
    const device = await testDevice();
    const data = normal(7, 3 * 16);
    data[5] = Number.NaN;
    data[16 + 3] = Number.POSITIVE_INFINITY;
    const x = tensor(device, [3, 16], { data });
    const w = normal(8, 6 * 16);
    const { words, numbers } = integersOf(w, 16, { dtype: "int8", groupSize: 16 });
    const weights = [
      { numbers: w, gpu: tensor(device, [6, 16], { data: w }), options: {} },
      {
        numbers,
        gpu: tensor(device, [6, 5], { data: words, dtype: "u32" }),
        options: { quantised: { dtype: "int8", groupSize: 16 } as const },
      },
    ];
    for (const { numbers: of, gpu, options } of weights) {
      const { output } = await project(x, gpu, { variant, ...options });
      const y = await output.read();
      for (let n = 0; n < 6; n++) {
        expect(y[n]).toBeNaN();
        expect(y[6 + n]).toBe(Number.POSITIVE_INFINITY * Math.sign(of[n * 16 + 3]));
        expect(Number.isFinite(y[12 + n])).toBe(true);
      }
      output.destroy();
      gpu.destroy();
    }
    x.destroy();
  });
});

describe("what a device gets", () => {
  const chosen = (rows: number, inner: number, software: boolean) =>
    chooseMatvec({ rows, inner, columnsAdjacent: false }, { software })?.rows;
  it("is the kernel for few rows up to eight of them, if k is long enough", () => {
    expect([1, 2, 3, 8, 9].map((rows) => chosen(rows, 256, true))).toEqual([1, 2, 4, 8, undefined]);
    expect([1, 4, 5].map((rows) => chosen(rows, 64, true))).toEqual([1, 4, undefined]);
    expect([1, 5, 9].map((rows) => chosen(rows, 64, false))).toEqual([1, 8, undefined]);
  });
  it("reads integers in tiles for many rows", async () => {
    const quantised = { dtype: "int8", groupSize: 24 } as const;
    expect(await run({ rows: [40], K: 72, N: 10, quantised })).toMatch(/^matmul/);
    const half = { dtype: "int4", groupSize: 8 } as const;
    await run({ rows: [9], K: 24, N: 10, quantised: half, variant: "32x32" });
    expect(await run({ rows: [2, 1], K: 16, N: 4 })).toBe("matvec 2x8");
  });
});

describe("quantisation", () => {
  it.each([
    ["int8", 16, "f32"],
    ["int4", 24, "f16"],
    ["int4", 8, "bf16"],
  ] as const)("into %s with %d to a scale, of %s, gives the reference's bits", async (...given) => {
    const [dtype, groupSize, float] = given;
    const device = await testDevice();
    const K = 48;
    const data = normal(3, 5 * K).map(ROUND[float]);
    data.fill(0, 0, groupSize);
    data[K] = Number.NaN;
    data[2 * K + 1] = Number.POSITIVE_INFINITY;
    const turned = Float32Array.from(
      { length: 5 * K },
      (_, i) => data[(i % 5) * K + Math.floor(i / 5)],
    );
    const weight = tensor(device, [K, 5], { data: turned, dtype: float });
    const expected = integersOf(data, K, { dtype, groupSize }).words;
    const words = tensor(device, [5, expected.length / 5], {
      dtype: "u32",
      data: expected.map(() => 7),
    });
    await quantiseInto(weight.permute(1, 0), words, { dtype, groupSize });
    expect(Array.from(await words.read())).toEqual(expected);
    const problem = { weight, dtype, groupSize: 32 };
    await expectError(
      () => planQuantise(device, problem),
      "argument",
      "quantise: quantised.groupSize must be a multiple of 8 that divides 5, got 32.",
    );
    weight.destroy();
    words.destroy();
  });
  it("finds groups that divide rows", () => {
    expect([256, 96, 172, 40].map((K) => groupSizeFor("int8", K))).toEqual([
      128,
      96,
      undefined,
      40,
    ]);
    expect([256, 96, 40].map((K) => groupSizeFor("int4", K))).toEqual([32, 32, 8]);
    expect(groupSizeFor("int4", 64, 20)).toBe(16);
  });
});

it("an embedding of integers gives rows of the numbers that they stand for", async () => {
  const device = await testDevice();
  for (const dtype of ["int8", "int4"] as const) {
    const quantised = { dtype, groupSize: 8 };
    const { words, numbers } = integersOf(normal(9, 7 * 40), 40, quantised);
    const table = tensor(device, [7, words.length / 7], { data: words, dtype: "u32" });
    const ids = tensor(device, [4], { data: [6, 0, 9, 3], dtype: "i32" });
    const { output } = await embedding(table, ids, { quantised, scale: 3 });
    const rows = await output.read();
    expect(output.shape).toEqual([4, 40]);
    for (let d = 0; d < 40; d++) {
      for (const [at, id] of [6, 0, undefined, 3].entries()) {
        const expected = id === undefined ? 0 : 3 * numbers[id * 40 + d];
        expect(Math.abs(rows[at * 40 + d] - expected)).toBeLessThanOrEqual(
          1e-6 * Math.abs(expected),
        );
      }
    }
    for (const one of [table, ids, output]) one.destroy();
  }
});

it("weights of integers that are none are refused", async () => {
  const device = await testDevice();
  const x = { shape: [1, 32] };
  const weight = { shape: [4, 9], dtype: "u32" } as const;
  const int8 = { dtype: "int8", groupSize: 32 } as const;
  const refuse = (problem: object, message: string | RegExp) =>
    expectError(
      () => planProjection(device, { x, weight, quantised: int8, ...problem }),
      "argument",
      message,
    );
  await refuse(
    { quantised: { dtype: "int5", groupSize: 8 } },
    /dtype must be "int8" or "int4", got int5|got "int5"/,
  );
  await refuse(
    { quantised: { dtype: "int8" } },
    /groupSize must be a multiple of 8 that divides 32/,
  );
  for (const groupSize of [0, -8, 12, 64, Number.NaN, 8.5])
    await refuse({ quantised: { dtype: "int8", groupSize } }, /multiple of 8 that divides 32, got/);
  await refuse({ quantised: { ...int8, group: 8 } }, /group/);
  await refuse({ quantised: 8 }, /quantised must be \{ dtype, groupSize \}, got 8/);
  await refuse({ weight: { shape: [4, 32] } }, /weight must be u32, got f32/);
  await refuse({ weight: { shape: [4, 8], dtype: "u32" } }, /weight must be \[out, 9\]/);
  await refuse(
    { weight: { shape: [4, 9], strides: [1, 4], dtype: "u32" } },
    /words of a row of weight must lie side by side/,
  );
  await expectError(
    () =>
      embedding(tensor(device, [4, 8], { dtype: "u32" }), tensor(device, [1], { dtype: "i32" }), {
        quantised: int8,
      }),
    "argument",
    /no row has 8 words of int8 with a scale for each 32/,
  );
});
