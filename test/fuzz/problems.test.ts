// Fuzzing draws everything there is, and nothing that the engine would refuse.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { resolveProblem } from "../../src/attention/resolve.ts";
import { createBlockMask, tensor } from "../../src/index.ts";
import { loadExtension } from "../../src/scores/resolve.ts";
import type { Case } from "../support/cases.ts";
import { featuresOf } from "../support/features.ts";
import { nowhere } from "../support/nowhere.ts";
import { featureSets, problemsOf } from "./problems.ts";

const device = nowhere();

const SETS = 100;
const EACH = 10;
/** 1,000 problems. */
const problems = featureSets(7, SETS).flatMap((set, index) =>
  fc.sample(problemsOf(set), { seed: index, numRuns: EACH }).map((problem) => ({ set, problem })),
);

describe("1,000 drawn problems", () => {
  it("are valid", async () => {
    for (const { problem } of problems) await expectValid(problem);
  });

  it("have every feature, alone of its kind and not", () => {
    const seen = new Map<string, Set<string>>();
    for (const { problem } of problems) {
      for (const [name, value] of Object.entries(problem)) {
        const values = seen.get(name) ?? new Set();
        seen.set(name, values.add(typeof value === "string" ? value : kindOf(value)));
      }
    }
    const kinds = (name: keyof Case) => [...(seen.get(name) ?? [])].sort();
    expect(kinds("causal")).toEqual(["bottom-right", "false", "top-left", "true"]);
    expect(kinds("queryOffset")).toEqual(["list", "number"]);
    expect(kinds("variant")).toEqual([
      "16x4-quad",
      "32x32",
      "64x32",
      "64x4",
      "64x64",
      "8x32",
      "8x4-quad",
      "decode-16",
      "decode-4-quad",
      "decode-64",
      "decode-64-quad",
    ]);
    expect(kinds("scoreFunction")).toEqual(["halved", "hiding", "sloped", "weighted"]);
    expect(kinds("maskFunction")).toEqual(["causal", "dilated", "heads", "nothing", "window"]);
    expect(kinds("alibi")).toEqual(["BH", "H"]);
    const lists: (keyof Case)[] = [
      "kvLengths",
      "qLengths",
      "cuSeqlensQ",
      "cuSeqlensKv",
      "window",
      "blockSize",
    ];
    for (const name of lists) expect(kinds(name), name).toEqual(["list"]);
    const flags: (keyof Case)[] = ["sinks", "rowMax", "onGpu", "poison"];
    for (const name of flags) expect(kinds(name), name).toEqual(["true"]);
    const numbers: (keyof Case)[] = [
      "attentionChunk",
      "softcap",
      "scale",
      "spread",
      "maxDispatchFlops",
      "Dv",
    ];
    for (const name of numbers) expect(kinds(name), name).toEqual(["number"]);
    const given: (keyof Case)[] = ["relativeBias", "dropout", "bias", "mask", "layout"];
    for (const name of given) expect(seen.has(name), name).toBe(true);
  });

  it("have the sizes at which kernels go wrong", () => {
    const all = problems.map(({ problem }) => problem);
    for (const edge of [0, 1, 31, 32, 33, 63, 64, 65]) {
      expect(
        all.some(({ M }) => M === edge),
        `M = ${edge}`,
      ).toBe(true);
      expect(
        all.some(({ N }) => N === edge),
        `N = ${edge}`,
      ).toBe(true);
    }
    expect(all.some(({ N }) => N > 300)).toBe(true);
    expect(all.some(({ M, N }) => M > N) && all.some(({ M, N }) => M < N)).toBe(true);
    expect(all.some(({ H, Hkv }) => H !== Hkv)).toBe(true);
    expect(all.some(({ mask }) => mask?.bits) && all.some(({ mask }) => mask && !mask.bits)).toBe(
      true,
    );
    expect(all.some(({ bias }) => bias?.blocked)).toBe(true);
    const rows = ({ cuSeqlensQ = [] }: Case) =>
      cuSeqlensQ.slice(1).map((end, b) => end - cuSeqlensQ[b]);
    expect(all.some((problem) => rows(problem).includes(0))).toBe(true);
  });

  it("are the same for the same seed, and others for another", () => {
    expect(featureSets(7, SETS)).toEqual(
      problems.filter((_, index) => index % EACH === 0).map(({ set }) => set),
    );
    expect(featureSets(8, SETS)).not.toEqual(featureSets(7, SETS));
  });
});

const kindOf = (value: unknown) =>
  Array.isArray(value) ? "list" : typeof value === "boolean" ? `${value}` : typeof value;

/** Throws the FoveaError of an invalid problem. */
async function expectValid(problem: Case): Promise<void> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, seed = 1 } = problem;
  const features = featuresOf(problem, { B, H, M, N, D: problem.D }, seed);
  const {
    causal,
    scale,
    maxDispatchFlops,
    attentionChunk,
    softcap,
    layout = "bhmd",
    variant,
  } = problem;
  const shape = (h: number, rows: number, d: number) =>
    layout === "bhmd" ? [B, h, rows, d] : [B, rows, h, d];
  const blockMask = features.blockMask && {
    blockMask: await createBlockMask(device, ...features.blockMask),
    maskFunction: undefined,
  };
  const given = Object.entries({
    causal,
    scale,
    maxDispatchFlops,
    attentionChunk,
    softcap,
    variant,
  });
  const asked = {
    ...Object.fromEntries(given.filter(([, value]) => value !== undefined)),
    layout,
    q: { shape: shape(H, M, D) },
    k: { shape: shape(Hkv, N, D) },
    v: { shape: shape(Hkv, N, Dv) },
    ...features.gpu((size, options) => tensor(device, size, options)),
    ...blockMask,
  } as Parameters<typeof resolveProblem>[0];
  resolveProblem(asked, await loadExtension(asked));
}
