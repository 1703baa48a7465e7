// The lengths of GroupQueryAttention: how many keys it attends to, in which rows new keys go, and
// at which positions they stand.

import { Tensor } from "../../../index.ts";
import { expectAxes, expectBoth } from "../attention_parts.ts";
import type { Call } from "../padding_mask.ts";

/** How many keys there are, and in which rows new ones go. */
export interface Lengths {
  /** Keys of the longest entry. */
  readonly total: number;
  /** Keys of each entry. */
  readonly keys: readonly number[];
  /** New tokens of each entry. */
  readonly added: readonly number[];
  /** Rows of the present. */
  readonly rows: number;
  /** Rows of the past that hold keys. */
  readonly starts: readonly number[];
  /** Rows of the present that hold keys. */
  readonly kept: readonly number[];
  /** Position of the first query of each entry. */
  readonly offsets: readonly number[];
  /**
   * The attended keys: how many each entry has, at which of them its first query stands, and the
   * position of the first one.
   */
  readonly attended: {
    readonly keys: readonly number[];
    readonly offsets: readonly number[];
    readonly first: readonly number[];
  };
  readonly isPrompt: boolean;
}

/** The lengths that `seqlens_k` and `total_sequence_length` give, checked. */
export function lengthsOf(
  call: Call,
  given: {
    readonly B: number;
    readonly S: number;
    readonly L: number;
    readonly pasts: readonly [key: Tensor | undefined, value: Tensor | undefined];
    /** [B, Hkv, P, D] */
    readonly shape: readonly number[];
    readonly seqlens: readonly number[];
    readonly totals: readonly number[];
    /** Keys of a window, if the cache holds only as many as the window needs. */
    readonly window: number | undefined;
  },
): Lengths {
  const { B, S, L, pasts, shape, seqlens, totals, window } = given;
  const [pastKey, pastValue] = pasts;
  const [total] = totals;
  call.expect(
    totals.length === 1 && Number.isInteger(total) && total >= 0,
    () => `total_sequence_length must be one whole number, got ${totals}`,
  );
  expectBoth(call, ["past_key", "past_value"], pasts);
  if (pastKey) expectAxes(call, "past_key", pastKey, shape, "[B, Hkv, P, D]");
  if (pastValue)
    expectAxes(call, "past_value", pastValue, shape, "[B, Hkv, P, D], as past_key has it,");
  const isPrompt = S === total;
  const fewest = isPrompt ? Math.min(1, S) : S;
  call.expect(
    seqlens.length === B &&
      seqlens.every((last) => Number.isInteger(last) && last + 1 >= fewest && last < total),
    () =>
      `seqlens_k must be ${B} whole numbers from ${fewest - 1} to ${total - 1}, the keys of each entry less one (S = ${S}, total_sequence_length = ${total}), got ${seqlens}`,
  );
  call.expect(
    !window || (L === S && pastKey !== undefined && shape[2] >= window),
    () =>
      `attribute sliding_window_cache needs keys of all new tokens, and a past_key of at least local_window_size = ${window} rows, got ${L} tokens and ${pastKey ? `[${pastKey.shape}]` : "none"}`,
  );
  const keys = seqlens.map((last) => last + 1);
  const offsets = keys.map((count) => (isPrompt ? 0 : count - S));
  const inCache = (count: number) => (window ? residentKeys(count, window, shape[2]) : count);
  const starts = (L > 0 || S === 0 ? offsets : keys).map(inCache);
  const needed = Math.max(0, ...starts);
  call.expect(
    needed <= shape[2],
    () =>
      `past_key must have the ${needed} rows that seqlens_k and total_sequence_length say are there, got ${pastKey ? `[${pastKey.shape}]` : "none"}`,
  );
  const rows = window ? shape[2] : Math.max(total, shape[2]);
  const added = keys.map((count) => (isPrompt ? count : S));
  const attended = window
    ? {
        keys: starts.map((start, b) => start + added[b]),
        offsets: starts,
        first: offsets.map((p, b) => p - starts[b]),
      }
    : { keys, offsets, first: keys.map(() => 0) };
  return { total, keys, added, rows, starts, kept: keys.map(inCache), offsets, attended, isPrompt };
}

/**
 * How many of the last of `keys` keys a cache of a window holds. It drops keys only when it is
 * full, and then as many as it can at once.
 */
export function residentKeys(keys: number, window: number, capacity: number): number {
  const freed = capacity - window + 1;
  return keys <= capacity ? keys : keys - freed * Math.ceil((keys - capacity) / freed);
}

/** The positions of the new tokens, as rotary takes them. */
export function positionsOf(
  call: Call,
  ids: Tensor | readonly number[] | undefined,
  { isPrompt, offsets }: Lengths,
) {
  if (!ids) return { positionOffset: offsets };
  if (!isPrompt) return { positionIds: ids };
  if (!(ids instanceof Tensor)) return { positionOffset: ids[0] ?? 0 };
  call.expect(ids.size > 0, () => `position_ids must be [B, S], got [${ids.shape}]`);
  return { positionOffset: ids.view({ shape: [offsets.length], strides: [0] }) };
}
