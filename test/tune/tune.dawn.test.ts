// Tuning and warming up: what is chosen by which times, what is refused, and what is left behind.
// Times are scripted, since a machine's own say nothing twice; values and memory are real.

import { afterEach, describe, expect, it, vi } from "vitest";
import {
  type AttentionProblem,
  attention,
  createKvCache,
  planAttention,
  prewarm,
  type TunedAttention,
  tensor,
  tune,
} from "../../src/index.ts";
import { clearlyFaster } from "../../src/tune/trial.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

/**
 * Milliseconds of a run by its kernel and the workgroups of its first dispatch. Without a script,
 * the GPU's own count.
 */
let script: ((kernel: string, workgroups: number) => number) | undefined;
/** Kernels that compute nothing. */
let broken: readonly string[] = [];
const timed: string[] = [];
afterEach(() => {
  script = undefined;
  broken = [];
  timed.length = 0;
});

vi.mock("../../src/gpu/timing.ts", async (original) => {
  const actual = await original<typeof import("../../src/gpu/timing.ts")>();
  return {
    createGpuTimer(device: GPUDevice) {
      const timer = actual.createGpuTimer(device);
      return {
        ...timer,
        async time(encode: (pass: GPUComputePassEncoder) => void) {
          let total = 0;
          let kernel = "";
          let isFirst = true;
          const watched = (pass: GPUComputePassEncoder) => {
            const watch = {
              setPipeline: (pipeline: GPUComputePipeline) => {
                kernel = pipeline.label;
                pass.setPipeline(pipeline);
              },
              setBindGroup: (...args: Parameters<GPUComputePassEncoder["setBindGroup"]>) =>
                pass.setBindGroup(...args),
              dispatchWorkgroups: (x: number, y: number) => {
                if (kernel.startsWith("combine"))
                  return broken.includes(kernel) || pass.dispatchWorkgroups(x, y);
                timed.push(kernel);
                total += script?.(kernel, x) ?? 0;
                // If times are scripted, one run of a measurement is enough for the values.
                if (!broken.includes(kernel) && (isFirst || !script)) pass.dispatchWorkgroups(x, y);
                isFirst = false;
              },
            };
            encode(watch as unknown as GPUComputePassEncoder);
          };
          const real = await timer.time(watched);
          return script ? total : real;
        },
      };
    },
  };
});

const rows = (heads: number, tokens: number) => ({ shape: [1, heads, tokens, 8] });
const PREFILL: AttentionProblem = { q: rows(2, 40), k: rows(2, 50), v: rows(2, 50), causal: true };
const TOKEN: AttentionProblem = { q: rows(2, 1), k: rows(2, 600), v: rows(2, 600) };
const ONE = { variants: ["8x32"] };

/** Returns what the tables choose. */
async function defaultOf(device: GPUDevice, problem: AttentionProblem): Promise<string> {
  const plan = await planAttention(device, problem);
  plan.destroy();
  return plan.kernel;
}

describe("clearlyFaster", () => {
  it.each([
    ["94 % in every turn", [94, 94, 94, 94], true],
    ["96 % in every turn", [96, 96, 96, 96], false],
    ["half in every second turn", [50, 120, 50, 120], false],
    ["half in three of four turns", [50, 50, 120, 50], true],
    ["the same, but for one turn", [100, 10, 100, 100], false],
  ])("%s: %j", (_, times, expected) => {
    expect(clearlyFaster(times, [100, 100, 100, 100])).toBe(expected);
  });
  it("compares turn by turn, so that a slow moment of the machine decides nothing", () => {
    expect(clearlyFaster([9, 90, 9], [10, 100, 10])).toBe(true);
    expect(clearlyFaster([10, 100, 10], [10, 10, 100])).toBe(false);
  });
});

describe("tune", () => {
  it("keeps the default unless another is clearly faster, twice", async () => {
    const device = await testDevice();
    const standard = await defaultOf(device, PREFILL);
    script = (kernel) => (kernel === "forward 8x32" ? 0.96 : 1);
    const kept = await tune(device, PREFILL, ONE);
    expect(`forward ${kept.variant}`).toBe(standard);
    expect(kept.candidates).toEqual([
      { variant: kept.variant, ms: 1 },
      { variant: "8x32", ms: expect.closeTo(0.96, 9) },
    ]);

    script = (kernel) => (kernel === "forward 8x32" ? 0.9 : 1);
    const taken = await tune(device, PREFILL, ONE);
    expect(taken).toMatchObject({
      variant: "8x32",
      adapter: expect.stringMatching(/^google swiftshader/),
      timing: "timestamp-query",
    });
    expect(taken).not.toHaveProperty("kvSplits");

    script = () => 0; // too short for the clock
    expect(`forward ${(await tune(device, PREFILL, ONE)).variant}`).toBe(standard);

    let turns = 0; // the comparison of all is won, the repetition is not
    script = (kernel) => (kernel !== "forward 8x32" ? 1 : turns++ < 20 ? 0.5 : 1);
    expect(`forward ${(await tune(device, PREFILL, { ...ONE, budget: 30 })).variant}`).toBe(
      standard,
    );
    expect(turns).toBeGreaterThan(20);
  });

  it("runs what is hopeless once, and turns within the budget", async () => {
    const device = await testDevice();
    script = (kernel) => (kernel === "forward 8x32" ? 41 : 20);
    const { candidates } = await tune(device, PREFILL, { ...ONE, budget: 60 });
    expect(timed.filter((kernel) => kernel === "forward 8x32")).toHaveLength(1);
    expect(timed).toHaveLength(2 + 3);
    expect(candidates[1]).toEqual({ variant: "8x32", ms: 41 });
  });

  it("leaves out a kernel whose values are not the default's, however fast", async () => {
    const device = await testDevice();
    const standard = await defaultOf(device, PREFILL);
    script = (kernel) => (kernel === "forward 8x32" ? 0.1 : 1);
    broken = ["forward 8x32"];
    const { variant, candidates } = await tune(device, PREFILL, ONE);
    expect(`forward ${variant}`).toBe(standard);
    expect(candidates[1]).toEqual({
      variant: "8x32",
      ms: 0.1,
      failure:
        "its values differ from the default's by 1.0e+0 of the largest; at most 0.0001 is rounding",
    });
  });

  it("tries splits of the keys, and plans take what it found from JSON", async () => {
    const device = idle(await testDevice());
    const splits = 2 * 600; // the workgroups, if each took one key of a head
    script = (_, workgroups) => 10 / Math.min(workgroups, splits);
    const tuned = await tune(device, TOKEN, { variants: [] });
    const [standard, ...others] = tuned.candidates;
    expect(others.length).toBeGreaterThan(0);
    expect(others.every(({ variant }) => variant === standard.variant)).toBe(true);
    const most = Math.max(...others.map(({ kvSplits = 0 }) => kvSplits));
    expect(most).toBeGreaterThan(standard.kvSplits as number);
    expect(tuned).toMatchObject({ variant: standard.variant, kvSplits: most });
    expect(tuned.problem).toBe("B1 H2/2 M1 N1024 D8/8, q f32, k f32, v f32, o f32");

    const stored = JSON.parse(JSON.stringify(tuned)) as TunedAttention;
    expect(stored).toEqual(tuned);
    const [chosen, by] = await Promise.all([
      planAttention(device, { ...TOKEN, tuned: stored }),
      planAttention(device, { ...TOKEN, kvSplits: most }),
    ]);
    expect(chosen.workspaceBytes).toBe(by.workspaceBytes);
    const asked = await planAttention(device, { ...TOKEN, tuned: stored, kvSplits: 2 });
    expect(asked.workspaceBytes * most).toBe(by.workspaceBytes * 2);
    for (const plan of [chosen, by, asked]) plan.destroy();
  });

  it("tries no splits that have fewer than 16 keys", async () => {
    const device = idle(await testDevice());
    script = () => 1;
    const few = { ...TOKEN, k: rows(2, 32), v: rows(2, 32) };
    const { candidates } = await tune(device, few, { variants: [] });
    expect(candidates.map(({ kvSplits }) => kvSplits)).toEqual([1, 2]);
  });

  it("times tensors of the caller's, of a cache too, by the GPU's clock, and writes to none", async () => {
    const { device, buffers } = counted(await testDevice());
    const data = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
    const [q, k, v] = [1, 30, 30].map((tokens) =>
      tensor(device, [1, 2, tokens, 8], { data: data(16 * tokens) }),
    );
    const output = tensor(device, [1, 2, 1, 8], { data: new Float32Array(16).fill(7) });
    const cache = await createKvCache(device, { batch: 1, kvHeads: 2, headDim: 8, capacity: 600 });
    await cache.append(k, v);
    const before = buffers();
    const tuned = await tune(device, { q, cache, output, lse: true }, { variants: [], budget: 5 });
    expect(buffers()).toBe(before);
    expect(tuned.problem).toBe("B1 H2/2 M1 N1024 D8/8, q f32, cache rows f32, o f32");
    for (const { ms, failure } of tuned.candidates) {
      expect(failure).toBeUndefined();
      expect(ms).toBeGreaterThan(0);
    }
    expect(await output.read()).toEqual(new Float32Array(16).fill(7));
    const { output: by } = await attention(q, cache, { tuned });
    const { output: plain } = await attention(q, k, v);
    const [actual, expected] = await Promise.all([by.read(), plain.read()]);
    for (const [i, value] of actual.entries()) expect(value).toBeCloseTo(expected[i], 5);
    cache.destroy();
    for (const one of [q, k, v, output, by, plain]) one.destroy();
  });

  it("has nothing to choose if there is nothing to compute", async () => {
    const tuned = await tune(await testDevice(), { ...TOKEN, q: rows(2, 0) }, { variants: [] });
    expect(tuned.candidates).toHaveLength(1);
    expect(tuned.candidates[0]).not.toHaveProperty("ms");
  });

  it("refuses what it can't tune, and leaves nothing behind", async () => {
    const { device, buffers } = counted(await testDevice());
    const cases: [problem: unknown, options: unknown, message: string][] = [
      [PREFILL, { budget: 0 }, "tune: budget must be a positive number of milliseconds, got 0."],
      [
        { ...PREFILL, variant: "8x32" },
        {},
        "tune: attention: leave variant and tuned out: that is what is to be found.",
      ],
      [
        { ...PREFILL, bias: { shape: [1, 1, 40, 50] } },
        ONE,
        "tune: bias is only described; give the tensor, since what it holds decides how long attention takes.",
      ],
      [
        { ...PREFILL, k: rows(3, 50), v: rows(3, 50) },
        {},
        "attention: the 2 query heads must be a multiple of the 3 key heads (axes BHMD): q is [1, 2, 40, 8], k [1, 3, 50, 8], v [1, 3, 50, 8].",
      ],
    ];
    for (const [problem, options, message] of cases) {
      await expectError(
        () => tune(device, problem as AttentionProblem, options as object),
        "argument",
        message,
      );
    }
    await expectError(
      () => tune(device, PREFILL, { variants: ["9x9"] }),
      "argument",
      /^tune: there is no variant "9x9"; there are .*64x32, .*decode-16, decode-64, decode-64-quad\.$/,
    );
    expect(buffers()).toBe(0);
  });

  it("is for its adapter and its problem only", async () => {
    const device = idle(await testDevice());
    script = () => 1;
    const tuned = await tune(device, PREFILL, { variants: [] });
    const plan = (problem: object, on = device) =>
      planAttention(on, { ...PREFILL, tuned, ...problem });
    const similar = { q: rows(2, 64), k: rows(2, 33), v: rows(2, 33) };
    (await plan(similar)).destroy();
    await expectError(
      () => plan({ causal: false }),
      "argument",
      'attention: tuned is of the problem "B1 H2/2 M64 N64 D8/8, q f32, k f32, v f32, o f32, causal", and this is "B1 H2/2 M64 N64 D8/8, q f32, k f32, v f32, o f32". Call tune() for it.',
    );
    await expectError(
      () => plan({ k: rows(2, 65), v: rows(2, 65) }),
      "argument",
      /and this is "B1 H2\/2 M64 N128 D8/,
    );
    await expectError(
      () =>
        plan({}, overridden(device, { adapterInfo: { vendor: "acme", architecture: "anvil" } })),
      "argument",
      `attention: tuned is of the adapter "${tuned.adapter}", and this is "acme anvil". Call tune() for it.`,
    );
    await expectError(
      () => plan({ variant: "8x32" }),
      "argument",
      'attention: tuned chooses the variant; leave out variant "8x32", or tuned.',
    );
    await expectError(
      () => plan({ tuned: "64x32" }),
      "argument",
      'attention: tuned must be a result of tune(), got "64x32".',
    );
  });
});

describe("prewarm", () => {
  it("compiles each kernel once, keeps nothing else, and plans find all of it", async () => {
    const { device, count, buffers } = counted(idle(await testDevice()));
    const small = { ...PREFILL, variant: "8x32" };
    // Rows of more than 256 keys have a kernel that keeps the digits of long sums.
    await prewarm(device, [small, { ...small, ...TOKEN }, small]);
    expect(count.pipelines).toBe(2);
    await prewarm(device, [TOKEN]);
    expect([count.pipelines, buffers()]).toEqual([4, 0]);
    const plans = [await planAttention(device, small), await planAttention(device, TOKEN)];
    expect(count.pipelines).toBe(4);
    for (const plan of plans) plan.destroy();
    await prewarm(device, []);
  });

  it("names the problem that it can't compile, and compiles the others", async () => {
    const { device, count, buffers } = counted(idle(await testDevice()));
    const wrong = { ...PREFILL, k: rows(2, 50), v: rows(2, 51) };
    await expectError(
      () => prewarm(device, [{ ...PREFILL, variant: "8x32" }, wrong]),
      "argument",
      "prewarm: problems[1]: attention: k and v must have the same number of keys (axes BHMD): q is [1, 2, 40, 8], k [1, 2, 50, 8], v [1, 2, 51, 8].",
    );
    expect([count.pipelines, buffers()]).toEqual([1, 0]);
    await expectError(
      () => prewarm(device, PREFILL as never),
      "argument",
      /^prewarm: problems must be a list of problems \{ q, k, v, \.\.\. \}, got \{ q, k, v/,
    );
  });
});
