// Lengths and positions of batch entries, checked and as tables. Entries may lie one after the
// other, or in a cache.

import { check, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { ListOrTensor } from "../plan/specs.ts";
import type { CachedKeys } from "./cached_keys.ts";
import type { Descriptor, GivenScores, ResolvedEntries, Sizes, Table } from "./descriptor.ts";
import { REST } from "./extended_options.ts";
import type { TakenScores } from "./options.ts";
import { countOf } from "./table_memory.ts";

const i32 = (at: Table["at"], name: string, values: ListOrTensor): Table => ({
  at,
  name,
  values,
  dtype: "i32",
});

/** Describes all lengths and positions of entries. */
export const ENTRIES: Descriptor = ({ entries: { kind, tables } }) => {
  if (!tables.length) return undefined;
  // Kernels also test the offsets of absent tables.
  return {
    keeps: "all",
    slots: kind ? { sequence: kind } : {},
    tables,
    params: () => REST.qLengths,
  };
};

/** Checks the lengths and positions of entries. Throws FoveaError that names the option. */
export function resolveEntries({ label, options, tensors, cache }: GivenScores): ResolvedEntries {
  const { heads, rowsQ, rowsKv } = tensors;
  const whole = { batch: tensors.batch, heads, seqQ: rowsQ, seqKv: rowsKv };
  const packed = cache
    ? packedQueries(label, options, whole, cache)
    : packedTables(label, options, whole);
  const sizes = packed?.sizes ?? whole;
  const { batch, seqQ, seqKv } = sizes;
  const { qLengths, kvLengths, queryOffset } = options;
  checkLengths(`${label}: qLengths`, qLengths, batch, [seqQ, "the queries that q has"]);
  checkLengths(`${label}: kvLengths`, kvLengths, batch, [seqKv, "the keys that k has"]);
  checkOffsets(label, queryOffset, batch);
  if (cache) {
    const tables = [
      ...(qLengths ? [i32("q_lengths_at", "qLengths", qLengths)] : []),
      ...(typeof queryOffset === "object" ? [i32("q_offsets_at", "queryOffset", queryOffset)] : []),
      ...(packed?.tables ?? []),
    ];
    return { kind: undefined, packed: packed !== undefined, sizes, tables };
  }
  if (
    !packed &&
    !qLengths &&
    !kvLengths &&
    (queryOffset === undefined || typeof queryOffset === "number")
  ) {
    return { kind: undefined, packed: false, sizes, tables: [] };
  }
  const all = (value: number) => new Array<number>(batch).fill(value);
  const offsets =
    queryOffset === undefined || typeof queryOffset === "number"
      ? all(queryOffset ?? 0)
      : queryOffset;
  const tables = [
    i32("q_lengths_at", "qLengths", qLengths ?? all(seqQ)),
    i32("kv_lengths_at", "kvLengths", kvLengths ?? all(seqKv)),
    i32("q_offsets_at", "queryOffset", offsets),
    ...(packed?.tables ?? []),
  ];
  return {
    kind: packed ? "packed" : "batch",
    packed: packed !== undefined,
    sizes,
    tables,
  };
}

function packedTables(label: string, options: TakenScores, { batch, heads, seqQ, seqKv }: Sizes) {
  const { cuSeqlensQ, cuSeqlensKv } = options;
  if (!cuSeqlensQ && !cuSeqlensKv) return undefined;
  check(
    cuSeqlensQ !== undefined && cuSeqlensKv !== undefined,
    "argument",
    () => `${label}: cuSeqlensQ and cuSeqlensKv belong together; only one was given.`,
  );
  check(
    batch === 1,
    "argument",
    () =>
      `${label}: sequences that lie one after the other are one batch, but q has a batch axis of ${batch}.`,
  );
  const entries = countOf(cuSeqlensQ) - 1;
  const longest = (name: "Q" | "Kv", cumulative: ListOrTensor, rows: number) => {
    check(
      countOf(cumulative) === entries + 1 && entries >= 0,
      "argument",
      () =>
        `${label}: cuSeqlens${name} must have one number more than there are sequences, as many as the other: got ${countOf(cuSeqlensQ)} and ${countOf(cuSeqlensKv)}.`,
    );
    return longestOf(label, name, options, rows);
  };
  const sizes: Sizes = {
    batch: entries,
    heads,
    seqQ: longest("Q", cuSeqlensQ, seqQ),
    seqKv: longest("Kv", cuSeqlensKv, seqKv),
  };
  return {
    sizes,
    tables: [i32("cu_q_at", "cuSeqlensQ", cuSeqlensQ), i32("cu_kv_at", "cuSeqlensKv", cuSeqlensKv)],
  };
}

/** The entries of a cache whose queries lie one after the other. */
function packedQueries(
  label: string,
  options: TakenScores,
  { heads, seqQ, seqKv }: Sizes,
  { batch }: CachedKeys,
) {
  const { cuSeqlensQ } = options;
  if (!cuSeqlensQ) return undefined;
  check(
    countOf(cuSeqlensQ) === batch + 1,
    "argument",
    () =>
      `${label}: cuSeqlensQ must have one number more than the ${batch} entries of the cache, got ${countOf(cuSeqlensQ)}.`,
  );
  const sizes: Sizes = { batch, heads, seqQ: longestOf(label, "Q", options, seqQ), seqKv };
  return { sizes, tables: [i32("cu_q_at", "cuSeqlensQ", cuSeqlensQ)] };
}

/** Rows of the longest of several sequences that lie one after the other. */
function longestOf(label: string, name: "Q" | "Kv", options: TakenScores, rows: number): number {
  const what = `${label}: cuSeqlens${name}`;
  const cumulative = options[`cuSeqlens${name}` as const] as ListOrTensor;
  const given = options[`maxSeqlen${name}` as const];
  if (cumulative instanceof Tensor) {
    checkIntegers(what, cumulative, cumulative.size);
    check(
      Number.isInteger(given) && (given as number) >= 0,
      "argument",
      () =>
        `${what} is on the GPU, so maxSeqlen${name}, the rows of the longest sequence, must be given; got ${given}.`,
    );
    return Math.min(given as number, rows);
  }
  const rising = cumulative.every(
    (n, i) => Number.isInteger(n) && n >= (i ? cumulative[i - 1] : 0),
  );
  check(
    rising && (cumulative.at(-1) ?? 0) <= rows,
    "argument",
    () =>
      `${what} must be whole numbers that never fall, from 0 to the ${rows} rows of the tensor, got ${cumulative}.`,
  );
  return Math.max(0, ...cumulative.slice(1).map((n, i) => n - cumulative[i]));
}

function checkLengths(
  what: string,
  values: ListOrTensor | undefined,
  batch: number,
  [most, ofThem]: readonly [number, string],
): void {
  if (values === undefined) return;
  if (values instanceof Tensor) {
    checkIntegers(what, values, batch);
    return;
  }
  check(
    Array.isArray(values) &&
      values.length === batch &&
      values.every((n) => Number.isInteger(n) && n >= 0 && n <= most),
    "argument",
    () =>
      `${what} must be ${batch} whole numbers (one a batch entry) from 0 to ${most}, ${ofThem}, got ${values}.`,
  );
}

function checkOffsets(
  label: string,
  queryOffset: number | ListOrTensor | undefined,
  batch: number,
): void {
  if (queryOffset === undefined) return;
  if (queryOffset instanceof Tensor) {
    checkIntegers(`${label}: queryOffset`, queryOffset, batch);
    return;
  }
  const offsets = typeof queryOffset === "number" ? [queryOffset] : queryOffset;
  check(
    Array.isArray(offsets) &&
      (typeof queryOffset === "number" || offsets.length === batch) &&
      offsets.every((offset) => Number.isInteger(offset) && Math.abs(offset) < 2 ** 31),
    "argument",
    () =>
      `${label}: queryOffset must be a whole number, or ${batch} of them (one a batch entry), got ${show(queryOffset)}.`,
  );
}

function checkIntegers(what: string, { dtype, shape, strides }: Tensor, count: number): void {
  check(
    (dtype === "i32" || dtype === "u32") &&
      shape.length === 1 &&
      shape[0] === count &&
      (strides[0] === 1 || count < 2),
    "argument",
    () =>
      `${what} must be a dense i32 tensor [${count}], one number a batch entry, got ${dtype} [${shape}] with strides [${strides}].`,
  );
}
