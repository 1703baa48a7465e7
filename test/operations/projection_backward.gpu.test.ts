// The gradients of projections against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type ProjectionGradient,
  planProjectionBackward,
  projectionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { resolveProjectionBackward } from "../../src/operations/projection_backward_problem.ts";
import { projectBackward as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { breadth } from "../support/breadth.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const GRADIENTS = ["dX", "dWeight", "dBias"] as const;

interface Gradients {
  /** Axes of x before K. */
  readonly rows: readonly number[];
  readonly K: number;
  readonly N: number;
  readonly gradients?: readonly ProjectionGradient[];
  readonly dtypes?: readonly [x: Float, weight: Float, dOutput: Float];
  /** Axes of the weight before its last two. */
  readonly each?: readonly number[];
  /** Whether the weight and its gradient are stored [K, N]. */
  readonly columns?: boolean;
  /** Elements between rows of x and of dOutput that belong to nobody, NaN in both. */
  readonly gap?: number;
  /** An order of the axes of x and dOutput in memory. Default: in order. */
  readonly order?: readonly number[];
  /** Factor of dOutput, and of x. */
  readonly size?: number;
  readonly variant?: string;
  readonly maxDispatchFlops?: number;
}

let seed = 500;

/** Runs a problem into poisoned outputs and compares each gradient. */
async function run(problem: Gradients): Promise<void> {
  const device = await testDevice();
  const { rows, K, N, gradients = GRADIENTS, each = [], columns = false, gap = 0 } = problem;
  const { size = 1, variant, maxDispatchFlops } = problem;
  const [xType, weightType, dType] = problem.dtypes ?? ["f32", "f32", "f32"];
  const used: Tensor[] = [];
  const make = (shape: readonly number[], dtype: Float, factor: number) => {
    const data = normal(seed++, product(shape), factor).map(ROUND[dtype]);
    return { data, shape, dtype };
  };
  /** A tensor with gaps between its rows, of which every element that nobody has is NaN. */
  const put = async (
    { data, shape, dtype }: ReturnType<typeof make>,
    order: readonly number[] = [...shape.keys()],
  ) => {
    const inMemory = order.map((axis) => shape[axis]);
    const width = inMemory[inMemory.length - 1];
    const wide = tensor(device, [...inMemory.slice(0, -1), width + gap], { dtype });
    used.push(wide);
    await wide.write(new Float32Array(wide.size).fill(Number.NaN));
    const view = wide
      .slice(shape.length - 1, 0, width)
      .permute(...shape.map((_, axis) => order.indexOf(axis)));
    if (data.length) await view.write(data);
    return view;
  };
  /** A matrix, or one for each entry, that is stored the other way round if asked. */
  const stored = async ({ data, shape, dtype }: ReturnType<typeof make>) => {
    const axes = [...each.keys(), each.length + 1, each.length];
    const inMemory = columns ? axes.map((axis) => shape[axis]) : shape;
    const whole = tensor(device, inMemory, { dtype });
    used.push(whole);
    const view = columns ? whole.permute(...axes) : whole;
    if (data.length) await view.write(data);
    return view;
  };
  const poisoned = ({ shape, dtype }: ReturnType<typeof make>) => {
    return { data: new Float32Array(product(shape)).fill(Number.NaN), shape, dtype };
  };
  const x = make([...rows, K], xType, size);
  const weight = make([...each, N, K], weightType, 1);
  const dOutput = make([...rows, N], dType, size);
  const bias = { data: new Float32Array(N).fill(Number.NaN), shape: [N], dtype: weightType };
  try {
    const dX = await put(poisoned(x));
    const into = {
      dX,
      dWeight: await stored(poisoned(weight)),
      dBias: await put(bias),
    };
    const asked = Object.fromEntries(gradients.map((name) => [name, into[name]]));
    const results = await projectionBackward(
      await put(x, problem.order),
      await stored(weight),
      await put(dOutput, problem.order),
      {
        ...asked,
        gradients,
        ...(variant && { variant }),
        ...(maxDispatchFlops && { maxDispatchFlops }),
      },
    );
    expect(Object.keys(results).sort()).toEqual([...gradients].sort());
    const f64 = reference(x, weight, dOutput.data);
    const plain = reference(x, weight, dOutput.data, { precision: "f32" });
    const shapes = { dX: x, dWeight: weight, dBias: bias };
    for (const name of gradients) {
      const { shape, dtype } = shapes[name];
      const right = { f64: f64[name], plain: plain[name].map(ROUND[dtype]) };
      const what = `${name} of ${JSON.stringify(problem)}`;
      expectClose(what, await results[name].read(), right, shape, dtype);
    }
    if (gap && gradients.includes("dX")) {
      const all = await (used.find(({ buffer }) => buffer === dX.buffer) as Tensor).read();
      for (let i = 0; i < all.length; i++) {
        if (i % (K + gap) >= K) expect(all[i], "an element between rows").toBeNaN();
      }
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

describe("gradients of y = x W^T + b", () => {
  it.each([
    [[1], 4, 8],
    [[2, 33], 37, 68],
    [[2, 3, 20], 16, 12],
  ])("of rows %j, K = %d and N = %d", (rows, K, N) => run({ rows, K, N }));
  it.each(["8x32", "32x32", ...breadth("64x64")])("in tiles of %s", async (variant) => {
    const gradients: ProjectionGradient[] = variant === "8x32" ? ["dX"] : ["dX", "dWeight"];
    await run({ rows: [2, 35], K: 68, N: 36, gradients, variant });
  });
  it("in tiles, with lengths that aren't multiples of 4 and NaN behind them", () =>
    run({ rows: [19], K: 37, N: 35, gap: 1, gradients: ["dX", "dWeight"], variant: "32x32" }));
  it("of a weight that is stored [in, out]", () =>
    run({ rows: [2, 21], K: 20, N: 12, columns: true }));
  it("of weights for batch entries and heads, summed where they are shared", async () => {
    await run({ rows: [2, 3, 20], each: [2, 3], K: 12, N: 8 });
    await run({ rows: [2, 3, 5], each: [1, 3], K: 12, N: 8, variant: "32x32" });
    await run({ rows: [2, 3, 5], each: [1, 1], K: 12, N: 8 });
    await run({ rows: [2, 3, 5], each: [2, 1], K: 12, N: 8 });
  });
  it("between rows that belong to nobody", () => run({ rows: [3, 6], K: 21, N: 13, gap: 3 }));
  it("of rows whose axes lie in another order in memory", async () => {
    await run({ rows: [3, 2, 18], K: 12, N: 8, order: [2, 0, 1, 3] });
    await run({ rows: [3, 2, 18], K: 12, N: 8, order: [2, 0, 1, 3], variant: "32x32" });
    await run({ rows: [19], K: 12, N: 8, order: [1, 0] });
  });
  it.each([1e-15, 1e15])("of numbers of %f", (size) => run({ rows: [40], K: 12, N: 8, size }));
  it.each(GRADIENTS)("without the others: %s", (name) =>
    run({ rows: [3, 6], K: 12, N: 8, gradients: [name] }),
  );
  it("cut into many dispatches", () => run({ rows: [70], K: 20, N: 36, maxDispatchFlops: 1 }));
});

describe("storage", () => {
  it("in f16", () => run({ rows: [2, 19], K: 36, N: 20, dtypes: ["f16", "f16", "f16"] }));
  it("in bf16, f16 and f32 at any strides", () =>
    run({ rows: [2, 19], K: 7, N: 5, dtypes: ["bf16", "f32", "f16"], gap: 1 }));
});

describe("sums over many rows", () => {
  it.each([undefined, "32x32"])("are cut into shares (variant %s)", async (variant) => {
    const gradients = ["dWeight", "dBias"] as const;
    await run({ rows: [1100], K: 12, N: 8, gradients, ...(variant && { variant }) });
    await run({ rows: [1100], K: 7, N: 5, gradients, ...(variant && { variant }) });
    await run({ rows: [3, 2, 180], K: 8, N: 8, gradients, ...(variant && { variant }) });
  });

  it("of weights for heads, summed where they are shared, over many rows", () =>
    run({ rows: [3, 2, 404], each: [1, 2], K: 6, N: 5, gradients: ["dWeight"] }));

  it.each([undefined, "32x32"])("keep their digits (variant %s)", async (variant) => {
    const device = await testDevice();
    // One share of all rows, and shares of more than one block of 512.
    const M = variant ? 33_000 : 16_500;
    const K = variant ? 256 : 128;
    const N = variant ? 4 : 128;
    // Sums of equal products, of which f32 rounds most partial sums beyond 8,192 up.
    const each = Math.fround(1 + 0.15 / 1024);
    const x = tensor(device, [M, K], { data: new Float32Array(M * K).fill(1) });
    const dOutput = tensor(device, [M, N], { data: new Float32Array(M * N).fill(each) });
    const weight = tensor(device, [N, K]);
    const { dWeight, dBias } = await projectionBackward(x, weight, dOutput, {
      gradients: ["dWeight", "dBias"],
      ...(variant && { variant }),
    });
    const right = M * each;
    for (const one of [dWeight, dBias]) {
      for (const value of await one.read())
        expect(Math.abs(value / right - 1)).toBeLessThan(2 ** -16);
    }
    for (const one of [x, dOutput, weight, dWeight, dBias]) one.destroy();
  });
});

describe("of nothing", () => {
  it.each([
    [[0], 8, 4],
    [[2, 0], 8, 4],
    [[3], 0, 4],
    [[3], 8, 0],
  ])("gradients of rows %j, K = %d and N = %d are 0, or nothing", async (rows, K, N) => {
    const device = await testDevice();
    const x = tensor(device, [...rows, K]);
    const weight = tensor(device, [N, K]);
    const dOutput = tensor(device, [...rows, N]);
    await dOutput.write(new Float32Array(dOutput.size).fill(1));
    const nan = (shape: readonly number[]) =>
      tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });
    const into = { dX: nan(x.shape), dWeight: nan(weight.shape), dBias: nan([N]) };
    await projectionBackward(x, weight, dOutput, into);
    expect([...(await into.dX.read())]).toEqual(new Array(product(rows) * K).fill(0));
    expect([...(await into.dWeight.read())]).toEqual(new Array(N * K).fill(0));
    expect([...(await into.dBias.read())]).toEqual(new Array(N).fill(product(rows)));
    for (const one of [x, weight, dOutput, ...Object.values(into)]) one.destroy();
  });
});

describe("a plan", () => {
  it("binds only what its gradients read, and gives the same bits each time", async () => {
    const device = await testDevice();
    const x = tensor(device, [1100, 12], { data: normal(3, 13200) });
    const weight = tensor(device, [8, 12], { data: normal(4, 96) });
    const dOutput = tensor(device, [1100, 8], { data: normal(5, 8800) });
    const outputs = [0, 1].map(() => tensor(device, [8, 12]));
    const plan = await planProjectionBackward(device, {
      x: { shape: x.shape },
      weight: { shape: weight.shape },
      dOutput,
      gradients: ["dWeight"],
    });
    expect(plan.workspaceBytes).toBeGreaterThan(0);
    const encoder = device.createCommandEncoder();
    for (const dWeight of outputs) plan.encode(encoder, { x, dWeight });
    await expectError(
      () => plan.encode(encoder, { x, weight, dWeight: outputs[0] }),
      "argument",
      /the plan has no use for "weight"; it takes dWeight, dOutput, x\./,
    );
    device.queue.submit([encoder.finish()]);
    expect(await outputs[0].read()).toEqual(await outputs[1].read());
    for (const one of [plan, x, weight, dOutput, ...outputs]) one.destroy();
  });
  it("of many rows and a small weight has shares on GPUs, and one of a large weight has none", async () => {
    const gpu = overridden(await testDevice(), {
      adapterInfo: { isFallbackAdapter: false } as GPUAdapterInfo,
    });
    const bytes = async (M: number, K: number, N: number) => {
      const problem = { x: { shape: [M, K] }, weight: { shape: [N, K] } };
      const dOutput = { shape: [M, N] };
      const gradients = ["dWeight"] as const;
      const plan = resolveProjectionBackward(
        { ...problem, dOutput, gradients },
        { label: "test", device: gpu },
      );
      return 4 * plan.workspace;
    };
    expect(await bytes(32768, 64, 64)).toBe(128 * 64 * 64 * 4);
    expect(await bytes(32768, 1024, 1024)).toBe(2 * 1024 * 1024 * 4);
    expect(await bytes(32768, 2048, 2048)).toBe(0);
    expect(await bytes(400, 64, 64)).toBe(0);
  });
});

describe("errors of a projection's gradients", () => {
  it("name what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3, 8]);
    const weight = tensor(device, [4, 8]);
    const dOutput = tensor(device, [2, 3, 4]);
    await expectError(
      () => projectionBackward(x, weight, x),
      "argument",
      "projectionBackward: dOutput must be [2, 3, 4] for x [2, 3, 8] and weight [4, 8], got [2, 3, 8].",
    );
    await expectError(
      () => projectionBackward(x, weight, dOutput, { dBias: weight }),
      "argument",
      "projectionBackward: dBias must be [4] for x [2, 3, 8] and weight [4, 8], got [4, 8].",
    );
    await expectError(
      () => projectionBackward(x, weight, dOutput, { gradients: ["dY" as "dX"] }),
      "argument",
      'projectionBackward: there is no gradient "dY". Gradients: dX, dWeight, dBias.',
    );
    await expectError(
      () => projectionBackward(x, weight, dOutput, { gradients: ["dX"], dBias: weight }),
      "argument",
      "projectionBackward: dBias is given, and gradients don't name it; leave one out.",
    );
    await expectError(
      () => projectionBackward(x, weight, dOutput, { variant: "9x9" }),
      "argument",
      "no variant 9x9 of the matmul kernel; there are 32x16-quad, 32x32, 64x64.",
    );
    await expectError(
      () => projectionBackward(x, weight, x.slice(2, 0, 4), { gradients: ["dX"], dX: x }),
      "overlap",
      /^projectionBackward: dX and dOutput are in the same GPUBuffer/,
    );
    for (const one of [x, weight, dOutput]) one.destroy();
  });
});
