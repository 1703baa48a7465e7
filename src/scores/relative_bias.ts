// T5's bias by the distance of query and key: its values, and the bucket of every distance.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { checkNames } from "../options.ts";
import { distanceBuckets, type RelativeBias } from "../positions/buckets.ts";
import type { Descriptor } from "./descriptor.ts";
import { checkNumbers } from "./numbers.ts";

/** The names of the option's members. */
const NAMES: OptionNames<RelativeBias> = {
  table: "any",
  buckets: "number",
  bidirectional: "boolean",
  maxDistance: "number",
};

/** Describes `relativeBias`. */
export const RELATIVE_BIAS: Descriptor = ({ label, options: { relativeBias }, sizes }) => {
  if (relativeBias === undefined) return undefined;
  const { heads } = sizes;
  check(
    typeof relativeBias === "object" && relativeBias !== null && relativeBias.table !== undefined,
    "argument",
    () =>
      `${label}: relativeBias must be { table, bidirectional?, maxDistance? }, got ${show(relativeBias)}.`,
  );
  checkNames(`${label}: relativeBias`, relativeBias, NAMES);
  const { table, buckets = table instanceof Tensor ? table.shape[0] : table.length / heads } =
    relativeBias;
  checkNumbers(`${label}: relativeBias.table`, table, [[buckets, heads]]);
  const distances = bucketsOf(`${label}: relativeBias`, relativeBias, buckets);
  return {
    keeps: "nothing",
    slots: { relativeBias: true },
    tables: [
      { at: "relative_values_at", name: "relativeBias", values: table, dtype: "f32" },
      { at: "relative_buckets_at", name: "buckets", values: distances, dtype: "i32" },
    ],
    params: () => ({ relative_reach: distances.length / 2 - 1 }),
  };
};

/** Buckets by distance: of keys at 0..reach before the query, then of keys at 0..reach after it. */
function bucketsOf(what: string, bias: RelativeBias, buckets: number): number[] {
  const { side, behind } = distanceBuckets(what, bias, buckets);
  const ahead = behind.map((bucket) => (bias.bidirectional === false ? 0 : side + bucket));
  return [...behind, ...ahead];
}
