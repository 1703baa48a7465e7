// An attention problem as a caller gives it: its tensors, its kernels, and the options of its
// scores.

import type { OptionNames, Taken } from "../given.ts";
import type { TimingSource } from "../gpu/timing.ts";
import type { ScoreOptions } from "../scores/options.ts";
import { SCORE_OPTIONS } from "../scores/resolve.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { KvSourceOwner } from "./kv_source.ts";

/** A choice that {@link tune} tried. */
export interface TunedCandidate {
  /** Row of the kernels' tile tables. */
  readonly variant: string;
  /** Workgroups that share the keys of a row, if the kernel splits them. */
  readonly kvSplits?: number;
  /**
   * Median milliseconds of a run, or those of its first run if that took more than twice as long as
   * the fastest.
   */
  readonly ms?: number;
  /** Why it can't be taken, whatever its time: it failed, or its values are not the default's. */
  readonly failure?: string;
}

/** The result of {@link tune}: plain data, which JSON keeps for the next visit. */
export interface TunedAttention {
  /** The adapter that it was found on, as the browser describes it. */
  readonly adapter: string;
  /**
   * The problem that it was found for; problems whose lengths and batch sizes round up to the same
   * powers of two share one result.
   */
  readonly problem: string;
  readonly variant: string;
  readonly kvSplits?: number;
  /** How times were taken. */
  readonly timing: TimingSource;
  /** The candidates that were tried, the default first. */
  readonly candidates: readonly TunedCandidate[];
}

/** The part of a problem that scores depend on: all but values. */
export interface ScoreProblem extends ScoreOptions {
  /**
   * [B, H, M, D]. A tensor, or what one will look like. f32, f16 or bf16, as are k, v and output,
   * each with its own dtype.
   */
  readonly q: TensorSpec;
  /** [B, Hkv, N, D], H a multiple of Hkv: query head h uses key head floor(h * Hkv / H). */
  readonly k: TensorSpec;
  /**
   * Axis order of q, k, v and output; the shapes are then given in that order. Default `"bhmd"`.
   */
  readonly layout?: Layout;
  /**
   * Floating-point operations after which a dispatch is cut in two, so that none runs long enough
   * for a browser's or system's watchdog (2 s on Windows), or for a frame. Default 2^36, and 2^32
   * on software adapters.
   */
  readonly maxDispatchFlops?: number;
  /**
   * Name of the plan's GPU objects in errors and captures. Default: the name of the function, as
   * `"attention"`.
   */
  readonly label?: string;
}

/**
 * The problem that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface AttentionProblem extends ScoreProblem {
  /** [B, Hkv, N, Dv] */
  readonly v: TensorSpec;
  /** [B, H, M, Dv]. Default: dense, of the dtype of q. */
  readonly output?: TensorSpec;
  /**
   * Ask for the log-sum-exp of the scores, [B, H, M] f32: `true` for a dense tensor, or what it
   * will look like.
   */
  readonly lse?: boolean | TensorSpec;
  /**
   * Ask for the largest score of each row, [B, H, M] f32, in natural units, -Infinity if a row sees
   * no key.
   */
  readonly rowMax?: boolean | TensorSpec;
  /**
   * Workgroups that share the keys of a row if up to 16 queries are decoded. The default depends on
   * shapes, batch size and device. With a given number an entry gets the same bits whatever else is
   * in its batch.
   */
  readonly kvSplits?: number;
  /**
   * Multiply in f16, twice as many numbers at a time, and sum in f32 after 8 or 16 products, if q,
   * k and v are f16 in rows of multiples of 4 elements, up to 128, and the device has shader-f16.
   * Errors are then about those of an evaluation that stores scores and probabilities in f16 (1 to
   * 2.5 times), and up to 7 times those of the default, which rounds nothing but the output. Large
   * scores are multiplied in f32, and so is everything if scores are modified or masked by more
   * than causality, windows, lengths and sinks, or if dropout, lse or rowMax is asked for. Default
   * false.
   */
  readonly allowF16Products?: boolean;
  /**
   * Take this row of the kernel's tile table instead of the one that fits the device. For
   * benchmarks and tests.
   */
  readonly variant?: string;
  /**
   * The result of {@link tune} for this problem on this adapter, in place of variant and kvSplits.
   * Throws FoveaError("argument") for the result of another adapter or another problem.
   */
  readonly tuned?: TunedAttention;
}

/**
 * A problem whose keys and values are in a cache. N is the most keys that an entry can have, which
 * masks and biases in memory have to cover; the cache knows how many it has.
 */
export type Cached<Problem extends ScoreProblem> = Omit<Problem, "k" | "v"> & {
  /** A `KvCache` or a `PagedKvCache`. */
  readonly cache: KvSourceOwner;
};

/** Problems after they were read. */
export type TakenScoreProblem = Taken<ScoreProblem | Cached<ScoreProblem>>;
export type TakenProblem = Taken<AttentionProblem | Cached<AttentionProblem>>;

/** The names of all members of a problem without values. */
export const SCORE_PROBLEM: OptionNames<ScoreProblem | Cached<ScoreProblem>> = {
  ...SCORE_OPTIONS,
  q: "any",
  k: "any",
  cache: "any",
  layout: "string",
  maxDispatchFlops: "number",
  label: "string",
};

/** The names of all members of a problem. */
export const ATTENTION_PROBLEM: OptionNames<AttentionProblem | Cached<AttentionProblem>> = {
  ...SCORE_PROBLEM,
  v: "any",
  output: "any",
  lse: "any",
  rowMax: "any",
  kvSplits: "number",
  allowF16Products: "boolean",
  variant: "string",
  tuned: "any",
};
