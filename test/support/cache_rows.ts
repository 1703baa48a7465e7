// Rows of a cache as a model knows them: what a token's k or v becomes on its way into the cache,
// in float64 and in plain f32, and what lies in the cache, read back.

import type { KvSource } from "../../src/attention/kv_source.ts";
import { bfloat16Value, float16Value } from "../../src/gpu/read.ts";
import type { CacheDtype } from "../../src/index.ts";
import type { Quantisation } from "../../src/kernels/kv_access.ts";
import { quantiseRow, rotary as referenceRotary, rmsNorm } from "../../src/reference/index.ts";
import { type Float, product, ROUND } from "./cases.ts";

/** What a row becomes before it is stored. */
export interface Row {
  readonly exact: Float64Array;
  /** The same arithmetic with every operation rounded to f32. */
  readonly plain: Float64Array;
}

/** What appends do to rows, as plain data. */
export interface RowTransform {
  /** Root mean square norm with the weights of `normWeights`. */
  readonly qkNorm?: boolean;
  readonly rotary?: { readonly rotaryDim?: number; readonly interleaved?: boolean };
}

export const EPSILON = 1e-5;

/**
 * Returns the weights of the norm of q and of k. They have no seed: a cache has the same weights in
 * every test.
 */
export const normWeights = (which: "q" | "k", D: number): Float32Array =>
  Float32Array.from(
    { length: D },
    (_, d) => 1 + (which === "q" ? 0.5 : -0.25) * Math.cos(3 * d + 1),
  );

/** Transforms a row of k or q of the token at a position. */
export function transformed(
  values: Float32Array,
  position: number,
  which: "q" | "k",
  how: RowTransform,
): Row {
  const stages = (precision: "f64" | "f32") => {
    let row: Float64Array = Float64Array.from(values);
    if (how.qkNorm) {
      const weight = normWeights(which, row.length);
      row = rmsNorm(row, row.length, { weight, epsilon: Math.fround(EPSILON), precision });
    }
    if (how.rotary) {
      const tensor = { data: row, shape: [1, 1, 1, row.length] };
      row = referenceRotary(tensor, { ...how.rotary, position: () => position, precision });
    }
    return row;
  };
  return { exact: stages("f64"), plain: stages("f32") };
}

/** Makes a row that is stored as it comes. */
export const plainRow = (values: Float32Array): Row => {
  const exact = Float64Array.from(values);
  return { exact, plain: exact };
};

/** A row as it lies in the cache. */
export interface StoredRow {
  readonly values: Float64Array;
  /** Scales, if the row is of integers. */
  readonly scales?: Float32Array;
  readonly integers?: Int32Array;
}

/** The k or v of a cache, copied to the CPU. */
export class StoredRows {
  readonly #words: Uint32Array;
  readonly #source: KvSource;
  readonly #which: "k" | "v";
  readonly #dim: number;

  constructor(source: KvSource, which: "k" | "v", bytes: ArrayBuffer) {
    this.#words = new Uint32Array(bytes);
    this.#source = source;
    this.#which = which;
    this.#dim = which === "k" ? source.headDim : source.vDim;
  }

  row(outer: number, head: number, row: number): StoredRow {
    const { strides, offset, dtype, shape } = this.#source[this.#which];
    if (product(shape.slice(0, 1)) <= outer || shape[2] <= row)
      throw new Error(`no row ${outer}, ${head}, ${row}`);
    const start = offset + outer * strides[0] + head * strides[1] + row * strides[2];
    const { quantised: integers } = this.#source;
    if (integers) return this.#integers(start, integers);
    const floats = new Float32Array(this.#words.buffer);
    const halves = new Uint16Array(this.#words.buffer);
    const read = {
      f32: (at: number) => floats[at],
      f16: (at: number) => float16Value(halves[at]),
      bf16: (at: number) => bfloat16Value(halves[at]),
    }[dtype as Float];
    return { values: Float64Array.from({ length: this.#dim }, (_, d) => read(start + d)) };
  }

  #integers(start: number, { bits, groupK, groupV }: Quantisation): StoredRow {
    const group = this.#which === "k" ? groupK : groupV;
    const groups = this.#dim / group;
    const scales = new Float32Array(this.#words.buffer).slice(start, start + groups);
    const perWord = 32 / bits;
    const integers = Int32Array.from({ length: this.#dim }, (_, d) => {
      const word = this.#words[start + groups + Math.floor(d / perWord)] | 0;
      return (word << (32 - bits - bits * (d % perWord))) >> (32 - bits);
    });
    const values = Float64Array.from(integers, (x, d) =>
      Math.fround(x * scales[Math.floor(d / group)]),
    );
    return { values, scales, integers };
  }
}

/** Throws unless what lies in the cache is the row, as the cache stores rows. */
export function expectStored(
  what: string,
  stored: StoredRow,
  row: Row,
  dtype: CacheDtype,
  group: number,
): void {
  const untouched = row.exact === row.plain;
  const fail = (d: number, actual: number, expected: number) => {
    throw new Error(`${what}: channel ${d} is ${actual}, expected ${expected}`);
  };
  if (dtype === "int8" || dtype === "int4") {
    const { scales, integers } = quantiseRow(row.exact, { bits: dtype === "int8" ? 8 : 4, group });
    const gotScales = stored.scales as Float32Array;
    const gotIntegers = stored.integers as Int32Array;
    for (let d = 0; d < row.exact.length; d++) {
      const got = gotScales[Math.floor(d / group)];
      const scale = scales[Math.floor(d / group)];
      if (untouched) {
        if (got !== scale) fail(d, got, scale);
        if (gotIntegers[d] !== integers[d]) fail(d, gotIntegers[d], integers[d]);
      } else {
        // The row itself is off by its f32 arithmetic, which may change how it is rounded.
        const slack = allowance(row);
        if (!(Math.abs(got - scale) <= slack + 1e-6 * scale)) fail(d, got, scale);
        if (!(Math.abs(stored.values[d] - row.exact[d]) <= 0.5 * got * (1 + 1e-5) + slack)) {
          fail(d, stored.values[d], row.exact[d]);
        }
      }
    }
    return;
  }
  for (let d = 0; d < row.exact.length; d++) {
    const expected = ROUND[dtype](row.exact[d]);
    if (untouched ? stored.values[d] === expected : isNear(stored.values[d], row, d, dtype))
      continue;
    fail(d, stored.values[d], expected);
  }
}

/**
 * Returns how far f32 arithmetic may be off on a row: 3 times as far as a plain evaluation, and
 * 2e-6 of the largest value.
 */
function allowance({ exact, plain }: Row): number {
  let off = 0;
  let largest = 0;
  for (let d = 0; d < exact.length; d++) {
    off = Math.max(off, Math.abs(exact[d] - plain[d]));
    largest = Math.max(largest, Math.abs(exact[d]));
  }
  return 3 * off + 2e-6 * largest;
}

/**
 * Whether a value is within the allowance before it was rounded to the dtype, which is monotonous.
 */
export function isNear(actual: number, row: Row, d: number, dtype: Float): boolean {
  const slack = allowance(row);
  return (
    ROUND[dtype](row.exact[d] - slack) <= actual && actual <= ROUND[dtype](row.exact[d] + slack)
  );
}
