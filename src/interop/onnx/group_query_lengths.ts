// How many keys GroupQueryAttention attends to, where the new ones go, and where they stand.

import { Tensor } from "../../index.ts";
import { expectAxes, expectBoth } from "./attention_parts.ts";
import type { Call } from "./padding_mask.ts";

/** How many keys there are, and where new ones go. */
export interface Lengths {
  /** Keys of the longest entry. */
  readonly total: number;
  /** Keys of each entry. */
  readonly keys: readonly number[];
  /** Rows of the present. */
  readonly rows: number;
  /** Rows of the past that count. */
  readonly starts: readonly number[];
  /** Position of the first query of each entry. */
  readonly offsets: readonly number[];
  readonly isPrompt: boolean;
}

/** The lengths that `seqlens_k` and `total_sequence_length` say, checked. */
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
  },
): Lengths {
  const { B, S, L, pasts, shape, seqlens, totals } = given;
  const [pastKey, pastValue] = pasts;
  const [total] = totals;
  call.expect(
    totals.length === 1 && Number.isInteger(total) && total >= 0,
    () => `total_sequence_length must be one whole number, got ${totals}`,
  );
  expectBoth(call, ["past_key", "past_value"], pasts);
  if (pastKey) expectAxes(call, "past_key", pastKey, shape, "[B, Hkv, P, D]");
  if (pastValue) expectAxes(call, "past_value", pastValue, shape, "[B, Hkv, P, D], as past_key has it,");
  const isPrompt = S === total;
  const fewest = isPrompt ? 1 : S;
  call.expect(
    seqlens.length === B && seqlens.every((last) => Number.isInteger(last) && last + 1 >= fewest && last < total),
    () =>
      `seqlens_k must be ${B} whole numbers from ${fewest - 1} to ${total - 1}, the keys of each entry less one (S = ${S}, total_sequence_length = ${total}), got ${seqlens}`,
  );
  const keys = seqlens.map((last) => last + 1);
  const offsets = keys.map((count) => (isPrompt ? 0 : count - S));
  const starts = L > 0 || S === 0 ? offsets : keys;
  const needed = Math.max(0, ...starts);
  call.expect(
    needed <= shape[2],
    () =>
      `past_key must have the ${needed} rows that seqlens_k and total_sequence_length say are there, got ${pastKey ? `[${pastKey.shape}]` : "none"}`,
  );
  return { total, keys, rows: Math.max(total, shape[2]), starts, offsets, isPrompt };
}

/** Where the new tokens stand, as rotary takes it. */
export function positionsOf(call: Call, ids: Tensor | readonly number[] | undefined, { isPrompt, offsets }: Lengths) {
  if (!ids) return { positionOffset: offsets };
  if (!isPrompt) return { positionIds: ids };
  if (!(ids instanceof Tensor)) return { positionOffset: ids[0] ?? 0 };
  call.expect(ids.size > 0, () => `position_ids must be [B, S], got [${ids.shape}]`);
  return { positionOffset: ids.view({ shape: [offsets.length], strides: [0] }) };
}
