// For linear attention, fuzzing draws everything there is, and nothing that the engine would
// refuse.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { LinearAttentionProblem } from "../../src/linear/options.ts";
import { resolveLinear } from "../../src/linear/problem.ts";
import type { LinearCase } from "../support/linear.ts";
import { linearProblemsOf, linearSets } from "./linear_problems.ts";

const CALLER = { label: "linearAttention", device: {} as GPUDevice };
const problems = linearSets(7, 100).flatMap((set, index) =>
  fc.sample(linearProblemsOf(set), { seed: index, numRuns: 10 }),
);

describe("1,000 drawn problems of linear attention", () => {
  it("are valid", () => {
    for (const problem of problems) resolveLinear(looksOf(problem), CALLER);
  });

  it("have every feature", () => {
    const kind = (value: unknown) => (typeof value === "object" ? "object" : String(value));
    const kinds = (name: keyof LinearCase) =>
      [
        ...new Set(problems.flatMap((problem) => (name in problem ? [kind(problem[name])] : []))),
      ].sort();
    expect(kinds("updateRule")).toEqual(["delta", "gated", "gated_delta", "linear"]);
    expect(kinds("featureMap")).toEqual(["elu", "none"]);
    expect(kinds("variant")).toEqual(["chunked", "recurrent"]);
    expect(kinds("keeps")).toEqual(["place", "present"]);
    for (const name of ["normalized", "causal"] as const)
      expect(kinds(name), name).toEqual(["false", "true"]);
    const flags = ["rowDecay", "sharedBeta", "past", "planned", "poison", "onGpu"] as const;
    for (const name of flags) expect(kinds(name), name).toEqual(["true"]);
    for (const name of [
      "kvLengths",
      "keyMask",
      "dtype",
      "forget",
      "maxDispatchFlops",
      "layout",
    ] as const) {
      expect(kinds(name).length, name).toBeGreaterThan(0);
    }
    expect(
      problems.some(({ H = 1, Hkv = H }) => H < Hkv) &&
        problems.some(({ H = 1, Hkv = H }) => H > Hkv),
    ).toBe(true);
    for (const edge of [0, 1, 31, 32, 33, 63, 64, 65])
      expect(problems.map(({ N }) => N)).toContain(edge);
  });
});

/** Describes the problem by shapes in place of tensors. */
function looksOf(problem: LinearCase): LinearAttentionProblem {
  const {
    B = 1,
    H = 1,
    Hkv = H,
    Hk = Hkv,
    N,
    M = N,
    D,
    Dv = D,
    layout = "bhmd",
    updateRule,
    causal,
    scale,
  } = problem;
  const { featureMap, normalized, variant, maxDispatchFlops, keyMask } = problem;
  const shape = (h: number, n: number, d: number) => ({
    shape: layout === "bhmd" ? [B, h, n, d] : [B, n, h, d],
  });
  const settings = { updateRule, causal, scale, featureMap, normalized, variant, maxDispatchFlops };
  return {
    ...Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)),
    layout,
    q: shape(H, M, D),
    k: shape(Hk, N, D),
    v: shape(Hkv, N, Dv),
    ...(updateRule?.startsWith("gated") && { decay: shape(Hkv, N, problem.rowDecay ? D : 1) }),
    ...(updateRule?.endsWith("delta") && { beta: shape(problem.sharedBeta ? 1 : Hkv, N, 1) }),
    ...(keyMask && { keyMask: { shape: [keyMask.shared ? 1 : B, N], dtype: "u8" as const } }),
  };
}
