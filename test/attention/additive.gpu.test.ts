// Similarities other than the dot product, with every feature of the forward kernel: additive
// attention, cosine similarity and normalised rows.

import { describe, expect, it } from "vitest";
import { attention, attentionWeights, tensor } from "../../src/index.ts";
import { attention as reference, attentionScores as weights } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { breadth } from "../support/breadth.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { runTopKeys, runWeights } from "../support/weights.ts";

failOnGpuErrors();

// The smallest tile compiles fastest. Cases of a group share a kernel.
const all = (shared: Partial<Case>, problems: readonly Partial<Case>[]) => {
  for (const problem of problems) {
    const whole = { variant: "8x32", D: 16, H: 2, M: 37, N: 70, ...shared, ...problem } as Case;
    it(title(problem as Case) || "as it is", async () => runCase(await testDevice(), whole));
  }
};
const many = {
  bias: { axes: "HMN", blocked: 0.2 },
  mask: { axes: "BMN" },
  alibi: "H",
  softcap: 3,
  sinks: true,
} as const;
const lengths = { B: 2, kvLengths: [70, 41], qLengths: [20, 37], poison: true };
const packed = { M: 81, N: 133, cuSeqlensQ: [0, 44, 44, 81], cuSeqlensKv: [0, 33, 80, 133] };

describe("additive", () => {
  all({ similarity: { kind: "additive" } }, [
    { M: 1, N: 1 },
    { M: 31, N: 33 },
    { M: 33, N: 97, H: 4, Hkv: 2, B: 2 },
    { M: 70, N: 64, causal: true },
    { window: [9, 3], attentionChunk: 23 },
    { N: 0 },
    { spread: 30 }, // numbers beyond the range of the terms, in some tiles or all of them
    { spread: 12, N: 200, seed: 3 },
    { spread: 0.01 },
    {
      similarity: { kind: "additive", perHead: true, innerScale: -0.7 },
      onGpu: true,
      layout: "bmhd",
    },
    { maxDispatchFlops: 1 },
  ]);
});

// These kernels hold rows in registers, for software adapters.
describe("additive in quads", () => {
  all({ similarity: { kind: "additive" }, variant: "8x4-quad" }, [
    { M: 1, N: 1 },
    { M: 33, N: 97, H: 4, Hkv: 2, B: 2 },
    { M: 70, N: 64, causal: true },
    { window: [9, 3], attentionChunk: 23 },
    { N: 0 },
    { spread: 30 },
    { spread: 12, N: 200, seed: 3 },
    { spread: 0.01 },
    {
      similarity: { kind: "additive", perHead: true, innerScale: -0.7 },
      onGpu: true,
      layout: "bmhd",
    },
    { maxDispatchFlops: 1 },
  ]);
  all({ similarity: { kind: "additive" }, variant: "64x4" }, [
    { M: 70, causal: true },
    { spread: 30 },
  ]);
  for (const variant of breadth("16x4-quad"))
    all({ similarity: { kind: "additive" }, D: 36, Dv: 8 }, [
      { variant },
      { variant, spread: 8, seed: 4 },
    ]);
});

describe("additive with everything", () => {
  const similarity = { kind: "additive", perHead: true, innerBias: true, normalize: true } as const;
  const other = {
    relativeBias: { buckets: 8 },
    dropout: { p: 0.3, seed: 5 },
    temperature: "log",
    rowMax: true,
  } as const;
  all({ similarity, ...many, ...lengths, ...other, dtype: ["f16", "bf16", "f16", "f32"] }, [
    { onGpu: true },
    { spread: 25, causal: true, H: 4, Hkv: 2 },
    { variant: "8x4-quad", onGpu: true, seed: 6 },
    { variant: "8x4-quad", spread: 25, causal: true, H: 4, Hkv: 2 },
  ]);
});

describe("additive of rows that fill no vec4, one after the other, with functions", () => {
  const functions = { scoreFunction: "weighted", maskFunction: "dilated" } as const;
  all({ similarity: { kind: "additive", innerBias: true }, D: 5, Dv: 7, ...packed }, [
    functions,
    { ...functions, spread: 25 },
    { ...functions, spread: 5, variant: "8x4-quad" },
  ]);
});

describe("additive in chunks that q and k do not fill", () => {
  for (const variant of ["8x32", ...breadth("64x64")])
    all({ similarity: { kind: "additive", innerBias: true }, D: 36, Dv: 8, variant }, [
      { M: 65, N: 97, variant },
      { spread: 25, variant },
    ]);
});

describe("cosine similarity", () => {
  all({ similarity: "cosine", temperature: "log" }, [
    { H: 4, Hkv: 2, B: 2, M: 65, N: 33 },
    { spread: 1e4, onGpu: true, causal: true },
  ]);
  // Problems of few queries are decoded.
  all({ similarity: "cosine", temperature: "log", variant: "decode" }, [
    { H: 4, Hkv: 2, B: 2, M: 1, N: 133 },
  ]);
});

describe("normalised rows", () => {
  all(
    { similarity: { kind: "rms", weights: true }, temperature: "plain", D: 5, Dv: 4, ...packed },
    [{}, { onGpu: true }],
  );
  all({ similarity: { kind: "l2", weights: true }, ...many, ...lengths, dtype: "f16" }, [{}]);
});

describe("rows of any length", () => {
  const D = 16;
  const scales = [1, 1e19, 1e30, 3e38, 1e-20, 1e-29, 0];
  const noise = (seed: number, rows: number) =>
    normal(seed, rows * D).map((x) => Math.max(-1, Math.min(1, x)));
  const scaled = (seed: number) =>
    noise(seed, scales.length).map((x, i) => x * scales[Math.floor(i / D)]);
  const shape = [1, 1, scales.length, D];
  const [q, k] = [scaled(31), scaled(32)].map((data) => ({ shape, data }));
  const v = { shape, data: noise(33, scales.length) };

  it.each([
    ["8x32", "cosine"],
    ["8x4-quad", "cosine"],
    ["decode", "cosine"],
    ["decode-64-quad", "cosine"],
    ["8x32", { kind: "l2", eps: 1e-30 }],
    ["8x32", { kind: "rms", eps: 1e-30 }],
  ] as const)("%s: %j is what float64 has", async (variant, similarity) => {
    const device = await testDevice();
    // problems of few queries are decoded: the first rows and the last ones
    const queries = variant.startsWith("decode") ? 4 : 0;
    for (const start of queries ? [0, scales.length - queries] : [0]) {
      const rows = queries || scales.length;
      const some = { shape: [1, 1, rows, D], data: q.data.slice(start * D, (start + rows) * D) };
      const inputs = [some, k, v].map(({ shape, data }) => tensor(device, shape, { data }));
      const { output } = await attention(inputs[0], inputs[1], inputs[2], {
        similarity,
        variant,
        scale: 3,
      });
      const f64 = reference(some, k, v, { similarity, scale: 3 }).output;
      expectClose("output", await output.read(), { f64, plain: f64.map(Math.fround) }, some.shape);
      for (const one of [...inputs, output]) one.destroy();
    }
  });
  it("have the scores of float64, and zeros the score 0", async () => {
    const device = await testDevice();
    const inputs = [q, k].map(({ shape, data }) => tensor(device, shape, { data }));
    for (const similarity of ["cosine", { kind: "l2", eps: 1e-30 }] as const) {
      const scores = await attentionWeights(inputs[0], inputs[1], { stage: "raw", similarity });
      const f64 = weights(q, k, { stage: "raw", similarity });
      const found = await scores.read();
      expectClose("scores", found, { f64, plain: f64.map(Math.fround) }, [
        scales.length,
        scales.length,
      ]);
      expect(new Set(found.slice(-scales.length))).toEqual(new Set([0]));
      scores.destroy();
    }
    for (const one of inputs) one.destroy();
  });
  it("vectors are of unit length whatever their own", async () => {
    const device = await testDevice();
    const inputs = [q, k].map((_, i) =>
      tensor(device, shape, { data: noise(34 + i, scales.length) }),
    );
    const [a, b] = await Promise.all(inputs.map((one) => one.read()));
    for (const scale of [1e-30, 1e-20, 1e20, 1e30]) {
      const vector = Array.from(normal(36, D), (x) => x * scale);
      const similarity = { kind: "additive", vector, normalize: true } as const;
      const scores = await attentionWeights(inputs[0], inputs[1], { stage: "raw", similarity });
      const f64 = weights(
        { shape, data: a as Float32Array },
        { shape, data: b as Float32Array },
        { stage: "raw", similarity },
      );
      const both = { f64, plain: f64.map(Math.fround) };
      expectClose(`vector of ${scale}`, await scores.read(), both, [scales.length, scales.length]);
      scores.destroy();
    }
    for (const one of inputs) one.destroy();
  });
});

describe("weights and best keys", () => {
  const additive = {
    D: 16,
    H: 3,
    M: 21,
    N: 45,
    similarity: { kind: "additive", innerBias: true },
  } as const;
  const cosine = {
    D: 16,
    H: 4,
    Hkv: 2,
    M: 21,
    N: 45,
    similarity: "cosine",
    temperature: "plain",
    softcap: 3,
  } as const;
  it.each(["raw", "capped", "scores", "probabilities"] as const)("%s", async (stage) => {
    const device = await testDevice();
    await runWeights(device, { ...additive, rows: [20, 3], heads: [2, 0] }, { stage });
    await runWeights(device, { ...additive, spread: 25 }, { stage });
    await runWeights(device, { ...cosine, rows: [20, 3], heads: [3, 0] }, { stage });
  });
  it("best keys", async () => {
    await runTopKeys(await testDevice(), { ...additive, causal: true }, 5);
    await runTopKeys(await testDevice(), { ...cosine, B: 2 }, 9);
  });
});
