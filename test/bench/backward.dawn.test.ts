// The contest of gradients: our step and its parts in turns, checked and compared; what a run's
// memory is; and how the work of long problems is cut.

import { describe, expect, it } from "vitest";
import { backwardContest, longBackwardContest, problemOf } from "../../bench/backward.ts";
import { backwardLadderContest } from "../../bench/backward_ladder.ts";
import { type Contest, runContests } from "../../bench/peers/contest.ts";
import { SUITES } from "../../bench/suites.ts";
import { planAttentionBackward } from "../../src/index.ts";
import { errorBound } from "../../src/reference/bounds.ts";
import { attentionBackward } from "../../src/reference/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const square = (length: number, D: number, H = 3) =>
  ({ B: 1, H, Hkv: H, M: length, N: length, D, Dv: D, causal: false }) as const;
const dims = square(40, 8);

const run = async (contests: readonly Contest[], rounds = 2) => {
  const notes: string[] = [];
  const steps: string[] = [];
  const rows = await runContests(await testDevice(), "backward", contests, {
    rounds,
    onStep: () => steps.push("step"),
    note: (text) => notes.push(text),
  });
  expect(notes).toEqual([]);
  expect(steps).toHaveLength(rows.length * (rounds + 1));
  return rows;
};

it("checks a step and its parts, and compares turns, also with those of another contest", async () => {
  const together = { together: "small" };
  const rows = await run([
    backwardContest("full", dims, together),
    backwardContest("causal", { ...dims, causal: true }, { ...together, full: "full" }),
  ]);
  const names = rows.map(({ case: name, impl }) => `${name} ${impl}`);
  expect(names).toEqual([
    "full fovea",
    "full fovea:forward",
    "full fovea:backward",
    "causal fovea",
    "causal fovea:forward",
    "causal fovea:backward",
  ]);
  for (const { correct, maxError, verdict } of rows) {
    expect(correct).toBe(true);
    expect(maxError).toBeGreaterThan(0);
    // The first and the last head of a result.
    expect(verdict.rows % (2 * 40 * 8)).toBe(0);
  }
  const [step, forward, backward, , , causal] = rows;
  const operations = ({ gflops, ms }: typeof step) => gflops * ms.median * 1e6;
  expect(operations(forward)).toBeCloseTo(2 * 2 * 8 * 3 * 40 * 40, 3);
  expect(operations(backward)).toBeCloseTo(2.5 * operations(forward), 3);
  expect(operations(step)).toBeCloseTo(3.5 * operations(forward), 3);
  // The preparation, the factors, three tiles of keys and dQ.
  expect([step.dispatches, forward.dispatches, backward.dispatches]).toEqual([7, 1, 6]);
  expect(forward.ratios).toBeUndefined();
  expect(backward.ratios).toMatchObject([{ name: "backward / forward", atMost: 3.5 }]);
  expect(causal.ratios).toMatchObject([
    { name: "backward / forward", atMost: 3.5 },
    { name: "causal / full", atMost: 0.6 },
  ]);
  for (const { min, median, p90 } of causal.ratios ?? []) {
    expect(min).toBeGreaterThan(0);
    expect(median).toBeGreaterThanOrEqual(min);
    expect(p90).toBeGreaterThanOrEqual(median);
  }
});

it("counts the memory of a run beside its inputs and results", async () => {
  const [step, , backward] = await run([backwardContest("full", dims)], 1);
  const kept = 4 * 3 * 40 * (8 + 1); // the output and the log-sum-exp, between the two halves
  const uniforms = 8192;
  for (const [{ memoryBytes = 0, workspaceBytes }, least] of [
    [backward, 0],
    [step, kept],
  ] as const) {
    expect(memoryBytes).toBeGreaterThan(workspaceBytes + least);
    expect(memoryBytes).toBeLessThan(workspaceBytes + least + uniforms);
  }
});

it("notices a gradient that is off by more than its own bound", async () => {
  const contest = backwardContest("full", dims);
  const [dQ, ...others] = [contest.expected()].flat();
  const more = 3 * errorBound(dQ.f64, dQ.plain, "f32");
  const off = (values: ArrayLike<number>) =>
    Float64Array.from(values, (value, at) => (at === 5 ? value + more : value));
  const moved = { ...dQ, f64: off(dQ.f64), plain: off(dQ.plain) };
  const wrong = { ...contest, expected: () => [...others, moved] };
  expect(await run([wrong], 1)).toMatchObject([
    { impl: "fovea", correct: false, maxError: expect.closeTo(more, 5) },
    { impl: "fovea:forward", correct: true },
    { impl: "fovea:backward", correct: true },
  ]);
});

it("runs the rungs of the ladder beside each other", async () => {
  const rows = await run([backwardLadderContest("ladder", dims)], 1);
  const found = rows.map(({ impl, correct, workspaceBytes }) => [impl, correct, workspaceBytes]);
  expect(found).toEqual([
    ["1 naive", true, 2 * 4 * 3 * 40 * 40],
    ["2 backward", true, 16 * 3 * 40],
  ]);
});

describe("long problems", () => {
  it("repeat queries, and know the gradients all the same", () => {
    const problem = { ...square(11, 4), H: 2, Hkv: 2 };
    const { inputs, gradients } = problemOf(problem, 3);
    const [q, k, v, dOutput] = inputs();
    expect(q.data.subarray(0, 4)).toEqual(q.data.subarray(12, 16));
    expect(q.data.subarray(0, 4)).not.toEqual(q.data.subarray(44, 48)); // of the other head
    const { dQ, dK, dV } = attentionBackward(q, k, v, { dOutput: dOutput.data });
    for (const [index, expected] of [dQ, dK, dV].entries()) {
      const { f64, at } = gradients()[index];
      expect(at).toEqual(Array.from(expected, (_, place) => index * expected.length + place));
      for (const [place, value] of expected.entries()) expect(f64[place]).toBeCloseTo(value, 12);
    }
  });
  it("are checked and timed", async () => {
    const rows = await run([longBackwardContest("long", square(300, 8, 1), 1)], 1);
    expect(rows).toMatchObject([{ impl: "fovea", correct: true, rounds: 1 }]);
  });
  it("have work in dispatches of bounded size, and memory that grows with their tokens", async () => {
    const device = idle(await testDevice());
    const lengths = SUITES["backward-long"](false).map(({ dims }) => dims.M);
    expect(lengths).toEqual([1024, 2048, 4096, 8192]);
    const shape = (length: number) => ({ shape: [1, 8, length, 64] });
    const plans = await Promise.all(
      lengths.map((length) => {
        const rows = shape(length);
        return planAttentionBackward(device, { q: rows, k: rows, v: rows });
      }),
    );
    const [first, ...longer] = plans;
    for (const [index, plan] of longer.entries())
      expect(plan.workspaceBytes).toBeLessThanOrEqual(first.workspaceBytes * 2 ** (index + 1));
    expect(first.workspaceBytes).toBeLessThan(4 * 8 * 1024 * 1024); // the scores of all heads
    // Kernels make five products of a query and a key, or seven if they compute scores twice; the
    // form for software adapters takes a dispatch for each 16 keys.
    const dispatches = (products: number) => (2 * products * 64 * 8 * 8192 * 8192) / 2 ** 32;
    expect(plans[3].dispatchCount).toBeGreaterThanOrEqual(dispatches(5));
    expect(plans[3].dispatchCount).toBeLessThan(2 * dispatches(7) + 8192 / 16);
    for (const plan of plans) plan.destroy();
  });
});
