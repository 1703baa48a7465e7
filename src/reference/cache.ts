// The changes that a cache makes to rows before it stores them, on the CPU. The append kernel is
// measured against it.

import { layerNorm } from "./normalise.ts";

/**
 * Integers that stand for a row: `bits` of 8 or 4, and `group` channels to a scale, which divides
 * the row.
 */
export interface ReferenceQuantisation {
  readonly bits: 8 | 4;
  readonly group: number;
}

/** The largest magnitude of an integer. */
const mostOf = (bits: 8 | 4) => 2 ** (bits - 1) - 1;

/**
 * Groups whose largest magnitude is below this count as zeros: their scale could be subnormal in
 * f32.
 */
const SMALLEST = 2 ** -118;

/**
 * Turns a row into integers that share scales, symmetric about 0:
 *
 *     scale = max |x| * (1 / most),   most = 127 or 7
 *     q = x / scale to the nearest integer, ties to even
 *
 * Scales are f32, as is 1 / most, so that kernels can give the same bits. A group that holds NaN or
 * an infinity has scale NaN and integers 0.
 *
 * @param row f32 values
 */
export function quantiseRow(row: ArrayLike<number>, { bits, group }: ReferenceQuantisation) {
  const reciprocal = Math.fround(1 / mostOf(bits));
  const scales = new Float32Array(row.length / group);
  const integers = new Int8Array(row.length);
  for (let index = 0; index < scales.length; index++) {
    let largest = 0;
    for (let d = index * group; d < (index + 1) * group; d++) {
      largest = Number.isFinite(row[d]) ? Math.max(largest, Math.abs(row[d])) : Number.NaN;
    }
    const scale = largest < SMALLEST ? 0 : Math.fround(largest * reciprocal);
    scales[index] = scale;
    if (!(scale > 0)) continue;
    for (let d = index * group; d < (index + 1) * group; d++)
      integers[d] = roundToEven(row[d] / scale);
  }
  return { scales, integers };
}

/**
 * Rounds ties to even. A double holds the quotient of two f32 closely enough: a quotient that isn't
 * a tie is 2^-25 or more away from one.
 */
function roundToEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** The numbers that the integers of a row stand for. */
export function dequantiseRow(
  { scales, integers }: ReturnType<typeof quantiseRow>,
  { group }: ReferenceQuantisation,
): Float64Array {
  return Float64Array.from(integers, (q, d) => q * scales[Math.floor(d / group)]);
}

/**
 * The words that a cache holds for a row: bits of the scales, then the integers, the first in the
 * lowest bits.
 */
export function quantisedWords(
  row: ArrayLike<number>,
  options: ReferenceQuantisation,
): Uint32Array {
  const { scales, integers } = quantiseRow(row, options);
  const { bits } = options;
  const perWord = 32 / bits;
  const words = new Uint32Array(scales.length + Math.ceil(row.length / perWord));
  // JavaScript does not say which bits its NaN has.
  words.set(
    new Uint32Array(scales.buffer).map((word, index) =>
      Number.isNaN(scales[index]) ? 0x7fc00000 : word,
    ),
  );
  integers.forEach((q, d) => {
    words[scales.length + Math.floor(d / perWord)] |=
      (q & (2 ** bits - 1)) << ((d % perWord) * bits);
  });
  return words;
}

/** Options of {@link rmsNorm}. */
export interface ReferenceNormOptions {
  /** A weight for each channel. Default 1. */
  readonly weight?: ArrayLike<number> | undefined;
  /** Default 1e-6. */
  readonly epsilon?: number;
  readonly precision?: "f64" | "f32";
}

/**
 * Root mean square normalisation of rows: x / sqrt(mean x^2 + epsilon) * weight. Source: arXiv
 * 1910.07467.
 *
 * @param x Rows of D channels, one after the other
 */
export function rmsNorm(
  x: ArrayLike<number>,
  D: number,
  options: ReferenceNormOptions = {},
): Float64Array {
  const { weight, epsilon = 1e-6, precision = "f64" } = options;
  const shape = [x.length / D, D];
  return layerNorm(
    { data: x, shape },
    { rms: true, epsilon, precision, weight: weight && { data: weight, shape: [D] } },
  ).output;
}

/** The row of a cache that holds a token: its own row, or in a ring one that is used again. */
export const ringRow = (token: number, sinkTokens: number, ring: number): number =>
  token < sinkTokens || ring === 0 ? token : sinkTokens + ((token - sinkTokens) % ring);
