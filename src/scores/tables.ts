// The small tables of a problem: lengths and positions of batch entries, slopes and sinks of heads,
// buckets of distances. They share one buffer, because a kernel may bind eight. Numbers are written
// when the plan is made; what a caller keeps on the GPU is copied there in every run.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames } from "../options.ts";
import type { ListOrTensor, PerHead } from "../plan/specs.ts";
import { distanceBuckets, type RelativeBias } from "../positions/buckets.ts";
import type { TakenScores } from "./options.ts";
import type { Table } from "./resolved.ts";

/** Sizes of the scores. */
export interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly seqKv: number;
}

/** The names of its members. */
const RELATIVE_BIAS: OptionNames<RelativeBias> = {
  table: "any",
  buckets: "number",
  bidirectional: "boolean",
  maxDistance: "number",
};

/** A sink is kept in log2 units, too. */
const LARGEST_SINK = 2e38;

/** The tables of ALiBi, sinks and T5's bias. */
export function headTables(label: string, options: TakenScores, { batch, heads }: Sizes): Table[] {
  const { alibiSlopes, sinks, relativeBias } = options;
  const tables: Table[] = [];
  const add = (
    at: Table["at"],
    name: string,
    values: PerHead,
    shapes: number[][],
    largest = LARGEST,
    what = name,
  ) => {
    checkNumbers(`${label}: ${what}`, values, shapes, largest);
    tables.push({ at, name, values, dtype: "f32" });
  };
  if (alibiSlopes !== undefined) {
    const perEntry =
      alibiSlopes instanceof Tensor
        ? alibiSlopes.shape.length === 2
        : alibiSlopes?.length !== heads;
    checkNumbers(`${label}: alibiSlopes`, alibiSlopes, [[heads], [batch, heads]]);
    const stride = perEntry ? heads : 0;
    const slopes = {
      at: "slopes_at",
      name: "alibiSlopes",
      values: alibiSlopes,
      dtype: "f32",
    } as const;
    tables.push({ ...slopes, stride: ["slopes_stride_b", stride] });
  }
  if (sinks !== undefined) add("sinks_at", "sinks", sinks, [[heads]], LARGEST_SINK);
  if (relativeBias !== undefined) {
    check(
      typeof relativeBias === "object" && relativeBias !== null && relativeBias.table !== undefined,
      "argument",
      () =>
        `${label}: relativeBias must be { table, bidirectional?, maxDistance? }, got ${show(relativeBias)}.`,
    );
    checkNames(`${label}: relativeBias`, relativeBias, RELATIVE_BIAS);
    const { table, buckets = table instanceof Tensor ? table.shape[0] : table.length / heads } =
      relativeBias;
    add(
      "relative_values_at",
      "relativeBias",
      table,
      [[buckets, heads]],
      LARGEST,
      "relativeBias.table",
    );
    tables.push(bucketTable(label, relativeBias, buckets));
  }
  return tables;
}

/** Buckets by distance: of keys at 0..reach before the query, then of keys at 0..reach after it. */
function bucketTable(label: string, bias: RelativeBias, buckets: number): Table {
  const { side, behind } = distanceBuckets(`${label}: relativeBias`, bias, buckets);
  const ahead = behind.map((bucket) => (bias.bidirectional === false ? 0 : side + bucket));
  return {
    at: "relative_buckets_at",
    name: "buckets",
    values: [...behind, ...ahead],
    dtype: "i32",
  };
}

/** The largest f32. */
export const LARGEST = 3.4028234663852886e38;

/** @param largest The largest magnitude that is allowed */
export function checkNumbers(
  what: string,
  values: PerHead,
  shapes: readonly number[][],
  largest: number = LARGEST,
): asserts values is ListOrTensor {
  const expected = shapes.map((shape) => `[${shape.join(", ")}]`).join(" or ");
  const fits = (count: number) =>
    shapes.some((shape) => shape.reduce((product, size) => product * size, 1) === count);
  if (values instanceof Tensor) {
    const { shape, dtype } = values;
    check(
      dtype === "f32" &&
        shapes.some(
          (s) => s.length === shape.length && s.every((size, axis) => size === shape[axis]),
        ),
      "argument",
      () => `${what} must be an f32 tensor ${expected}, got ${dtype} [${shape.join(", ")}].`,
    );
    return;
  }
  check(
    Array.isArray(values) && fits(values.length),
    "argument",
    () =>
      `${what} must be a tensor or an array of numbers ${expected}, got ${Array.isArray(values) ? values.length : show(values)}.`,
  );
  const wrong = values.findIndex(
    (value) => !(typeof value === "number" && Math.abs(value) <= largest),
  );
  const bound = largest < LARGEST ? ` of at most ${largest}` : "";
  check(
    wrong < 0,
    "argument",
    () => `${what} must be finite numbers of f32${bound}, got ${show(values[wrong])} at ${wrong}.`,
  );
}
