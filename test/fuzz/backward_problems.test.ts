// Fuzzing of gradients draws everything there is, and nothing that the engine would refuse.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { resolveBackward, type TakenBackward } from "../../src/attention/gradients/problem.ts";
import { loadGradient } from "../../src/attention/gradients/score_function.ts";
import { createBlockMask, tensor } from "../../src/index.ts";
import { BACKWARD_TILES } from "../../src/kernels/gradients/backward_tiles.ts";
import { loadExtension } from "../../src/scores/resolve.ts";
import type { BackwardCase } from "../support/backward_cases.ts";
import { defined, featuresOf } from "../support/features.ts";
import { nowhere } from "../support/nowhere.ts";
import {
  backwardProblemsOf,
  backwardSets,
  rowGradientSets,
  rowGradientsOf,
} from "./backward_problems.ts";

const device = nowhere();
const SETS = 100;
const EACH = 5;
const problems = backwardSets(7, SETS).flatMap((set, index) =>
  fc.sample(backwardProblemsOf(set), { seed: index, numRuns: EACH }),
);

describe("500 drawn problems of attention's gradients", () => {
  it("are valid", async () => {
    for (const problem of problems) await expectValid(problem);
  });

  it("have every tile, every similarity, and gradients of every option", () => {
    const variants = new Set(problems.map(({ variant }) => variant));
    for (const { name } of BACKWARD_TILES) expect(variants).toContain(name);
    const all = problems.filter(({ ofOptions }) => ofOptions);
    const has = (name: keyof BackwardCase) => all.some((problem) => problem[name] !== undefined);
    const options = ["bias", "alibi", "relativeBias", "sinks", "temperature"] as const;
    for (const name of [...options, "scoreFunction"] as const) expect(has(name), name).toBe(true);
    const kinds = all.map(({ similarity }) =>
      typeof similarity === "object" ? similarity.kind : similarity,
    );
    expect([...new Set(kinds)].sort()).toEqual(["additive", "cosine", "l2", "rms", undefined]);
    const flags = ["dLse", "hidden", "given", "poison", "blockSize", "cuSeqlensQ"] as const;
    for (const name of flags) {
      expect(
        problems.some((problem) => problem[name] !== undefined),
        name,
      ).toBe(true);
      expect(
        problems.some((problem) => problem[name] === undefined),
        name,
      ).toBe(true);
    }
  });
});

it("problems of rows have every operation", () => {
  const drawn = rowGradientSets(7, 60).flatMap((set) => fc.sample(rowGradientsOf(set), 3));
  expect(new Set(drawn.map(({ op }) => op)).size).toBe(8);
});

/** Throws the FoveaError of an invalid problem. */
async function expectValid(problem: BackwardCase): Promise<void> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, seed = 1, layout = "bhmd" } = problem;
  const features = featuresOf(problem, { B, H, M, N, D }, seed);
  const { causal, scale, maxDispatchFlops, attentionChunk, sinkTokens, softcap, variant } = problem;
  const shape = (h: number, rows: number, d: number) =>
    layout === "bhmd" ? [B, h, rows, d] : [B, rows, h, d];
  const asked = {
    ...defined({ causal, scale, maxDispatchFlops, attentionChunk, sinkTokens, softcap, variant }),
    layout,
    q: { shape: shape(H, M, D) },
    k: { shape: shape(Hkv, N, D) },
    v: { shape: shape(Hkv, N, Dv) },
    ...features.gpu((size, options) => tensor(device, size, options)),
    ...(features.blockMask && {
      blockMask: await createBlockMask(device, ...features.blockMask),
      maskFunction: undefined,
    }),
    ...(problem.ofOptions && {
      ...Object.fromEntries(Object.keys(features.gradients.options).map((name) => [name, true])),
      dCaptures: Object.fromEntries(
        Object.keys(features.gradients.captures).map((name) => [name, true]),
      ),
    }),
  } as unknown as TakenBackward;
  resolveBackward(asked, await loadExtension(asked), await loadGradient(asked));
}
