// The gradients of attention through similarities other than products, and those of what the
// similarities hold, against the float64 reference.

import { describe, expect, it } from "vitest";
import { attention, attentionBackward, planAttentionBackward, tensor } from "../../../src/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { type BackwardCase, runBackwardCase } from "../../support/backward_cases.ts";
import { title } from "../../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";

failOnGpuErrors();

function cases(what: string, problems: readonly BackwardCase[]): void {
  describe(what, () => {
    for (const problem of problems)
      it(title(problem), async () => runBackwardCase(await testDevice(), problem));
  });
}

const SMALL = { H: 2, D: 8 } as const;
const WEIGHTS = ["dQWeights", "dKWeights"] as const;

// One kernel for rows of each norm: magnitudes and lengths are no constants.
const RMS = {
  ...SMALL,
  similarity: { kind: "rms", weights: true },
  ofSimilarity: WEIGHTS,
} as const;
cases("normalised rows", [
  { ...RMS, M: 9, N: 37, dLse: true },
  { ...RMS, B: 2, H: 4, Hkv: 2, M: 70, N: 133, causal: true },
  { ...RMS, M: 9, N: 37, spread: 1e-19, gradientSpread: 1e3 },
  { ...RMS, M: 9, N: 37, spread: 1e19, gradientSpread: 1e-3 },
  {
    ...RMS,
    B: 3,
    M: 20,
    N: 37,
    qLengths: [20, 7, 0],
    kvLengths: [37, 0, 13],
    causal: true,
    poison: true,
  },
  {
    ...RMS,
    M: 60,
    N: 90,
    cuSeqlensQ: [0, 5, 5, 40, 57],
    cuSeqlensKv: [0, 40, 45, 45, 80],
    causal: true,
    poison: true,
  },
]);
cases("rows of length 1", [
  { H: 1, M: 9, N: 20, D: 6, similarity: "cosine", temperature: "log" },
  {
    H: 2,
    M: 20,
    N: 37,
    D: 6,
    layout: "bmhd",
    dtype: ["bf16", "f16", "bf16", "f32"],
    similarity: { kind: "l2", weights: true },
    ofSimilarity: WEIGHTS,
    softcap: 1,
  },
]);

const ADDITIVE = {
  ...SMALL,
  similarity: { kind: "additive", innerBias: true, innerScale: 0.7 },
  ofSimilarity: ["dVector", "dInnerBias", "dInnerScale"],
} as const;
cases("additive attention", [
  { ...ADDITIVE, M: 9, N: 37, dLse: true },
  { ...ADDITIVE, B: 2, H: 4, Hkv: 2, M: 70, N: 45, causal: true },
  { ...ADDITIVE, M: 9, N: 37, spread: 1e-3, gradientSpread: 1e3 },
  { ...ADDITIVE, M: 9, N: 37, spread: 40, gradientSpread: 1e-3 },
  {
    ...ADDITIVE,
    M: 30,
    N: 50,
    cuSeqlensQ: [0, 5, 5, 20, 27],
    cuSeqlensKv: [0, 10, 15, 15, 44],
    causal: true,
    poison: true,
  },
  {
    H: 3,
    M: 20,
    N: 37,
    D: 6,
    layout: "bmhd",
    dtype: ["f16", "bf16", "f32", "f32"],
    similarity: { kind: "additive", perHead: true, innerBias: true, normalize: true },
    ofSimilarity: ["dVector", "dInnerBias", "dGain"],
    softcap: 2,
    dropout: { p: 0.3, seed: 7 },
  },
]);
