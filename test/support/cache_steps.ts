// Histories of key-value caches as plain data.

import type { BurstCall, Rejection } from "./cache_bursts.ts";
import type { CacheMake } from "./cache_subjects.ts";

export type Step =
  /** So many new tokens for each entry of the batch, all of them by default. */
  | {
      readonly append: readonly number[];
      readonly batch?: readonly number[];
      readonly spread?: number;
      /**
       * Whether they are NaN and taken back at once, so that memory past the end of entries
       * changes. Rings can't have it.
       */
      readonly poison?: boolean;
    }
  /** Attention of so many queries of each entry, the last one at its last token. */
  | {
      readonly attend: number;
      readonly batch?: readonly number[];
      readonly causal?: boolean;
      readonly window?: number;
      readonly sinkTokens?: number;
    }
  /** Takes back the last tokens of an entry. */
  | { readonly truncate: readonly [entry: number, tokens: number] }
  /** If the second entry is empty, it gets all tokens of the first one but the last few. */
  | { readonly fork: readonly [from: number, to: number, fewer: number] }
  | { readonly free: number }
  /** Each entry gets the tokens of another one, by its number. */
  | { readonly reorder: readonly number[] }
  /** An append that is encoded and never submitted, and made good. */
  | { readonly lost: readonly number[]; readonly batch?: readonly number[] }
  /** An append that is rejected and changes nothing. */
  | { readonly reject: Rejection; readonly batch?: readonly number[] }
  /** Calls that are made without awaiting any of them. */
  | { readonly calls: readonly BurstCall[] }
  /** Submits what is encoded so far. */
  | { readonly submit: true };

/** A cache, what attention does to its scores, and what happens to it. */
export interface CacheCase extends CacheMake {
  /** Query heads of a key head. */
  readonly G: number;
  /**
   * Default the variant that attention chooses for few queries, and the tile that compiles fastest
   * for many.
   */
  readonly variant?: string;
  /** Whether appends normalise and rotate queries as well. */
  readonly queries?: boolean;
  readonly softcap?: number;
  readonly alibi?: boolean;
  readonly sinks?: boolean;
  readonly seed?: number;
  readonly steps: readonly Step[];
}
