// Sums and activations of single elements on the CPU. The pointwise kernel is measured against
// them.

import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { elements } from "./tensors.ts";

export interface ReferencePointwiseOptions {
  /** `bias` and `residual` are added to x; they broadcast to the shape. */
  readonly bias?: ReferenceTensor | undefined;
  readonly residual?: ReferenceTensor | undefined;
  readonly activation?: "gelu" | "gelu-tanh" | undefined;
  /** Multiplies the result of the activation; broadcasts to the shape. */
  readonly factor?: ReferenceTensor | undefined;
  /** `"f32"` rounds every operation and function to f32. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/**
 * activation(x + bias + residual) * factor, row-major.
 *
 * @param x Broadcasts to the shape
 * @param shape The shape of the result. Default: that of x.
 */
export function pointwise(
  x: ReferenceTensor,
  { bias, residual, activation, factor, precision }: ReferencePointwiseOptions = {},
  shape: readonly number[] = x.shape,
): Float64Array {
  const { round } = roundingOf(precision);
  if (factor) {
    const factors = elements(factor, shape);
    return pointwise(x, { bias, residual, activation, ...(precision && { precision }) }, shape).map(
      (value, i) => round(value * factors[i]),
    );
  }
  const sums = elements(x, shape);
  for (const added of [bias, residual]) {
    for (const [i, value] of added ? elements(added, shape).entries() : [])
      sums[i] = round(sums[i] + value);
  }
  if (activation === "gelu") return sums.map((value) => round(value * round(normalCdf(value))));
  if (activation !== "gelu-tanh") return sums;
  return sums.map((value) => {
    const u = round(Math.sqrt(2 / Math.PI) * round(value + round(0.044715 * value ** 3)));
    return round(0.5 * value * round(1 + round(Math.tanh(u))));
  });
}

/**
 * The standard normal distribution function, (1 + erf(x / sqrt 2)) / 2, with a relative error of
 * 1e-15.
 */
export function normalCdf(x: number): number {
  if (Number.isNaN(x)) return x;
  const a = Math.abs(x);
  const density = Math.exp((-a * a) / 2) / Math.sqrt(2 * Math.PI);
  let tail = 0; // Phi(-a)
  if (a < 3) {
    // Phi(a) - 1/2 = density * (a + a^3 / 3 + a^5 / (3 5) + ...): all terms have one sign.
    let term = a;
    let sum = a;
    for (let n = 3; term > sum * 1e-17; n += 2) {
      term *= (a * a) / n;
      sum += term;
    }
    tail = 0.5 - density * sum;
  } else {
    // Phi(-a) = density / (a + 1 / (a + 2 / (a + 3 / (a + ...)))).
    let fraction = a;
    for (let n = 200; n >= 1; n--) fraction = a + n / fraction;
    tail = density / fraction;
  }
  return x < 0 ? tail : 1 - tail;
}
