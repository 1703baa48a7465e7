// What models are given, as programs take it.

import { check, show } from "../errors.ts";
import type { ModelInputs, Prepared } from "./definition.ts";

/** The limits of a model's texts. */
export interface TextLimits {
  readonly family: string;
  readonly vocab: number;
  readonly mostRows: number;
  /** How many types of tokens there are. 0 if the model knows none. */
  readonly types?: number;
}

/** Rows of numbers, all of one length. */
type Rows = readonly (readonly number[])[];

/** Texts of a batch: ids, positions among the tokens that count, a mask if something is padding. */
export function preparedTexts(
  { ids, mask, types, pixels }: ModelInputs,
  { family, vocab, mostRows, types: kinds = 0 }: TextLimits,
): Prepared {
  check(pixels === undefined, "argument", () => `${family}: takes ids, and no pixels.`);
  const taken = checkedRows(family, "ids", ids, vocab);
  const batch = taken.length;
  const rows = taken[0].length;
  check(
    rows <= mostRows,
    "argument",
    () => `${family}: takes up to ${mostRows} tokens, got ${rows}.`,
  );
  const seen = mask && checkedRows(family, "mask", mask, 2, [batch, rows]);
  check(types === undefined || kinds > 0, "argument", () => `${family}: knows no types of tokens.`);
  const kindOf = types && checkedRows(family, "types", types, kinds, [batch, rows]);
  const isMasked = seen?.some((row) => row.includes(0)) ?? false;
  const positions = taken.map((_, entry) => positionsOf(seen?.[entry], rows));
  return {
    sizes: { batch, rows, masked: isMasked },
    batch: {
      ids: taken.flat(),
      positions: positions.flat(),
      ...(isMasked && seen && { mask: seen.flat() }),
      ...(kinds > 0 && { types: kindOf?.flat() ?? new Array(batch * rows).fill(0) }),
    },
  };
}

/** The position of each token among those that count, 0 for padding. */
function positionsOf(mask: readonly number[] | undefined, rows: number): readonly number[] {
  let next = 0;
  return Array.from({ length: rows }, (_, at) => (mask?.[at] === 0 ? 0 : next++));
}

function checkedRows(
  family: string,
  name: string,
  given: Rows | undefined,
  below: number,
  shape?: readonly [number, number],
): Rows {
  const isRows =
    Array.isArray(given) && given.length > 0 && given.every((row) => Array.isArray(row));
  check(
    isRows,
    "argument",
    () => `${family}: ${name} must be a list of lists of numbers, got ${show(given)}.`,
  );
  const rows = given as Rows;
  const [batch, length] = shape ?? [rows.length, rows[0].length];
  check(
    length > 0 && rows.length === batch && rows.every((row) => row.length === length),
    "argument",
    () =>
      `${family}: ${name} must be ${batch} lists of ${length} numbers each, got lengths ${rows.map((row) => row.length).join(", ")}.`,
  );
  const wrong = rows.flat().find((id) => !(Number.isInteger(id) && id >= 0 && id < below));
  check(
    wrong === undefined,
    "argument",
    () => `${family}: ${name} are whole numbers below ${below}, got ${show(wrong)}.`,
  );
  return rows;
}

/** Pictures of one size. */
export function preparedPixels(
  { ids, mask, types, pixels }: ModelInputs,
  family: string,
  [channels, height, width]: readonly [channels: number, height: number, width: number],
): Prepared {
  check(
    ids === undefined && mask === undefined && types === undefined && pixels !== undefined,
    "argument",
    () => `${family}: takes pixels, and nothing else.`,
  );
  const { shape, data } = pixels;
  const [batch, ...each] = shape;
  check(
    String(each) === String([channels, height, width]) &&
      batch > 0 &&
      data.length === batch * channels * height * width,
    "argument",
    () => `${family}: pixels are [B, ${channels}, ${height}, ${width}], got [${shape}].`,
  );
  return {
    sizes: { batch, rows: 1, masked: false },
    batch: { pixels: Float32Array.from(data) },
  };
}
