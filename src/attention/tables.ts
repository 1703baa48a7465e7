// The small tables of a problem: lengths and positions of batch entries, slopes and sinks of heads, buckets of distances.
// They share one buffer, because a kernel may bind eight. Numbers are written when the plan is made; what a caller keeps
// on the GPU is copied there in every run.

import { check } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import { distanceBuckets } from "./buckets.ts";
import type { OperandName } from "./operands.ts";
import type { PerBatch, PerHead, RelativeBias, ScoreOptions } from "./options.ts";

/** A part of the tables. */
export interface Table {
  /** The member of the params that says where it lies. */
  readonly at: keyof Params & `${string}_at`;
  /** The caller's name for it: an option, and a binding if the values are a tensor. */
  readonly name: string;
  readonly dtype: "i32" | "f32";
  readonly values: readonly number[] | Tensor;
  /** Elements from a batch entry to the next, where entries differ. */
  readonly stride?: number;
}

/** Sizes of the scores. */
export interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly seqKv: number;
}

/** The tables of `slots/sequence`, if entries differ, and the sizes of the largest entry. */
export function sequenceTables(label: string, options: ScoreOptions, tensors: Sizes) {
  const packed = packedTables(label, options, tensors);
  const sizes = packed?.sizes ?? tensors;
  const { batch, seqQ, seqKv } = sizes;
  const { qLengths, kvLengths, queryOffset } = options;
  checkLengths(label, "qLengths", qLengths, batch, seqQ, "the queries that q has");
  checkLengths(label, "kvLengths", kvLengths, batch, seqKv, "the keys that k has");
  checkOffsets(label, queryOffset, batch);
  if (!packed && !qLengths && !kvLengths && (queryOffset === undefined || typeof queryOffset === "number")) {
    return { kind: undefined, sizes, tables: [] };
  }
  const all = (value: number) => new Array<number>(batch).fill(value);
  const offsets = queryOffset === undefined || typeof queryOffset === "number" ? all(queryOffset ?? 0) : queryOffset;
  const i32 = (at: Table["at"], name: string, values: PerBatch): Table => ({ at, name, values, dtype: "i32" });
  const tables = [
    i32("q_lengths_at", "qLengths", qLengths ?? all(seqQ)),
    i32("kv_lengths_at", "kvLengths", kvLengths ?? all(seqKv)),
    i32("q_offsets_at", "queryOffset", offsets),
    ...(packed?.tables ?? []),
  ];
  return { kind: packed ? ("packed" as const) : ("batch" as const), sizes, tables };
}

function packedTables(label: string, options: ScoreOptions, { batch, heads, seqQ, seqKv }: Sizes) {
  const { cuSeqlensQ, cuSeqlensKv, maxSeqlenQ, maxSeqlenKv } = options;
  if (!cuSeqlensQ && !cuSeqlensKv) return undefined;
  check(
    cuSeqlensQ !== undefined && cuSeqlensKv !== undefined,
    "argument",
    () => `${label}: cuSeqlensQ and cuSeqlensKv belong together; only one was given.`,
  );
  check(
    batch === 1,
    "argument",
    () => `${label}: sequences that lie one after the other are one batch, but q has a batch axis of ${batch}.`,
  );
  const entries = countOf(cuSeqlensQ) - 1;
  const longest = (name: "Q" | "Kv", cumulative: PerBatch, rows: number, given: number | undefined) => {
    const what = `${label}: cuSeqlens${name}`;
    check(
      countOf(cumulative) === entries + 1 && entries >= 0,
      "argument",
      () =>
        `${what} must have one number more than there are sequences, as many as the other: got ${countOf(cuSeqlensQ)} and ${countOf(cuSeqlensKv)}.`,
    );
    if (cumulative instanceof Tensor) {
      checkIntegers(what, cumulative, entries + 1);
      check(
        Number.isInteger(given) && (given as number) >= 0,
        "argument",
        () =>
          `${what} is on the GPU, so maxSeqlen${name}, the rows of the longest sequence, must be given; got ${given}.`,
      );
      return Math.min(given as number, rows);
    }
    const rising = cumulative.every((n, i) => Number.isInteger(n) && n >= (i ? cumulative[i - 1] : 0));
    check(
      rising && (cumulative.at(-1) ?? 0) <= rows,
      "argument",
      () =>
        `${what} must be whole numbers that never fall, from 0 to the ${rows} rows of the tensor, got ${cumulative}.`,
    );
    return Math.max(0, ...cumulative.slice(1).map((n, i) => n - cumulative[i]));
  };
  const sizes: Sizes = {
    ...{ batch: entries, heads },
    seqQ: longest("Q", cuSeqlensQ, seqQ, maxSeqlenQ),
    seqKv: longest("Kv", cuSeqlensKv, seqKv, maxSeqlenKv),
  };
  const tables: Table[] = [
    { at: "cu_q_at", name: "cuSeqlensQ", values: cuSeqlensQ, dtype: "i32" },
    { at: "cu_kv_at", name: "cuSeqlensKv", values: cuSeqlensKv, dtype: "i32" },
  ];
  return { sizes, tables };
}

/** The tables of ALiBi, sinks and T5's bias. */
export function headTables(label: string, options: ScoreOptions, { batch, heads }: Sizes): Table[] {
  const { alibiSlopes, sinks, relativeBias } = options;
  const tables: Table[] = [];
  const add = (at: Table["at"], name: string, values: PerHead, shapes: number[][], stride = 0, what = name) => {
    checkNumbers(`${label}: ${what}`, values, shapes);
    tables.push({ at, name, values, dtype: "f32", stride });
  };
  if (alibiSlopes !== undefined) {
    const perEntry = alibiSlopes instanceof Tensor ? alibiSlopes.shape.length === 2 : alibiSlopes?.length !== heads;
    add("slopes_at", "alibiSlopes", alibiSlopes, [[heads], [batch, heads]], perEntry ? heads : 0);
  }
  if (sinks !== undefined) add("sinks_at", "sinks", sinks, [[heads]]);
  if (relativeBias !== undefined) {
    check(
      typeof relativeBias === "object" && relativeBias !== null && relativeBias.table !== undefined,
      "argument",
      () => `${label}: relativeBias must be { table, bidirectional?, maxDistance? }, got ${relativeBias}.`,
    );
    const { table, buckets = table instanceof Tensor ? table.shape[0] : table.length / heads } = relativeBias;
    add("relative_values_at", "relativeBias", table, [[buckets, heads]], 0, "relativeBias.table");
    tables.push(bucketTable(label, relativeBias, buckets));
  }
  return tables;
}

/** Buckets by distance: of keys at 0..reach before the query, then of keys at 0..reach after it. */
function bucketTable(label: string, bias: RelativeBias, buckets: number): Table {
  const { side, behind } = distanceBuckets(`${label}: relativeBias`, bias, buckets);
  const ahead = behind.map((bucket) => (bias.bidirectional === false ? 0 : side + bucket));
  return { at: "relative_buckets_at", name: "buckets", values: [...behind, ...ahead], dtype: "i32" };
}

/** All tables one after the other: the words known now, where each begins, and the tensors to copy in. */
export function layTables(tables: readonly Table[]) {
  const words: number[] = [];
  const places: Partial<Params> = {};
  const tensors: { from: OperandName; values: Tensor; at: number }[] = [];
  const bits = new DataView(new ArrayBuffer(4));
  const wordOf = (value: number, dtype: Table["dtype"]) => {
    if (dtype === "i32") return Math.min(value, 2 ** 31 - 1);
    bits.setFloat32(0, value);
    return bits.getInt32(0);
  };
  for (const { at, name, dtype, values, stride } of tables) {
    places[at] = words.length;
    if (stride) places.slopes_stride_b = stride;
    if (at === "relative_buckets_at") places.relative_reach = countOf(values) / 2 - 1;
    if (values instanceof Tensor) {
      tensors.push({ from: name as OperandName, values, at: words.length });
      for (let i = 0; i < values.size; i++) words.push(0);
    } else for (const value of values) words.push(wordOf(value, dtype));
  }
  return { words, places, tensors };
}

const countOf = (values: PerBatch): number => (values instanceof Tensor ? values.size : values.length);

function checkLengths(
  label: string,
  name: string,
  values: PerBatch | undefined,
  batch: number,
  most: number,
  what: string,
): void {
  if (values === undefined) return;
  if (values instanceof Tensor) {
    checkIntegers(`${label}: ${name}`, values, batch);
    return;
  }
  check(
    Array.isArray(values) && values.length === batch && values.every((n) => Number.isInteger(n) && n >= 0 && n <= most),
    "argument",
    () =>
      `${label}: ${name} must be ${batch} whole numbers (one a batch entry) from 0 to ${most}, ${what}, got ${values}.`,
  );
}

function checkOffsets(label: string, queryOffset: number | PerBatch | undefined, batch: number): void {
  if (queryOffset === undefined) return;
  if (queryOffset instanceof Tensor) {
    checkIntegers(`${label}: queryOffset`, queryOffset, batch);
    return;
  }
  const offsets = typeof queryOffset === "number" ? [queryOffset] : queryOffset;
  check(
    (typeof queryOffset === "number" || offsets.length === batch) &&
      offsets.every((offset) => Number.isInteger(offset) && Math.abs(offset) < 2 ** 31),
    "argument",
    () => `${label}: queryOffset must be a whole number, or ${batch} of them (one a batch entry), got ${offsets}.`,
  );
}

function checkIntegers(what: string, { dtype, shape, strides }: Tensor, count: number): void {
  check(
    (dtype === "i32" || dtype === "u32") && shape.length === 1 && shape[0] === count && (strides[0] === 1 || count < 2),
    "argument",
    () =>
      `${what} must be a dense i32 tensor [${count}], one number a batch entry, got ${dtype} [${shape}] with strides [${strides}].`,
  );
}

function checkNumbers(what: string, values: PerHead, shapes: readonly number[][]): void {
  const expected = shapes.map((shape) => `[${shape.join(", ")}]`).join(" or ");
  const fits = (count: number) => shapes.some((shape) => shape.reduce((product, size) => product * size, 1) === count);
  if (values instanceof Tensor) {
    const { shape, dtype } = values;
    check(
      dtype === "f32" && shapes.some((s) => s.length === shape.length && s.every((size, axis) => size === shape[axis])),
      "argument",
      () => `${what} must be an f32 tensor ${expected}, got ${dtype} [${shape.join(", ")}].`,
    );
    return;
  }
  check(
    Array.isArray(values) && fits(values.length),
    "argument",
    () =>
      `${what} must be a tensor or an array of numbers ${expected}, got ${Array.isArray(values) ? values.length : values}.`,
  );
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  check(wrong < 0, "argument", () => `${what} must be finite numbers, got ${values[wrong]} at ${wrong}.`);
}
