// The matmul kernel against the float64 reference.

import { describe, expect, it } from "vitest";
import { planProjection, project, type Tensor, tensor } from "../../src/index.ts";
import { chooseMatmulTile } from "../../src/kernels/matmul.ts";
import { project as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

interface Product {
  /** Axes of x before K. */
  readonly rows: readonly number[];
  readonly K: number;
  readonly N: number;
  readonly dtypes?: readonly [x: Float, weight: Float, bias: Float, y: Float];
  /** Axes of the weight before its last two. */
  readonly each?: readonly number[];
  /** Whether the weight is stored [K, N]. */
  readonly columns?: boolean;
  readonly bias?: boolean;
  /** Elements between rows of x and of y that belong to nobody, NaN in x. */
  readonly gap?: number;
  readonly variant?: string;
  readonly maxDispatchFlops?: number;
}

let seed = 100;

/** Runs a product into a poisoned output and compares. */
async function run(problem: Product): Promise<void> {
  const device = await testDevice();
  const {
    rows,
    K,
    N,
    each = [],
    columns = false,
    bias = true,
    gap = 0,
    variant,
    maxDispatchFlops,
  } = problem;
  const dtypes = problem.dtypes ?? ["f32", "f32", "f32", "f32"];
  const used: Tensor[] = [];
  const make = (what: number, shape: readonly number[]) => {
    const data = normal(seed++, product(shape)).map(ROUND[dtypes[what]]);
    const wide = [...shape.slice(0, -1), shape[shape.length - 1] + (what === 0 ? gap : 0)];
    const width = wide[wide.length - 1];
    const padded = new Float32Array(product(wide)).fill(Number.NaN);
    for (let i = 0; i < data.length; i++) {
      const row = Math.floor(i / shape[shape.length - 1]);
      padded[row * width + (i % shape[shape.length - 1])] = data[i];
    }
    const whole = tensor(device, wide, { data: padded, dtype: dtypes[what] });
    used.push(whole);
    return { data, shape, gpu: whole.slice(wide.length - 1, 0, shape[shape.length - 1]) };
  };
  const x = make(0, [...rows, K]);
  const stored = make(1, [...each, ...(columns ? [K, N] : [N, K])]);
  const turned = () => {
    const { shape, strides } = stored.gpu.permute(...each.keys(), each.length + 1, each.length);
    return { ...stored, shape, strides, gpu: stored.gpu.view({ shape, strides }) };
  };
  const weight = columns ? turned() : stored;
  const b = bias ? make(2, [N]) : undefined;
  const poison = new Float32Array(product(rows) * (N + gap)).fill(Number.NaN);
  const wide = tensor(device, [...rows, N + gap], { data: poison, dtype: dtypes[3] });
  used.push(wide);
  try {
    const output = wide.slice(rows.length, 0, N);
    const options = {
      ...(b && { bias: b.gpu }),
      ...(variant && { variant }),
      ...(maxDispatchFlops && { maxDispatchFlops }),
    };
    await project(x.gpu, weight.gpu, { ...options, output });
    const f64 = reference(x, weight, b);
    const plain = reference(x, weight, b, { precision: "f32" }).map(ROUND[dtypes[3]]);
    expectClose(
      JSON.stringify(problem),
      await output.read(),
      { f64, plain },
      [...rows, N],
      dtypes[3],
    );
    const written = await wide.read();
    for (let i = 0; gap && i < written.length; i++) {
      if (i % (N + gap) >= N) expect(written[i], "an element between rows").toBeNaN();
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

describe("y = x W^T + b", () => {
  it.each([1, 3, 4, 15, 16, 17, 37, 64, 100])("sums over K = %d elements", (K) =>
    run({ rows: [5], K, N: 8 }),
  );
  it("is the bias if there is nothing to sum", () => run({ rows: [2, 3], K: 0, N: 8 }));
  it.each([
    [[1], 4],
    [[31], 32],
    [[32], 36],
    [[33], 28],
    [[67], 100],
  ])("of %j rows and %d columns", (rows, N) => run({ rows, K: 20, N }));
  it.each([[[2, 3]], [[3, 1, 5]], [[2, 3, 40]], [[7]]])("with the axes %j before K", (rows) =>
    run({ rows, K: 24, N: 12 }),
  );
  it("without a bias", () => run({ rows: [5], K: 20, N: 12, bias: false }));
  it("with a weight that is stored [in, out]", () =>
    run({ rows: [2, 35], K: 37, N: 68, columns: true }));
  it("with a weight for each batch entry and head", async () => {
    await run({ rows: [2, 3, 40], each: [2, 3], K: 37, N: 12 });
    await run({ rows: [2, 3, 5], each: [1, 3], K: 37, N: 12, bias: false, columns: true });
    await run({ rows: [3, 40], each: [3], K: 0, N: 12 });
  });
  it("between rows that belong to nobody", async () => {
    await run({ rows: [3, 6], K: 20, N: 12, gap: 4 });
    await run({ rows: [3, 6], K: 21, N: 12, gap: 4 }); // there is NaN right behind the end of K
  });
  it("with rows of y whose length isn't a multiple of 4", () =>
    run({ rows: [9], K: 18, N: 7, gap: 2 }));
  it("cut into many dispatches", () => run({ rows: [70], K: 20, N: 68, maxDispatchFlops: 1 }));
  it.each(["8x32", "32x32", "64x64"])("in tiles of %s", async (variant) => {
    await run({ rows: [3, 67], K: 70, N: 132, variant });
  });
  it.each([1, 15, 16, 37])("in tiles, over K = %d elements, with NaN behind them", (K) =>
    run({ rows: [2, 35], K, N: 36, gap: 1, variant: "32x32" }),
  );
});

describe("storage", () => {
  it.each([[["f16", "f16", "f16", "f16"]], [["f32", "bf16", "f16", "bf16"]]] as const)(
    "in %j",
    async (dtypes) => {
      await run({ rows: [2, 19], K: 36, N: 40, dtypes });
      await run({ rows: [2, 19], K: 35, N: 40, dtypes, gap: 1 });
    },
  );
});

describe("heads", () => {
  it("are taken apart and joined by strides alone", async () => {
    const device = await testDevice();
    const B = 2;
    const H = 3;
    const M = 10;
    const D = 8;
    const N = 12;
    const heads = normal(1, B * H * M * D);
    const w = normal(2, N * H * D);
    const x = tensor(device, [B, M, H, D], { data: heads });
    const weight = tensor(device, [N, H * D], { data: w });
    const joined = x.view({ shape: [B, M, H * D] });
    const { output } = await project(joined, weight);
    const X = { data: heads, shape: [B, M, H * D] };
    const W = { data: w, shape: [N, H * D] };
    const plain = reference(X, W, undefined, { precision: "f32" });
    expectClose("y", await output.read(), { f64: reference(X, W), plain }, [B, M, N]);
    for (const used of [x, weight, output]) used.destroy();
  });
});

describe("what a device gets", () => {
  const chosen = (software: boolean, subgroups: boolean) =>
    [1, 100, 5000].map((rows) => chooseMatmulTile(rows, 512, { software, subgroups }).name);
  it("is quads on software adapters with subgroups, and tiles elsewhere", () => {
    expect(chosen(true, true)).toEqual(["32x16-quad", "32x16-quad", "32x16-quad"]);
    expect(chosen(true, false)).toEqual(["32x32", "32x32", "32x32"]);
    expect(chosen(false, true)).toEqual(["8x32", "32x32", "64x64"]);
  });
  it("is a refusal if a variant can't run", async () => {
    const without = overridden(await testDevice(), { features: new Set() });
    await expectError(
      () =>
        planProjection(without, {
          x: { shape: [2, 8] },
          weight: { shape: [8, 8] },
          variant: "32x16-quad",
        }),
      "limit",
      "variant 32x16-quad needs the feature subgroups, which the device does not have; take another.",
    );
  });
});

describe("a plan", () => {
  it("runs as often as it is encoded, with other tensors, and gives the same bits", async () => {
    const device = await testDevice();
    const x = tensor(device, [33, 20], { data: normal(3, 660) });
    const weight = tensor(device, [12, 20], { data: normal(4, 240) });
    const outputs = [0, 1].map(() => tensor(device, [33, 12]));
    const plan = await planProjection(device, { x, weight });
    expect(plan.kernel).toBe("matmul 32x16-quad");
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass, { output: outputs[0] });
    plan.encode(pass, { output: outputs[1] });
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(await outputs[0].read()).toEqual(await outputs[1].read());
    await expectError(
      () => plan.encode(device.createCommandEncoder(), {}),
      "argument",
      "project: output is missing: the plan was made without a tensor for it.",
    );
    await expectError(
      () => plan.encode(device.createCommandEncoder(), { x: outputs[0], output: outputs[1] }),
      "argument",
      "project: x is f32 [33,12]; the plan was made for f32 [33,20].",
    );
    plan.destroy();
    for (const used of [x, weight, ...outputs]) used.destroy();
  });

  it("refuses what does not go together", async () => {
    const device = await testDevice();
    const x = { shape: [2, 5, 8] };
    const weight = { shape: [12, 8] };
    const refuse = (problem: object, message: string) =>
      expectError(() => planProjection(device, { x, weight, ...problem }), "argument", message);
    await refuse(
      { weight: { shape: [8, 12] } },
      "project: weight must be [out, in] with in = 8 for x [2, 5, 8], got [8, 12]. One that is stored [in, out] is given as permute(1, 0).",
    );
    await refuse(
      { weight: { shape: [5, 12, 8] } },
      "project: a weight for each batch entry or head has the axes of x [2, 5, 8], or 1, before [out, in]; got [5, 12, 8].",
    );
    await refuse(
      { bias: { shape: [8] } },
      "project: bias must be [12] for weight [12, 8], got [8].",
    );
    await refuse(
      { output: { shape: [10, 12] } },
      "project: output must be [2, 5, 12] for x [2, 5, 8] and weight [12, 8], got [10, 12].",
    );
    await refuse(
      { x: { shape: [1, 1, 1, 1, 8] } },
      "project: x must have one to four axes, [..., K], got [1, 1, 1, 1, 8].",
    );
    await refuse(
      { x: { shape: [8], dtype: "u8" } },
      "project: x must be f32, f16 or bf16, got u8.",
    );
    await refuse(
      { variant: "9x9" },
      "no variant 9x9 of the matmul kernel; there are 32x16-quad, 8x32, 32x32, 64x64.",
    );
    await refuse(
      { maxDispatchFlops: 0 },
      "project: maxDispatchFlops must be a positive number, got 0.",
    );
    await expectError(
      () =>
        planProjection(device, { x, weight, output: { shape: [2, 5, 12], strides: [0, 12, 1] } }),
      "overlap",
      "project: elements of output share memory (shape [2,5,12], strides [0,12,1]); an output needs a place for each.",
    );
    await expectError(
      () => project(undefined as never, undefined as never),
      "argument",
      "project: x must be a Tensor; make one with tensor().",
    );
  });
});
