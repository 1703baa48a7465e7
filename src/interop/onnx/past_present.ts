// The caches of com.microsoft's attention operators: rows of the past and new ones in one tensor,
// which is the present.

import { copyTensor, type Tensor } from "../../index.ts";
import type { Call } from "./padding_mask.ts";

/** The parts of the present of keys, or of values. */
export interface NewRows {
  /** [B, H, L, D] */
  readonly rows: Tensor;
  /** [H, 1, D], added to the new rows. */
  readonly bias?: Tensor | undefined;
  /** [B, H, at least P, D] */
  readonly past?: Tensor | undefined;
  /** P, the used rows of the past, for all entries or one for each; new rows go after them. */
  readonly starts: number | readonly number[];
  /** The present, [B, H, N, D]. */
  readonly present: Tensor;
  /** Whether the present is the past, and so has its rows already. */
  readonly shared?: boolean;
}

/** Writes rows of the past and new ones to the present. Rows after them stay as they are. */
export async function writePresent({ label }: Call, work: NewRows): Promise<void> {
  const { rows, bias, past, starts, present, shared } = work;
  const [batch, , count] = rows.shape;
  const places = typeof starts === "number" ? [starts] : starts;
  const alike = places.every((start) => start === places[0]);
  const entries = alike
    ? [[0, batch, places[0] ?? 0]]
    : places.map((start, entry) => [entry, entry + 1, start]);
  for (const [from, to, start] of entries) {
    const of = (tensor: Tensor) => tensor.slice(0, from, to);
    const into = of(present);
    if (past && !shared && start > 0) {
      await copyTensor(of(past).slice(2, 0, start), { output: into.slice(2, 0, start), label });
    }
    if (count === 0) continue;
    await copyTensor(of(rows), {
      output: into.slice(2, start, start + count),
      ...(bias && { bias }),
      label,
    });
  }
}

/**
 * P, the used rows of a past: all along `axis`, or `past_sequence_length` if past and present share
 * memory; then the new rows have to fit after them.
 */
export async function pastLength(
  call: Call,
  {
    name,
    past,
    axis,
    added,
  }: {
    readonly name: string;
    readonly past: Tensor | undefined;
    readonly axis: number;
    readonly added: number;
  },
  given: (() => Promise<readonly number[] | undefined>) | undefined,
): Promise<number> {
  if (!past) return 0;
  const rows = past.shape[axis];
  if (!given) return rows;
  const lengths = await given();
  const length = lengths?.[0] ?? -1;
  call.expect(
    lengths?.length === 1 && Number.isInteger(length) && length >= 0 && length + added <= rows,
    () =>
      `past_sequence_length must be one whole number from 0 to ${rows - added}, so that ${added} new rows fit into ${name} [${past.shape}], got ${lengths}`,
  );
  return length;
}
