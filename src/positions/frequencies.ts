// The frequencies with which positions turn the pairs of an encoding, as callers give them.

import { check, show } from "../errors.ts";

/**
 * The most radians a position that an encoding may have. Up to this, angles are right to 3e-7 at
 * every position that tables of angles cover; beyond it, float64 loses the digits that say where in
 * its turn a pair stands.
 */
const FASTEST = 256;

/**
 * A copy of the frequencies that a caller gives. Throws FoveaError("argument") unless there is one
 * for each pair.
 */
export function ownFrequencies(
  label: string,
  given: ArrayLike<number>,
  pairs: number,
): Float64Array {
  const own =
    (given as ArrayLike<number> | null)?.length === pairs ? Float64Array.from(given) : undefined;
  check(
    own?.every(Number.isFinite) ?? false,
    "argument",
    () =>
      `${label}: frequencies must be ${pairs} finite numbers, one for each pair, got ${show(given)}.`,
  );
  return checkFrequencies(label, own as Float64Array);
}

/** Throws FoveaError("argument") for a pair that turns too fast to say where it stands. */
export function checkFrequencies(label: string, frequencies: Float64Array): Float64Array {
  const wrong = frequencies.findIndex((frequency) => !(Math.abs(frequency) <= FASTEST));
  check(
    wrong < 0,
    "argument",
    () =>
      `${label}: pair ${wrong} would turn by ${frequencies[wrong]} radians a position; at most ${FASTEST} are taken, and a base or wavelength from 1 up gives at most 1.`,
  );
  return frequencies;
}
