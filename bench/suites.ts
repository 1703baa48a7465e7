// The suites of `npm run bench`.

import { planAttention } from "../src/index.ts";
import { FORWARD_TILES } from "../src/kernels/forward_tiles.ts";
import { normal } from "../src/reference/random.ts";
import { additiveContest } from "./additive.ts";
import { attentionContest } from "./attention.ts";
import { backwardContest, longBackwardContest } from "./backward.ts";
import { backwardLadderContest } from "./backward_ladder.ts";
import { COPY } from "./copy.ts";
import type { Dims } from "./cost.ts";
import { GENERATION } from "./generation.ts";
import type { Implementation } from "./harness.ts";
import { ADDITIVE_LADDER, LADDER } from "./ladder.ts";
import { layerContest } from "./layers.ts";
import { linearContest } from "./linear.ts";
import { matvecContest } from "./matvec.ts";
import { modelContests } from "./models/suite.ts";
import { PEAK } from "./peak.ts";
import type { Contest } from "./peers/contest.ts";
import { trainingContest } from "./training.ts";
import { cutTo, WORKLOADS } from "./workloads.ts";

export interface Case {
  readonly name: string;
  readonly dims: Dims;
  readonly implementations: readonly Implementation[];
  /**
   * Whether it is timed in turns with the other cases of the suite, so that they can be compared.
   */
  readonly together?: boolean;
}

/** Runs what the tile table chooses. */
export const FOVEA: Implementation = { name: "fovea", plan: planAttention };

const variant = (name: string): Implementation => ({
  name: `fovea:${name}`,
  plan: (device, problem) => planAttention(device, { ...problem, variant: name }),
});

/** Multiplies by the device's subgroup matrices, if it has them. */
const matrices = (component: "f16" | "f32"): Implementation => ({
  ...variant(`matrix-${component}`),
  optional: true,
});

const square = (length: number, D: number, causal: boolean): Dims => ({
  B: 1,
  H: 8,
  Hkv: 8,
  M: length,
  N: length,
  D,
  Dv: D,
  causal,
});

/** Cases of a token of 8 heads, and of 32 heads that share 8 key heads, after `length` tokens. */
const decoding = (length: number): Case[] =>
  [8, 32].map((H) => ({
    name: `T=${length} H=${H}${H > 8 ? "/8" : ""} D=64`,
    dims: { ...square(length, 64, true), H, M: 1 },
    implementations: [FOVEA, ...(H > 8 || length === 1024 ? [variant("decode-64")] : []), COPY],
    together: true,
  }));

/**
 * Cases of a token that joins a cache and attends to all of it: 8 heads, with 8 key heads or one
 * for all.
 */
const generating = (length: number): Case[] =>
  [8, 1].map((Hkv) => ({
    name: `${length} keys, H=8/${Hkv} D=64`,
    dims: { ...square(length, 64, true), Hkv, M: 1 },
    implementations: [GENERATION],
    together: true,
  }));

/**
 * Lengths of suite `scale` on a GPU, its window, and the longest N at which libraries take part, on
 * a GPU and on a software adapter.
 */
const LENGTHS = [128, 512, 2048, 8192, 32768, 65536];
const WINDOW = 1024;
const LIBRARIES_TO = { gpu: 8192, software: 2048 };

/**
 * Attention of N queries to N keys, or to WINDOW of them. Libraries have no windows, and keep N x N
 * scores.
 */
function scaled(N: number, software: boolean, window?: number): Contest {
  const H = software ? 1 : 8;
  const dims = { ...square(N, 64, window !== undefined), H, Hkv: H, ...(window && { window }) };
  const libraries = !window && N <= LIBRARIES_TO[software ? "software" : "gpu"];
  const name = `N=${N} H=${H} D=64${window ? ` window ${window}` : ""}`;
  return attentionContest(name, dims, { libraries, mostRounds: N > 1024 ? 3 : 7 });
}

/** Lengths of suite `backward`, on a software adapter and on a GPU, and their head dims. */
const GRADIENTS = [
  { short: 512, long: 1024, D: 64 },
  { short: 1024, long: 4096, D: 64 },
  { short: 512, long: 2048, D: 128 },
] as const;

/** Gradients without a mask and with a causal one, in turns. */
function gradientPair(length: number, D: number): Contest[] {
  const name = `S=${length} H=8 D=${D}`;
  const together = { together: name };
  return [
    backwardContest(name, square(length, D, false), together),
    backwardContest(`${name} causal`, square(length, D, true), { ...together, full: name }),
  ];
}

/** A learned vector of additive attention, as layers initialise it. */
const VECTOR = Array.from(normal(5, 128, Math.sqrt(1 / 128)));

/** Prompts that fit a software adapter, and a GPU. */
const PREFILLS = [
  { short: 512, long: 4096, D: 64, variants: ["64x64", "64x32"] },
  { short: 256, long: 2048, D: 128, variants: ["64x32-wide", "64x32"] },
] as const;

/** Cases of each suite. A software adapter gets lengths that it can compute in a second. */
export const SUITES: Readonly<Record<string, (software: boolean) => (Case | Contest)[]>> = {
  /** All rungs of the ladder on the same problem. */
  ladder: (software) =>
    (software ? [64, 256] : [512, 2048]).map((length) => ({
      name: `N=${length} H=8 D=64`,
      dims: square(length, 64, false),
      implementations: LADDER,
    })),
  /**
   * Every variant of the forward kernel that a device may get for the head dim, and what the table
   * chooses.
   */
  forward: (software) =>
    [64, 128].flatMap((D) =>
      [false, true].map((causal) => {
        const length = software ? 256 : 2048;
        const devices = ["all", software ? "software" : "gpus"];
        const able = FORWARD_TILES.filter(
          (tile) => D <= tile.maxHeadDim && devices.includes(tile.devices) && tile.form !== "half",
        );
        return {
          name: `N=${length} H=8 D=${D}${causal ? " causal" : ""}`,
          dims: square(length, D, causal),
          implementations: [FOVEA, ...able.map(({ name }) => variant(name))],
        };
      }),
    ),
  /** A whole prompt at once, beside other libraries; and what a causal mask saves. */
  prefill: (software) => [
    ...PREFILLS.map(({ short, long, D, variants }) => {
      const length = software ? short : long;
      return attentionContest(`S=${length} H=8 D=${D}`, square(length, D, false), { variants });
    }),
    ...[false, true].map((causal): Case => {
      const length = software ? 1024 : 4096;
      const name = `S=${length} H=8 D=64${causal ? " causal" : ""}`;
      const implementations = [FOVEA, matrices("f32"), PEAK];
      return { name, dims: square(length, 64, causal), implementations, together: true };
    }),
  ],
  /**
   * A whole prompt in f16: products in f32, in f16 if that is allowed, and by subgroup matrices.
   */
  half: (software) =>
    PREFILLS.map(({ short, long, D }): Case => {
      const length = software ? short : long;
      const inF16 = { ...variant(D === 64 ? "64x64-f16" : "64x32-f16"), optional: true };
      return {
        name: `S=${length} H=8 D=${D} f16`,
        dims: { ...square(length, D, false), dtype: "f16" },
        implementations: [FOVEA, variant("64x32"), inF16, matrices("f16"), PEAK],
      };
    }),
  /** One token after many, beside a copy of as many bytes, and beside other libraries. */
  decode: (software) => [
    ...(software ? [1024, 2048, 4096, 8192] : [1024, 4096, 16384, 65536]).flatMap(decoding),
    ...[1024, 4096].map((length) =>
      attentionContest(`T=${length} H=8 D=64 beside others`, { ...square(length, 64, true), M: 1 }),
    ),
  ],
  /** A problem so small that a call is all overhead. */
  small: () => [
    attentionContest(
      "S=16 H=1 D=64",
      { ...square(16, 64, false), H: 1, Hkv: 1 },
      { overhead: true },
    ),
  ],
  /**
   * From short to long: all keys while that is quick enough, and a window, with which time is
   * linear in N.
   */
  scale: (software) => [
    ...(software ? [128, 512, 2048, 8192] : LENGTHS).map((N) => scaled(N, software)),
    ...(software ? [4096, 16384, 65536] : LENGTHS.filter((N) => N > WINDOW)).map((N) =>
      scaled(N, software, WINDOW),
    ),
  ],
  /** A step of generation with so many keys in the cache. */
  generate: (software) => [128, 1024, 4096, 8192, ...(software ? [] : [65536])].flatMap(generating),
  /**
   * Causal linear attention, whose time for a token must not grow with N; beside other libraries
   * while N is short.
   */
  linear: (software) =>
    [1024, 4096, 16384, 65536].map((length) =>
      linearContest(length, software ? 1 : 8, 64, !software || length <= 4096),
    ),
  /**
   * Multi-head attention with its projections: the textbooks' layer of 8 heads on (32, 512, 512),
   * and a longer one.
   */
  mha: (software) =>
    software
      ? [layerContest(1, 128, 8, 64)]
      : [layerContest(32, 512, 8, 64), layerContest(1, 2048, 8, 64)],
  /** Products of few rows, as in decoding, with weights of f32, int8 and int4. */
  matvec: (software) =>
    (software ? [1024, 2048] : [4096, 14336]).flatMap((K) => {
      const N = software ? 2 ** 20 / K : 4096;
      return (K === 1024 || !software ? [1, 8] : [1]).map((M) =>
        matvecContest([M, K, N], software),
      );
    }),
  /** Attention and its gradients, beside the automatic differentiation of other libraries. */
  backward: (software) =>
    GRADIENTS.flatMap(({ short, long, D }) => gradientPair(software ? short : long, D)),
  /** All rungs of the ladder of gradients on the same problem. */
  "backward-ladder": (software) =>
    (software ? [256, 512] : [512, 2048]).map((length) =>
      backwardLadderContest(`N=${length} H=8 D=64`, square(length, 64, false)),
    ),
  /** Gradients from 1,024 tokens to 8,192, whose memory must grow with the tokens only. */
  "backward-long": (software) =>
    [1024, 2048, 4096, 8192].map((length) => {
      const H = software ? 1 : 8;
      const dims = { ...square(length, 64, false), H, Hkv: H };
      return longBackwardContest(`N=${length} H=${H} D=64`, dims, length > 2048 ? 1 : 5);
    }),
  /** A step of training a small GPT, beside other libraries. */
  training: () => [trainingContest()],
  /** Tokens and prompts of decoders, beside other libraries. */
  models: () => modelContests(),
  /** Additive attention by naive steps and fused, and beside other libraries. */
  additive: (software) =>
    (software ? [256, 1024] : [64, 1024, 4096]).flatMap((length) => {
      const similarity = { kind: "additive", vector: VECTOR } as const;
      const dims = { ...square(length, 128, false), H: 2, Hkv: 2, similarity };
      const name = `N=${length} H=2 D=128`;
      return [{ name, dims, implementations: ADDITIVE_LADDER }, additiveContest(dims, VECTOR)];
    }),
  /** One layer of real models. */
  workloads: (software) =>
    WORKLOADS.map((workload) =>
      cutTo(workload, software ? SOFTWARE_FLOPS : Number.POSITIVE_INFINITY),
    ).map((dims) => ({
      name: dims.name,
      dims,
      implementations: [FOVEA],
    })),
};

/** Operations of a workload on a software adapter, which does about one in a nanosecond. */
export const SOFTWARE_FLOPS = 8e8;
