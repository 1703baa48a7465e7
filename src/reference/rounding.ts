// The arithmetic of a precision: how the result of every operation is rounded.

export interface Rounding {
  readonly single: boolean;
  /** Rounds a number to the precision. */
  readonly round: (x: number) => number;
  /**
   * Rounds a final score. In f32 it stops at the lowest finite number, because -Infinity masks a
   * key, and the sum of two very low numbers must not.
   */
  readonly roundScore: (s: number) => number;
}

const LOWEST = -3.4028234663852886e38;

const F64: Rounding = { single: false, round: (x) => x, roundScore: (s) => s };
const F32: Rounding = {
  single: true,
  round: Math.fround,
  roundScore: (s) => (s === Number.NEGATIVE_INFINITY ? s : Math.max(Math.fround(s), LOWEST)),
};

export const roundingOf = (precision: "f64" | "f32" = "f64"): Rounding =>
  precision === "f32" ? F32 : F64;
