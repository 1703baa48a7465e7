// What attention refuses of similarities, in whole sentences, and the functions that are named
// after similarities.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
  additiveAttention,
  attention,
  planAdditiveAttention,
  planAttention,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const spec = (...shape: number[]) => ({ shape });
const GOOD = { q: spec(2, 4, 5, 8), k: spec(2, 2, 7, 8), v: spec(2, 2, 7, 6), label: "attention" };

const PROBLEMS: readonly [what: string, options: object, message: string | RegExp][] = [
  [
    "no such similarity",
    { similarity: "euclidean" },
    'attention: similarity must be "dot", "cosine", or { kind: "l2", "rms" or "additive", ... }, got "euclidean".',
  ],
  [
    "no such kind",
    { similarity: { kind: "dot" } },
    /^attention: similarity must be "dot", .* got \{ kind \}\.$/,
  ],
  [
    "a part of another similarity",
    { similarity: { kind: "rms", vector: [1] } },
    'attention: similarity: there is no option "vector". Options: kind, eps, qWeights, kWeights.',
  ],
  [
    "a vector of another length",
    { similarity: { kind: "additive", vector: [1, 2, 3] } },
    "attention: vector must be a tensor or an array of numbers [8] or [4, 8], got 3.",
  ],
  [
    "an inner bias that is not finite",
    { similarity: { kind: "additive", innerBias: [0, 1, 2, 3, 4, 5, 6, Number.NaN] } },
    "attention: innerBias must be finite numbers of f32, got NaN at 7.",
  ],
  [
    "an inner scale that is none",
    { similarity: { kind: "additive", innerScale: Number.NaN } },
    "attention: innerScale must be a finite number of f32, got NaN.",
  ],
  [
    "a gain of no unit vector",
    { similarity: { kind: "additive", gain: 3 } },
    "attention: gain is the length of a vector with normalize: true; without it, scale the vector.",
  ],
  [
    "an eps of 0",
    { similarity: { kind: "l2", eps: 0 } },
    "attention: similarity.eps must be a number of 1e-30 or more, got 0.",
  ],
  [
    "weights for each head",
    { similarity: { kind: "l2", qWeights: new Array(32).fill(1) } },
    "attention: similarity.qWeights must be a tensor or an array of numbers [8], got 32.",
  ],
  [
    "two temperatures",
    { temperature: 1, logTemperature: 0 },
    "attention: temperature and logTemperature say the same; give one of them.",
  ],
  [
    "a bound of no logarithm",
    { temperature: 1, maxTemperature: 100 },
    "attention: maxTemperature is a positive number up to 18446744073709552000 beside logTemperature, got 100.",
  ],
  [
    "temperatures of other heads",
    { temperature: [1, 2] },
    "attention: temperature must be a tensor or an array of numbers [4], got 2.",
  ],
];

describe("planAttention refuses", () => {
  it.each(PROBLEMS)("%s", async (_, options, message) => {
    const problem = { ...GOOD, ...options } as AttentionProblem;
    await expectError(async () => planAttention(await testDevice(), problem), "argument", message);
  });
});

describe("additive attention by its own name", () => {
  it("refuses another similarity, and what isn't a problem", async () => {
    const device = await testDevice();
    const other = { ...GOOD, similarity: "cosine" } as unknown as AttentionProblem;
    const message = 'attention: there is no option "similarity". attention() takes others.';
    await expectError(() => planAdditiveAttention(device, other), "argument", message);
    const none = undefined as unknown as AttentionProblem;
    const expected =
      "additiveAttention: q must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.";
    await expectError(() => planAdditiveAttention(device, none), "argument", expected);
  });
  it("is attention with that similarity, planned or not, with tensors that may be changed", async () => {
    const device = await testDevice();
    const make = (shape: number[], seed: number) =>
      tensor(device, shape, {
        data: normal(
          seed,
          shape.reduce((a, b) => a * b, 1),
          1,
        ),
      });
    const q = make([1, 2, 5, 16], 1);
    const k = make([1, 2, 9, 16], 2);
    const v = make([1, 2, 9, 16], 3);
    const vector = make([2, 16], 4);
    const shared = { variant: "8x32" } as const;
    const bits = async (output: Tensor) => [...(await output.read())];
    const similarity = { kind: "additive", vector } as const;
    const { output: first } = await attention(q, k, v, { ...shared, similarity });
    const { output: second } = await additiveAttention(q, k, v, { ...shared, vector });
    expect(await bits(second)).toEqual(await bits(first));
    const plan = await planAdditiveAttention(device, { ...shared, q, k, v, vector });
    const other = make([2, 16], 5);
    const third = tensor(device, [1, 2, 5, 16]);
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { output: third, vector: other });
    device.queue.submit([encoder.finish()]);
    const { output: fourth } = await additiveAttention(q, k, v, { ...shared, vector: other });
    expect(await bits(third)).toEqual(await bits(fourth));
    expect(await bits(third)).not.toEqual(await bits(first));
    for (const one of [q, k, v, vector, other, first, second, third, fourth, plan]) one.destroy();
  });
});
