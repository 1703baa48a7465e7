// The float64 optimisers against numbers worked by hand, where there are no vectors of PyTorch.

import { describe, expect, it } from "vitest";
import {
  optimizer,
  orthogonalised,
  type ReferenceOptimizerOptions,
  type ReferenceSchedule,
  rateFactor,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";

const one = (data: readonly number[], shape = [data.length]) => ({
  data: Float64Array.from(data),
  shape,
});

describe("Lion", () => {
  it("takes signs of beta1 m + (1 - beta1) g, and moves m by beta2", () => {
    const p = one([1, -2, 3]);
    const { update, state } = optimizer({
      kind: "Lion",
      parameters: [p],
      lr: 0.5,
      betas: [0.5, 0.75],
      weightDecay: 0.5,
    });
    update([[4, -8, 0]]);
    // (1 - 0.25) p - 0.5 sign(g / 2)
    expect([...p.data]).toEqual([0.25, -1, 2.25]);
    expect([...state[0].momentum]).toEqual([1, -2, 0]);
    update([[-0.5, 2, 8]]);
    // m / 2 + g / 2 = 0.25, 0, 4
    expect([...p.data]).toEqual([-0.3125, -0.75, 1.1875]);
    expect([...state[0].momentum]).toEqual([0.625, -1, 2]);
  });
});

describe("Muon", () => {
  it("puts singular values through the polynomial", () => {
    const settings = { nsSteps: 1, nsCoefficients: [2, -3, 1.5] } as const;
    const x = orthogonalised([3, 0, 0, 0, 4, 0], 2, 3, settings);
    // The norm is 5, so that the singular values are 0.6 and 0.8.
    const bent = (s: number) => 2 * s - 3 * s ** 3 + 1.5 * s ** 5;
    const expected = [bent(0.6), 0, 0, 0, bent(0.8), 0];
    for (const [i, value] of x.entries()) expect(value).toBeCloseTo(expected[i], 14);
  });
  it("is nearly orthogonal after five steps, either way round", () => {
    const given = normal(1, 6 * 4);
    const wide = orthogonalised(given, 4, 6);
    const turned = Array.from({ length: 24 }, (_, i) => given[(i % 4) * 6 + Math.floor(i / 4)]);
    const tall = orthogonalised(turned, 6, 4);
    for (let i = 0; i < 4; i++)
      for (let j = 0; j < 4; j++) {
        const product = (a: ArrayLike<number>, at: (row: number, k: number) => number) =>
          [0, 1, 2, 3, 4, 5].reduce((sum, k) => sum + a[at(i, k)] * a[at(j, k)], 0);
        const dot = product(wide, (row, k) => row * 6 + k);
        expect(Math.abs(dot - (i === j ? 1 : 0))).toBeLessThan(0.6);
        expect(product(tall, (row, k) => k * 4 + row)).toBeCloseTo(dot, 12);
      }
  });
  it("scales by the shape, and leaves what has not two axes to AdamW", () => {
    const settings: ReferenceOptimizerOptions = {
      kind: "Muon",
      lr: 0.5,
      momentum: 0.5,
      nesterov: false,
      weightDecay: 0.5,
      nsSteps: 1,
      nsCoefficients: [1, 0, 0],
      adamw: { lr: 0.25, weightDecay: 0, eps: 0 },
    };
    const matrix = one([1, 1, 1, 1], [4, 1]);
    const vector = one([1, 1]);
    const { update, state } = optimizer({ ...settings, parameters: [matrix, vector] });
    update([
      [3, 4, 0, 0],
      [2, -2],
    ]);
    // 0.75 p - 0.5 sqrt(4) m / |m|
    expect([...matrix.data].map((x) => +x.toFixed(12))).toEqual([0.15, -0.05, 0.75, 0.75]);
    expect([...state[0].momentum]).toEqual([1.5, 2, 0, 0]);
    expect([...vector.data].map((x) => +x.toFixed(12))).toEqual([0.75, 1.25]);
    const other = one([0, 0, 0, 0], [4, 1]);
    optimizer({ ...settings, adjustLr: "match_rms_adamw", parameters: [other] }).update([
      [3, 4, 0, 0],
    ]);
    expect([...other.data].map((x) => +x.toFixed(12))).toEqual([-0.12, -0.16, 0, 0]);
  });
});

describe("schedules", () => {
  const cases: readonly (readonly [ReferenceSchedule, readonly number[]])[] = [
    [{ kind: "constant" }, [1, 1]],
    [{ kind: "linear", totalSteps: 4, startFactor: 1, endFactor: 0.5 }, [1, 0.875, 0.75]],
    [{ kind: "cosine", totalSteps: 2, minFactor: 0.5 }, [1, 0.75, 0.5, 0.5]],
    [{ kind: "step", stepSize: 2, gamma: 0.5 }, [1, 1, 0.5, 0.5, 0.25]],
    [{ kind: "warmup_cosine", warmupSteps: 2, totalSteps: 4 }, [0.5, 1, 1, 0.5, 0]],
    [
      { kind: "warmup_linear", warmupSteps: 2, totalSteps: 6, warmupOffset: 0 },
      [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0],
    ],
  ];
  it.each(cases)("%j", (schedule, factors) => {
    for (const [t, factor] of factors.entries())
      expect(rateFactor(schedule, t)).toBeCloseTo(factor, 14);
  });
});

it("clips all gradients by the norm of all of them", () => {
  const parameters = [one([0]), one([0, 0])];
  const { update } = optimizer({ kind: "SGD", lr: 1, parameters, clip: { maxNorm: 6 } });
  expect(update([[3], [0, 4]]).norm).toBe(5);
  expect([parameters[0].data[0], parameters[1].data[1]]).toEqual([-3, -4]);
  expect(update([[9], [12, 0]]).norm).toBe(15);
  expect(parameters[1].data[0]).toBeCloseTo((-12 * 6) / (15 + 1e-6), 14);
});

it("gives groups settings of their own, and defaults to groups of another kind", () => {
  const parameters = [one([1]), one([1]), one([1])];
  const groups = [
    { parameters: [1], lr: 0.25 },
    { parameters: [2], kind: "SGD", lr: 0.5 } as const,
  ];
  const { update } = optimizer({ kind: "Lion", lr: 1, weightDecay: 0.5, parameters, groups });
  update([[2], [2], [2]]);
  expect(parameters.map(({ data }) => data[0])).toEqual([-0.5, 0.625, 0]);
});
