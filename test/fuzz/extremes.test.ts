// The bounds of results of hostile values: a plain evaluation in f32 keeps them, and wrong results
// don't.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type ReferenceOptions,
  type ReferenceTensor,
  attention as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { Case } from "../support/cases.ts";
import { product } from "../support/cases.ts";
import { expectExtremeClose, rowBounds } from "../support/extreme_bounds.ts";
import { addNans, EXTREMES, makeExtreme } from "../support/extremes.ts";
import { defined, featuresOf } from "../support/features.ts";
import { featureSets, problemsOf } from "./problems.ts";
import { rowProblemsOf, rowSets } from "./row_problems.ts";

/** Small problems that have hostile values, and no overflow in f32. */
const problems = featureSets(5, 60)
  .flatMap((set, seed) => fc.sample(problemsOf(set), { seed, numRuns: 30 }))
  .filter(({ extremes, M, N, B = 1, H = 1 }) => extremes && M * N * B * H < 8000 && M * N > 0)
  .slice(0, 80);

/** Makes q, k, v and options of a case on the CPU. */
function onCpu({ B = 1, H = 1, Hkv = H, M, N, D, Dv = D, seed = 1, spread = 1, ...rest }: Case) {
  const { layout = "bhmd", extremes = [] } = rest;
  const make = (
    of: "Q" | "K" | "V",
    heads: number,
    rows: number,
    width: number,
  ): ReferenceTensor => {
    const shape = layout === "bhmd" ? [B, heads, rows, width] : [B, rows, heads, width];
    const data = normal(seed * 8 + "QKV".indexOf(of), product(shape), of === "V" ? 1 : spread);
    makeExtreme(data, width, { of, extremes, seed, f16: false });
    addNans(data, width, { of, extremes, seed });
    return { shape, data };
  };
  const { causal, scale, attentionChunk, sinkTokens, softcap } = rest;
  const features = featuresOf({ ...rest, extremes }, { B, H, M, N, D }, seed);
  const options = {
    ...defined<ReferenceOptions>({ causal, scale, attentionChunk, sinkTokens, softcap, layout }),
    ...features.cpu,
  };
  return { q: make("Q", H, M, D), k: make("K", Hkv, N, D), v: make("V", Hkv, N, Dv), options };
}

describe("bounds of hostile values", () => {
  it.each(["output", "lse", "rowMax"] as const)(
    "are kept by a plain evaluation in f32: %s",
    (what) => {
      const kinds = new Set<string>();
      for (const problem of problems) {
        const { q, k, v, options } = onCpu(problem);
        const f64 = reference(q, k, v, options);
        const plain = reference(q, k, v, { ...options, precision: "f32" });
        const bounds = rowBounds(q, k, v, options).map((row) => row?.[what]);
        const known = (values: Float64Array) =>
          what === "rowMax"
            ? values.map((x, i) => (Number.isNaN(f64.lse[i]) ? Number.NaN : x))
            : values;
        const both = { f64: known(f64[what]), plain: known(plain[what]) };
        expectExtremeClose(
          JSON.stringify(problem),
          known(plain[what]),
          both,
          [f64[what].length],
          "f32",
          bounds,
        );
        for (const kind of problem.extremes ?? []) kinds.add(kind);
      }
      expect([...kinds].sort()).toEqual([...EXTREMES].sort());
    },
  );

  it("refuse NaN that is not there or too much, and what is wrong in an ordinary row beside a huge one", () => {
    const D = 8;
    const q = { shape: [1, 1, 2, D], data: normal(1, 2 * D) };
    const k = { shape: [1, 1, 5, D], data: normal(2, 5 * D) };
    const v = { shape: [1, 1, 5, D], data: normal(3, 5 * D) };
    q.data.subarray(D).forEach((x, d, row) => {
      row[d] = 1e18 * x;
    });
    const { output } = reference(q, k, v);
    const bounds = rowBounds(q, k, v, {}).map((row) => row?.output);
    expect(bounds[0]).toBeUndefined();
    expect(bounds[1]).toBeGreaterThan(0);
    const judge = (index: number, value: number, f64 = output) => {
      const actual = output.slice();
      actual[index] = value;
      return () =>
        expectExtremeClose("output", actual, { f64, plain: output }, [1, 1, 2, D], "f32", bounds);
    };
    expect(judge(0, output[0])).not.toThrow();
    expect(judge(0, output[0] + 1e-4)).toThrow("element [0,0,0,0]");
    expect(judge(D, output[D] + 1e-4)).toThrow("element [0,0,1,0]");
    expect(judge(3, Number.NaN)).toThrow("NaN where nothing that it sees is NaN");
    const missing = output.slice();
    missing[D + 2] = Number.NaN;
    expect(judge(0, output[0], missing)).toThrow("what is not finite must be the same");
  });
});

describe("drawn problems of rows", () => {
  const rows = rowSets(3, 80).flatMap((set, seed) =>
    fc.sample(rowProblemsOf(set), { seed, numRuns: 10 }),
  );
  it("have every operation, every axis and every kind of hostile values", () => {
    const seen = (of: (one: (typeof rows)[number]) => unknown) =>
      new Set(rows.flatMap((one) => of(one)));
    expect(seen(({ op }) => op).size).toBe(10);
    expect(seen(({ extremes = [] }) => extremes).size).toBe(7);
    expect([...seen(({ axis }) => axis)].sort()).toEqual([-1, -2, -3, 0, 1, 2, undefined]);
    expect([...seen(({ epsilon }) => epsilon)].sort()).toEqual([0, 0.00001, 0.1, 1e-12, undefined]);
  });
});
