// What models are given, as programs take it.

import { check, show } from "../errors.ts";
import type { Batch } from "../training/program.ts";
import type { ModelInputs, Prepared, RunSizes } from "./definition.ts";
import { logMel } from "./log_mel.ts";

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

/** Throws FoveaError("argument") for inputs beside those that a family takes. */
export function checkTaken(
  family: string,
  inputs: ModelInputs,
  ...taken: readonly (keyof ModelInputs)[]
): void {
  const others = Object.entries(inputs).filter(([, given]) => given !== undefined);
  const wrong = others.find(([name]) => !taken.includes(name as keyof ModelInputs));
  check(
    wrong === undefined,
    "argument",
    () => `${family}: takes ${taken.join(", ")}, and no ${wrong?.[0]}.`,
  );
}

/** Texts of a batch: ids, positions among the tokens that count, a mask if something is padding. */
export function preparedTexts(
  inputs: ModelInputs,
  { family, vocab, mostRows, types: kinds = 0 }: TextLimits,
): Prepared {
  checkTaken(family, inputs, "ids", "mask", ...(kinds > 0 ? (["types"] as const) : []));
  const { ids, mask, types } = inputs;
  const taken = checkedRows(family, "ids", ids, vocab);
  const batch = taken.length;
  const rows = taken[0].length;
  check(
    rows <= mostRows,
    "argument",
    () => `${family}: takes up to ${mostRows} tokens, got ${rows}.`,
  );
  const seen = mask && checkedRows(family, "mask", mask, 2, [batch, rows]);
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

/** The tokens of the decoder beside an encoder of so many entries, as {@link preparedTexts} does. */
export function preparedDecoder(
  { decoderIds, decoderMask }: ModelInputs,
  { family, vocab, mostRows }: TextLimits,
  entries: number,
): { readonly sizes: Pick<RunSizes, "decoderRows" | "decoderMasked">; readonly batch: Batch } {
  if (decoderIds === undefined) {
    check(decoderMask === undefined, "argument", () => `${family}: decoderMask has no decoderIds.`);
    return { sizes: { decoderRows: 0 }, batch: {} };
  }
  const limits = { family: `${family}'s decoder`, vocab, mostRows };
  const given = { ids: decoderIds, ...(decoderMask && { mask: decoderMask }) };
  const { sizes, batch } = preparedTexts(given, limits);
  check(
    sizes.batch === entries,
    "argument",
    () => `${family}: there are ${sizes.batch} lists of decoderIds for ${entries} entries.`,
  );
  return {
    sizes: { decoderRows: sizes.rows, decoderMasked: sizes.masked },
    batch: Object.fromEntries(
      Object.entries(batch).map(([name, data]) => [`decoder_${name}`, data]),
    ),
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
  inputs: ModelInputs,
  family: string,
  size: readonly [channels: number, height: number, width: number],
): Prepared {
  checkTaken(family, inputs, "pixels");
  const { batch, data } = checkedArray(family, "pixels", inputs.pixels, size);
  return { sizes: { batch, rows: 1, masked: false }, batch: { pixels: data } };
}

/** Sound as features of a number of frames, or as samples that they are made of. */
export function preparedSound(
  inputs: ModelInputs,
  family: string,
  [bands, frames]: readonly [bands: number, frames: number],
): { readonly batch: number; readonly features: Float32Array } {
  const { features, audio } = inputs;
  check(
    (features === undefined) !== (audio === undefined),
    "argument",
    () => `${family}: takes features or audio, one of them.`,
  );
  if (audio === undefined) {
    const { batch, data } = checkedArray(family, "features", features, [bands, frames]);
    return { batch, features: data };
  }
  check(
    Array.isArray(audio) && audio.length > 0,
    "argument",
    () => `${family}: audio is a list of samples for each entry, got ${show(audio)}.`,
  );
  const each = bands * frames;
  const all = new Float32Array(audio.length * each);
  for (const [entry, samples] of audio.entries())
    all.set(logMel(samples, bands, frames), entry * each);
  return { batch: audio.length, features: all };
}

/** An array [B, ...each]. */
function checkedArray(
  family: string,
  name: string,
  given: ModelInputs["pixels"],
  each: readonly number[],
): { readonly batch: number; readonly data: Float32Array<ArrayBuffer> } {
  const { shape, data } = given ?? { shape: [], data: [] };
  const [batch = 0, ...rest] = shape;
  const size = each.reduce((product, one) => product * one, 1);
  check(
    String(rest) === String(each) && batch > 0 && data.length === batch * size,
    "argument",
    () => `${family}: ${name} are [B, ${each.join(", ")}], got [${shape.join(", ")}].`,
  );
  return { batch, data: Float32Array.from(data) };
}
