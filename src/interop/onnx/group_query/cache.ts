// The caches of GroupQueryAttention. A cache of full length is its present, which is attended to.
// In a cache of a window, new keys replace keys that no later query sees.

import { copyTensor, type Dtype, type Tensor } from "../../../index.ts";
import type { Call } from "../padding_mask.ts";
import { writePresent } from "../past_present.ts";
import type { Lengths } from "./lengths.ts";

/** The results for new keys, or for new values. */
export interface Cached {
  /** The keys or values that are attended to, [B, Hkv, N, D]. */
  readonly attended: Tensor;
  readonly present: Tensor;
}

interface NewKeys {
  /** [B, Hkv, L, D] */
  readonly rows: Tensor;
  /** [B, Hkv, P, D] */
  readonly past: Tensor | undefined;
  /** Whether the present was asked for. */
  readonly wanted: boolean;
  /** Whether the present is the past. */
  readonly shared: boolean;
  readonly dtype: Dtype;
}

/** Puts rows of the past and new ones into a cache of full length. */
export async function cachedRows(call: Call, lengths: Lengths, given: NewKeys): Promise<Cached> {
  const { rows, past, wanted, shared, dtype } = given;
  const [batch, heads, count, width] = rows.shape;
  const of = (present: Tensor) => ({ attended: present.slice(2, 0, lengths.total), present });
  if (!past && !wanted) return of(rows);
  if (past && count === 0 && (shared || !wanted)) return of(past);
  const present = past && shared ? past : call.make([batch, heads, lengths.rows, width], dtype);
  await writePresent(call, { rows, past, starts: lengths.starts, present, shared });
  return of(present);
}

/**
 * Joins rows of the past and new ones, all of which some query may see, and puts the last of them
 * into a cache of a window, in order from its first row on.
 */
export async function windowedRows(call: Call, lengths: Lengths, given: NewKeys): Promise<Cached> {
  const { rows, past, wanted, shared, dtype } = given;
  const { starts, added, kept } = lengths;
  const [batch, heads, count, width] = rows.shape;
  const attended = call.make([batch, heads, Math.max(0, ...starts) + count, width], dtype);
  await writePresent(call, { rows, past, starts, present: attended });
  if (!wanted && !shared) return { attended, present: attended };
  const present = past && shared ? past : call.make([batch, heads, lengths.rows, width], dtype);
  for (const [entry, rowsKept] of kept.entries()) {
    const end = starts[entry] + added[entry];
    const of = (tensor: Tensor, from: number, to: number) =>
      tensor.slice(0, entry, entry + 1).slice(2, from, to);
    const output = of(present, 0, rowsKept);
    await copyTensor(of(attended, end - rowsKept, end), { output, label: call.label });
  }
  return { attended, present };
}
