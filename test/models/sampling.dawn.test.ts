// The choice of tokens against the float64 reference.

import { describe, expect, it } from "vitest";
import { tensor } from "../../src/index.ts";
import { planSampling } from "../../src/models/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import {
  asGpu,
  expectSampled,
  expectTopTokens,
  type SamplingCase,
  sampled,
} from "../support/sampling.ts";

failOnGpuErrors();

const { NaN: nan, NEGATIVE_INFINITY: removed, POSITIVE_INFINITY: infinite } = Number;
const row = (seed: number, V: number, deviation = 3) => normal(seed, V, deviation);
const rows = (B: number, V: number, deviation = 3) =>
  Array.from({ length: B }, (_, b) => row(100 * V + b, V, deviation));
/** Logits of few values, so that most have their like. */
const tied = (seed: number, V: number) => Array.from(integers(seed, V, -6, 6), (x) => x / 2);
const holed = (seed: number, V: number) => {
  const holes = integers(seed + 1, V, 0, 2);
  return Array.from(row(seed, V), (x, id) => (holes[id] > 0 ? removed : x));
};
const ALL = { repetitionPenalty: 1.2, temperature: 0.8, topK: 40, topP: 0.95, minP: 0.02 };
const said = (B: number, V: number) =>
  Array.from({ length: B }, (_, b) => Array.from(integers(b + 5, 12, 0, V - 1)));

const CASES: Readonly<Record<string, SamplingCase>> = {
  "softmax alone, 3 rows": { rows: rows(3, 50) },
  "all settings, 3 rows": { rows: rows(3, 501), history: said(3, 501), ...ALL, seed: 9, step: 4 },
  "all settings, rows turned": { rows: rows(3, 72), history: said(3, 72), ...ALL, turned: true },
  "one token": { rows: [[3]], history: [[0]], ...ALL },
  "greedy, ties, penalty": {
    rows: [tied(1, 99), tied(2, 99)],
    history: said(2, 99),
    repetitionPenalty: 1.3,
    temperature: 0,
  },
  "greedy, whatever else is set": { rows: rows(2, 37), temperature: 0, topK: 3, topP: 0.1 },
  "penalty below 1": { rows: rows(2, 60), history: said(2, 60), repetitionPenalty: 0.7 },
  "top-k of ties": { rows: [tied(3, 300), tied(4, 300)], topK: 7 },
  "top-k 1": { rows: [tied(5, 64), row(6, 64)], topK: 1 },
  "top-k beyond V": { rows: rows(2, 30), topK: 1000 },
  "top-k beyond what is finite": { rows: [holed(7, 90)], topK: 60 },
  "top-p of ties": { rows: [tied(8, 333), tied(9, 333)], topP: 0.83 },
  "top-p of equal logits": { rows: [new Float32Array(4096).fill(-2)], topP: 0.25 },
  "top-p 0": { rows: [tied(10, 40), row(11, 40)], topP: 0 },
  "top-p 1": { rows: rows(1, 40), topP: 1, minP: 0.2 },
  "min-p 1": { rows: [tied(12, 70), row(13, 70)], minP: 1 },
  "holes, top-p and a high temperature": { rows: [holed(14, 401)], temperature: 3, topP: 0.9 },
  "huge logits": { rows: rows(2, 80, 2e4), temperature: 0.5, topK: 20 },
  "logits at the ends of f32": { rows: [[3.4e38, -3.4e38, 3.4e38, 0, 1e30]], topP: 0.9 },
  "a tiny temperature": { rows: [tied(15, 44), row(16, 44)], temperature: 1e-30 },
  "a huge temperature": { rows: rows(2, 48), temperature: 1e30, topK: 9 },
  "probabilities below those of f32": { rows: rows(2, 50), temperature: 0.02 },
  "a temperature between": { rows: rows(2, 50), temperature: 0.01, minP: 0.5, topP: 0.999 },
};

describe("a token is chosen as in float64", () => {
  it.each(Object.entries(CASES))("%s", async (_, one) => {
    await expectSampled(await testDevice(), one);
  });

  // Several chunks, also on a software adapter.
  it.each([
    [{ topK: 50 }, 33_001],
    [{ ...ALL, topK: 0, minP: 0 }, 40_000],
    [{ temperature: 0 }, 40_000],
  ])("%o of a large vocabulary", async (settings, V) => {
    const device = await testDevice();
    await expectSampled(device, { rows: rows(2, V), history: said(2, V), ...settings, seed: 3 });
  });

  it("by the kernels of GPUs too", async () => {
    const device = asGpu(await testDevice());
    for (const name of ["all settings, 3 rows", "top-p of ties", "greedy, ties, penalty"])
      await expectSampled(device, CASES[name]);
    await expectSampled(device, { rows: rows(2, 5003), topP: 0.9, seed: 2 });
    // The largest logit stands in several chunks.
    await expectSampled(device, { rows: [tied(30, 5003)], temperature: 0 });
  });

  it("of a NaN or an infinity, which is seen, and of nothing", async () => {
    const device = await testDevice();
    const all = [
      [1, nan, 3, nan],
      [1, infinite, 3, removed],
      [removed, removed, removed, removed],
      [2, removed, 1, 0],
    ];
    const greedy = await sampled(device, { rows: all, temperature: 0 });
    expect(greedy.token).toEqual([1, 1, 0, 0]);
    expect(greedy.logprob.slice(0, 3)).toEqual([nan, 0, nan]);
    expect(greedy.logprob[3]).toBeCloseTo(-Math.log(1 + Math.exp(-1) + Math.exp(-2)), 5);
    const drawn = await sampled(device, { rows: all, topK: 3, topP: 0.9 });
    expect([1, 3]).toContain(drawn.token[0]);
    expect(drawn.token.slice(1, 3)).toEqual([1, 0]);
    expect(drawn.logprob.slice(0, 3)).toEqual([nan, 0, nan]);
    expect(drawn.probabilities[2]).toEqual([0, 0, 0, 0]);
    expect(drawn.probabilities[1][1]).toBe(1);
    expect(drawn.probabilities.flat().every(Number.isFinite)).toBe(true);
  });
});

describe("draws", () => {
  /** Tokens of `B` entries that all have the same logits, of several steps. */
  async function draws(B: number, steps: readonly number[], settings: object) {
    const device = await testDevice();
    const logits = tensor(device, [1, 8], { data: row(77, 8, 1) });
    const token = tensor(device, [B], { dtype: "i32" });
    const step = tensor(device, [1], { dtype: "u32" });
    const same = logits.view({ shape: [B, 8], strides: [0, 1] });
    const logprob = tensor(device, [B]);
    const seen = tensor(device, [B, 1], { dtype: "u32" });
    const plan = await planSampling(device, { logits: same, token, step, seen, ...settings });
    const all: number[][] = [];
    for (const at of steps) {
      await step.write([at]);
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { logprob });
      device.queue.submit([encoder.finish()]);
      all.push(Array.from(await token.read()));
    }
    plan.destroy();
    for (const one of [logits, token, step, logprob, seen]) one.destroy();
    return all;
  }
  const weights = Array.from(row(77, 8, 1), (x) => Math.exp(Math.fround(x)));
  const total = weights.reduce((sum, one) => sum + one, 0);
  /** Pearson's statistic, of 7 degrees of freedom: beyond 24.3 once in a thousand times. */
  const chiSquare = (tokens: readonly number[]) =>
    weights.reduce((sum, weight, id) => {
      const expected = (tokens.length * weight) / total;
      return sum + (tokens.filter((one) => one === id).length - expected) ** 2 / expected;
    }, 0);

  it("of entries and of steps have the frequencies of the probabilities", async () => {
    const entries = await draws(4000, [0], { seed: 5 });
    expect(chiSquare(entries.flat())).toBeLessThan(24.3);
    const steps = await draws(
      50,
      Array.from({ length: 40 }, (_, at) => at),
      { seed: 2 ** 40 + 1 },
    );
    expect(chiSquare(steps.flat())).toBeLessThan(24.3);
    // Pairs of tokens that follow each other are as frequent as if they were independent.
    const equal = steps
      .slice(1)
      .flatMap((tokens, at) => tokens.map((id, b) => id === steps[at][b]));
    const chance = weights.reduce((sum, weight) => sum + (weight / total) ** 2, 0);
    const share = equal.filter(Boolean).length / equal.length;
    expect(Math.abs(share - chance)).toBeLessThan(4 * Math.sqrt(chance / equal.length));
  });

  it("are the same for the same seed and step, and others for others", async () => {
    const [first, second, again] = await draws(64, [3, 4, 3], { seed: 8 });
    expect(again).toEqual(first);
    expect(second).not.toEqual(first);
    const [other] = await draws(64, [3], { seed: 8 + 2 ** 32 });
    expect(other).not.toEqual(first);
  });
});

describe("the largest logits", () => {
  it("are found in order, with ties, holes, and all of them", async () => {
    const device = await testDevice();
    await expectTopTokens(device, rows(3, 200), 10);
    await expectTopTokens(device, [tied(20, 300), tied(21, 300), holed(22, 300)], 64);
    await expectTopTokens(device, [holed(23, 64), new Float32Array(64)], 64);
    await expectTopTokens(device, [[5]], 1);
    await expectTopTokens(device, rows(2, 41, 2e4), 4, true);
    await expectTopTokens(device, [row(24, 33_001), tied(25, 33_001)], 64);
    await expectTopTokens(asGpu(device), [row(26, 5001), tied(27, 5001)], 33);
  });
});
