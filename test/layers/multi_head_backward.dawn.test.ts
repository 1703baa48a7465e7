// The gradients of the multi-head layer against the float64 reference, which test/reference compares
// with central differences. There is one head dim, because each takes kernels of its own.

import { describe, it } from "vitest";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import {
  type MultiHeadBackwardCase,
  runMultiHeadBackward,
} from "../support/multi_head_backward.ts";

failOnGpuErrors();

const run = async (problem: MultiHeadBackwardCase) =>
  runMultiHeadBackward(await testDevice(), problem);

describe("gradients of self-attention", () => {
  it.each<MultiHeadBackwardCase>([
    { B: 2, H: 3, M: 19, D: 8, E: 20 },
    { H: 4, Hkv: 2, M: 1, D: 8, E: 12, causal: true, dLse: true },
    { B: 2, H: 2, M: 37, D: 8, E: 16, Eo: 0, causal: true, biases: "" },
    { B: 3, H: 4, Hkv: 1, M: 9, D: 8, E: 16, Eo: 24, columns: true },
    { B: 2, H: 2, M: 0, D: 8, E: 16 },
  ])("%j", (problem) => run(problem));
});

describe("gradients of cross-attention", () => {
  it.each<MultiHeadBackwardCase>([
    { B: 2, H: 2, M: 7, N: 40, D: 8, E: 12, Ek: 20, Ev: 28, Eo: 8 },
    { B: 2, H: 2, Hkv: 1, M: 33, N: 5, D: 8, E: 12, Ek: 20, kvLengths: [5, 2] },
    { B: 1, H: 2, M: 3, N: 0, D: 8, E: 12 },
    { B: 2, H: 4, Hkv: 2, M: 9, N: 12, D: 6, Dv: 10, E: 9, Ek: 11, Ev: 15, Eo: 13 },
  ])("%j", (problem) => run(problem));
});

describe("gradients with masks of either convention, and options", () => {
  const sizes = { B: 2, H: 2, M: 9, N: 35, D: 8, E: 12 };
  it.each<MultiHeadBackwardCase>([
    { ...sizes, keys: { means: "ignore" }, bias: { axes: "MN" }, ofOptions: ["dBias"] },
    { ...sizes, keys: { means: "keep", bits: true }, mask: { axes: "MN" }, ignores: true },
    { ...sizes, mask: { axes: "HN" }, qLengths: [4, 9], dropout: { p: 0.4, seed: 5 } },
    { ...sizes, sinks: true, onGpu: true, ofOptions: ["dSinks"], dLse: true },
  ])("%j", (problem) => run(problem));
});

describe("gradients with added keys", () => {
  const sizes = { B: 2, H: 4, Hkv: 2, M: 11, D: 8, E: 16 };
  it.each<MultiHeadBackwardCase>([
    { ...sizes, zeroAttention: true },
    { ...sizes, zeroAttention: true, sinks: true, ofOptions: ["dSinks"] },
    { ...sizes, learnedKey: true, causal: true, dLse: true },
    { ...sizes, learnedKey: true, zeroAttention: true, kvLengths: [0, 5], qLengths: [11, 4] },
    { ...sizes, learnedKey: true, Eo: 0, N: 6, Ek: 4, softcap: 3, dropout: { p: 0.4, seed: 5 } },
  ])("%j", (problem) => run(problem));
});

// As many keys as the head dim has columns, so that their kernels are those of the values.
describe("gradients of probabilities", () => {
  const sizes = { B: 2, H: 4, Hkv: 2, M: 8, D: 8, E: 16 };
  it.each<MultiHeadBackwardCase>([
    { ...sizes, dWeights: "perHead", causal: true },
    { ...sizes, N: 8, dWeights: "mean", bias: { axes: "HMN" }, ofOptions: ["dBias"] },
    {
      ...sizes,
      N: 7,
      learnedKey: true,
      zeroAttention: true,
      dWeights: "perHead",
      dropout: { p: 0.4, seed: 5 },
    },
    { ...sizes, zeroAttention: true, sinks: true, dWeights: "mean", ofOptions: ["dSinks"] },
  ])("%j", (problem) => run(problem));
});
