// Hostile values in the problems of tests and fuzzing: which rows they are put in, by a seed.

/**
 * Kinds of hostile values. One row in eight is huge or tiny; one in eight is NaN, whole or in one
 * element.
 */
export type Extreme =
  | `nan${"Q" | "K" | "V"}`
  | `huge${"Q" | "K" | "V"}`
  | `tiny${"Q" | "K" | "V"}`
  | "constant"
  | "equalKeys"
  | "farBias"
  | "farSinks";

export const EXTREMES: readonly Extreme[] = [
  ...(["nanQ", "nanK", "nanV", "hugeQ", "hugeK", "hugeV", "tinyQ", "tinyK", "tinyV"] as const),
  ...(["constant", "equalKeys", "farBias", "farSinks"] as const),
];

/**
 * The factors of tiny rows, and of huge rows unless 16 bits or another factor bound them.
 */
const TINY = 1e-20;
const HUGE = 1e18;
/** Products of a huge query and a huge key stay finite in f32, as scores of attention must. */
const BOTH_HUGE = 1e9;
/**
 * The factor of huge rows of f16, which ends at 65504: normal numbers of a deviation of 30 stay
 * below.
 */
const HUGE_F16 = 100;
/** A finite bias that isn't a mask, and leaves nothing of the scores that it is added to. */
const FAR_BIAS = -1e30;
const FAR_SINK = 50;

/** Returns a number below 2^32 that has little to do with its arguments. */
function scrambled(seed: number, index: number): number {
  let x = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
  return (x ^ (x >>> 15)) >>> 0;
}

/**
 * Whether a row is the one in eight of its kind. Row 0 may be, so short tensors have some, too.
 */
const isChosen = (seed: number, kind: Extreme, row: number) =>
  scrambled(seed + EXTREMES.indexOf(kind) * 7919, row) % 8 === 0;

/** Changes rows of q, k or v, `width` elements each, before they are rounded to their dtype. */
export function makeExtreme(
  data: Float32Array,
  width: number,
  {
    of,
    extremes = [],
    seed,
    f16,
  }: { of: "Q" | "K" | "V"; extremes?: readonly Extreme[]; seed: number; f16: boolean },
): void {
  const rows = width ? data.length / width : 0;
  const row = (index: number) => data.subarray(index * width, (index + 1) * width);
  const has = (kind: Extreme) => extremes.includes(kind);
  const both = has("hugeQ") && has("hugeK") && of !== "V";
  const huge = f16 ? HUGE_F16 : both ? BOTH_HUGE : HUGE;
  for (let index = 0; index < rows; index++) {
    if (of === "K" && has("equalKeys") && index) row(index).set(row(0));
    if (of !== "V" && has("constant") && isChosen(seed, "constant", index))
      row(index).fill(row(index)[0]);
    for (const [kind, factor] of [
      [`huge${of}`, huge],
      [`tiny${of}`, TINY],
    ] as const) {
      if (!has(kind) || !isChosen(seed, kind, index)) continue;
      for (let d = 0; d < width; d++) row(index)[d] *= factor;
    }
  }
}

/** Puts NaN into rows, after they are rounded: into one element, or into all. */
export function addNans(
  data: Float32Array,
  width: number,
  { of, extremes = [], seed }: { of: "Q" | "K" | "V"; extremes?: readonly Extreme[]; seed: number },
): void {
  const kind: Extreme = `nan${of}`;
  if (!extremes.includes(kind)) return;
  for (let index = 0; index < data.length / Math.max(width, 1); index++) {
    if (!isChosen(seed, kind, index)) continue;
    const where = scrambled(seed, index) % (2 * width);
    if (where < width) data[index * width + where] = Number.NaN;
    else data.fill(Number.NaN, index * width, (index + 1) * width);
  }
}

/** Makes one in four elements of a bias finite and far below every score; those that mask stay. */
export const farBias = (data: Float32Array, seed: number) =>
  data.map((x, index) => (Number.isFinite(x) && scrambled(seed, index) % 4 === 0 ? FAR_BIAS : x));

/** Makes sinks that leave nothing of the scores, and sinks that are nothing beside them. */
export const farSinks = (data: Float32Array) =>
  data.map((_, head) => (head % 2 ? -FAR_SINK : FAR_SINK));
