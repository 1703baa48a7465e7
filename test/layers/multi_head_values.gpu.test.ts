// The layer against the float64 reference. There is one head dim, and few sets of options, because
// each needs kernels of its kind; sizes, lengths and masks vary. Fuzzing (`--suite mha`) covers the
// rest.

import { describe, it } from "vitest";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { type MultiHeadCase, runMultiHead } from "../support/multi_head.ts";

failOnGpuErrors();

const run = async (problem: MultiHeadCase) => runMultiHead(await testDevice(), problem);

describe("self-attention", () => {
  it.each<MultiHeadCase>([
    { B: 2, H: 3, M: 35, D: 8, E: 20 },
    { H: 4, Hkv: 2, M: 1, D: 8, E: 12, causal: true },
    { B: 2, H: 2, M: 37, D: 8, E: 16, Eo: 0, causal: true, biases: "" },
    { B: 3, H: 4, Hkv: 1, M: 9, D: 8, E: 16, Eo: 24, columns: true },
    { B: 2, H: 2, M: 0, D: 8, E: 16 },
  ])("%j", (problem) => run(problem));
});

describe("cross-attention", () => {
  it.each<MultiHeadCase>([
    { B: 2, H: 2, M: 7, N: 40, D: 8, E: 12, Ek: 20, Ev: 28, Eo: 8 },
    { B: 2, H: 2, Hkv: 1, M: 33, N: 5, D: 8, E: 12, Ek: 20, kvLengths: [5, 2] },
    { B: 1, H: 2, M: 3, N: 0, D: 8, E: 12 },
  ])("%j", (problem) => run(problem));
  it("with values of another head dim, and sizes that no vec4 divides", () =>
    run({ B: 2, H: 4, Hkv: 2, M: 9, N: 12, D: 6, Dv: 10, E: 9, Ek: 11, Ev: 15, Eo: 13 }));
});

describe("masks of either convention", () => {
  const sizes = { B: 2, H: 2, M: 9, N: 70, D: 8, E: 12 };
  it.each<MultiHeadCase>([
    { ...sizes, keys: { means: "ignore" } },
    { ...sizes, keys: { means: "keep", bits: true }, mask: { axes: "MN" }, ignores: true },
    {
      ...sizes,
      keys: { means: "ignore", bits: true },
      mask: { axes: "BHMN", bits: true },
      ignores: true,
    },
    { ...sizes, N: 33, mask: { axes: "HN" }, ignores: true },
    { ...sizes, N: 1, keys: { means: "ignore" }, mask: { axes: "" }, ignores: true },
  ])("%j", (problem) => run(problem));
  it("with nothing to join", async () => {
    await run({ ...sizes, keys: { means: "keep" } });
    await run({ ...sizes, mask: { axes: "M" } });
  });
});

describe("added keys", () => {
  const sizes = { B: 2, H: 4, Hkv: 2, M: 11, D: 8, E: 16 };
  it.each<MultiHeadCase>([
    { ...sizes, zeroAttention: true, weights: "perHead" },
    { ...sizes, zeroAttention: true, sinks: true },
    { ...sizes, zeroAttention: true, sinks: true, onGpu: true, weights: "mean" },
    { ...sizes, learnedKey: true, causal: true, weights: "mean" },
    { ...sizes, M: 0, N: 1, learnedKey: true, zeroAttention: true, weights: "perHead" },
    {
      ...sizes,
      learnedKey: true,
      zeroAttention: true,
      kvLengths: [0, 5],
      qLengths: [11, 4],
      weights: "perHead",
    },
    { ...sizes, learnedKey: true, Eo: 0, N: 6, Ek: 4, softcap: 3, dropout: { p: 0.4, seed: 5 } },
  ])("%j", (problem) => run(problem));
});

describe("storage", () => {
  it("of 16 bits, all through", () =>
    run({ B: 2, H: 2, M: 19, D: 8, E: 16, dtype: "f16", storage: "f16" }));
});
