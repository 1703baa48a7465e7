// Sinusoidal position encodings: their frequencies, and the encodings themselves on the CPU.

import { check, show } from "../errors.ts";
import { elementsOfList, isLength, type Numbers, type OptionNames, type Taken } from "../given.ts";
import { takeOptions } from "../options.ts";
import { checkFrequencies, ownFrequencies } from "./frequencies.ts";

/**
 * A sinusoidal position encoding. The defaults are those of Attention Is All You Need (arXiv
 * 1706.03762), section 3.5.
 */
export interface SinusoidalOptions {
  /** Pair k has the frequency maxWavelength^(-2k / D) radians a position. Default 10000. */
  readonly maxWavelength?: number;
  /**
   * The ceil(D / 2) frequencies themselves, in radians a position, in place of `maxWavelength`.
   * Whisper and tensor2tensor have 10000^(-k / (D / 2 - 1)).
   */
  readonly frequencies?: ArrayLike<number>;
  /**
   * The channels of sine and cosine of pair k: `"interleaved"` at 2k and 2k + 1, `"halves"` at k
   * and k + D / 2. Default `"interleaved"`.
   */
  readonly order?: "interleaved" | "halves";
}

/** The names of the options. */
export const SINUSOIDAL_OPTIONS: OptionNames<SinusoidalOptions> = {
  maxWavelength: "number",
  frequencies: "any",
  order: "string",
};

/**
 * Checks the options for rows of `width` elements. Throws FoveaError("argument") that names what is
 * wrong.
 */
export function resolveSinusoidal(label: string, width: number, options: Taken<SinusoidalOptions>) {
  const { maxWavelength = 10_000, order = "interleaved" } = options;
  check(
    order === "interleaved" || order === "halves",
    "argument",
    () => `${label}: order must be "interleaved" or "halves", got ${show(order)}.`,
  );
  check(
    order === "interleaved" || width % 2 === 0,
    "argument",
    () => `${label}: halves need an even number of elements in a row, got ${show(width)}.`,
  );
  check(
    Number.isFinite(maxWavelength) && maxWavelength > 0,
    "argument",
    () => `${label}: maxWavelength must be a positive number, got ${maxWavelength}.`,
  );
  const pairs = Math.ceil(width / 2);
  if (options.frequencies === undefined) {
    const frequencies = Float64Array.from(
      { length: pairs },
      (_, pair) => maxWavelength ** ((-2 * pair) / width),
    );
    return {
      frequencies: checkFrequencies(label, frequencies),
      interleaved: order === "interleaved",
    };
  }
  check(
    options.maxWavelength === undefined,
    "argument",
    () => `${label}: frequencies take the place of maxWavelength; give one or the other.`,
  );
  const frequencies = ownFrequencies(label, options.frequencies, pairs);
  return { frequencies, interleaved: order === "interleaved" };
}

/**
 * Sinusoidal encodings of positions, computed in float64 and rounded to f32:
 *
 * ```
 * PE[p, 2k] = sin(p theta_k),   PE[p, 2k + 1] = cos(p theta_k)   theta_k = maxWavelength^(-2k / D)
 * ```
 *
 * Source: Attention Is All You Need (arXiv 1706.03762), section 3.5. {@link positionEncoding} adds
 * them on the GPU.
 *
 * @param positions The positions, or how many there are from 0 up.
 * @param width D
 * @returns [positions, D], row by row.
 * @throws FoveaError for options that make no sense.
 *
 * @example
 * const encodings = tensor(device, [512, 64], { data: sinusoidalPositions(512, 64) });
 */
export function sinusoidalPositions(
  positions: number | Numbers,
  width: number,
  given: SinusoidalOptions = {},
): Float32Array<ArrayBuffer> {
  const label = "sinusoidalPositions";
  const options = takeOptions(label, given, SINUSOIDAL_OPTIONS);
  const isCount = typeof positions === "number";
  const list = isCount ? [] : elementsOfList<number>(positions);
  check(
    Number.isInteger(width) && width >= 1,
    "argument",
    () => `${label}: a row has a whole number of elements from 1 up, got ${show(width)}.`,
  );
  check(
    list !== undefined && (isCount ? isLength(positions) : list.every(Number.isFinite)),
    "argument",
    () =>
      `${label}: positions must be a list of numbers, or how many there are from 0 up, got ${show(positions)}.`,
  );
  const count = isCount ? positions : list.length;
  check(
    count * width < 2 ** 31,
    "limit",
    () => `${label}: ${count} rows of ${width} elements are too many for an array.`,
  );
  const { frequencies, interleaved } = resolveSinusoidal(label, width, options);
  const encodings = new Float32Array(count * width);
  for (let row = 0; row < count; row++) {
    const position = isCount ? row : list[row];
    for (const [pair, frequency] of frequencies.entries()) {
      const [sine, cosine] = interleaved
        ? [2 * pair, 2 * pair + 1]
        : [pair, pair + frequencies.length];
      encodings[row * width + sine] = Math.sin(position * frequency);
      if (cosine < width) encodings[row * width + cosine] = Math.cos(position * frequency);
    }
  }
  return encodings;
}
