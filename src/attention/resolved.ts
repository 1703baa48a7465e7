// Checked problems of attention, as the files that make plans read them.

import type { ResolvedSpec } from "../plan/specs.ts";
import type { PlanExtension, ResolvedOptions } from "../scores/resolved.ts";
import type { Layout } from "../types.ts";
import type { KvSource } from "./kv_source.ts";
import type { TunedAttention } from "./problem.ts";

/** The checked part of a problem that has no values. Tensors are in BHMD order. */
export interface ResolvedScores extends ResolvedOptions {
  readonly label: string;
  readonly layout: Layout;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** 0 if there are no values. */
  readonly vDim: number;
  readonly q: ResolvedSpec;
  readonly k: ResolvedSpec;
  /** The cache that k and v are in. */
  readonly cache: KvSource | undefined;
  /** The shape of the log-sum-exp. */
  readonly lseShape: readonly number[];
  readonly scale: number;
  readonly maxDispatchFlops: number | undefined;
  /** What plans need for the options that few problems have; undefined if it has none of them. */
  readonly extension: PlanExtension | undefined;
}

/** A checked problem. Tensors are in BHMD order. */
export interface ResolvedProblem extends ResolvedScores {
  readonly v: ResolvedSpec;
  readonly output: ResolvedSpec;
  /** The shape of the output in the caller's layout. */
  readonly outputShape: readonly number[];
  readonly lse: ResolvedSpec | undefined;
  readonly rowMax: ResolvedSpec | undefined;
  readonly allowF16Products: boolean;
  readonly variant: string | undefined;
  readonly kvSplits: number | undefined;
  readonly tuned: TunedAttention | undefined;
}
