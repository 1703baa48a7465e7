// Softmax and normalisation of rows on the CPU. The kernels of rows are measured against them.

import type { ReferenceTensor } from "./options.ts";
import { pointwise } from "./pointwise.ts";
import { roundingOf } from "./rounding.ts";
import { softmax, softmaxBackward } from "./softmax.ts";
import { elements, sizeOf } from "./tensors.ts";

export interface ReferenceSoftmaxOptions {
  /** Default -1. */
  readonly axis?: number;
  /** Its logarithm. Default false. */
  readonly log?: boolean;
  readonly precision?: "f64" | "f32";
}

/** The slices of a shape along an axis: calls `visit` with the start of each. */
function eachSlice(
  shape: readonly number[],
  { axis = -1 }: ReferenceSoftmaxOptions,
  visit: (start: number, width: number, step: number) => void,
): void {
  const along = axis < 0 ? axis + shape.length : axis;
  const width = shape[along];
  const step = sizeOf(shape.slice(along + 1));
  for (let slice = 0; slice < sizeOf(shape) / Math.max(width, 1); slice++)
    visit(Math.floor(slice / step) * step * width + (slice % step), width, step);
}

/**
 * exp(x - m) / sum exp(x - m) along an axis, or its logarithm, row-major. The softmax of -Infinity
 * is 0, also in a slice of nothing else. A slice with NaN or Infinity is NaN.
 */
export function softmaxAlong(
  x: ReferenceTensor,
  options: ReferenceSoftmaxOptions = {},
): Float64Array {
  const { log = false, precision } = options;
  const { round } = roundingOf(precision);
  const values = elements(x, x.shape);
  const output = new Float64Array(values.length);
  eachSlice(x.shape, options, (start, width, step) => {
    const row = Float64Array.from({ length: width }, (_, d) => values[start + d * step]);
    const weights = new Float64Array(width);
    const { max, sum } = softmax(row, weights, [0, width], Number.NEGATIVE_INFINITY, round);
    const logSum = round(Math.log(sum));
    for (let d = 0; d < width; d++) {
      const nothing = row[d] === Number.NEGATIVE_INFINITY && !Number.isNaN(sum);
      const logarithm = nothing ? row[d] : round(round(row[d] - max) - logSum);
      output[start + d * step] = log ? logarithm : round(weights[d] / sum);
    }
  });
  return output;
}

/**
 * The gradient of x, row-major, from the one of the softmax p or of its logarithm:
 *
 *     dx = p (dp - sum p dp),   or dx = dlog - p sum dlog
 *
 * An x of -Infinity has gradient 0, and the gradient of its result is not read.
 *
 * @param dOutput of the shape of x, row-major
 */
export function softmaxAlongBackward(
  x: ReferenceTensor,
  dOutput: ArrayLike<number>,
  options: ReferenceSoftmaxOptions = {},
): Float64Array {
  const values = elements(x, x.shape);
  const { round } = roundingOf(options.precision);
  const probabilities = softmaxAlong(x, { ...options, log: false });
  const dX = new Float64Array(values.length);
  eachSlice(x.shape, options, (start, width, step) => {
    const places = Array.from({ length: width }, (_, d) => start + d * step).filter(
      (place) => values[place] !== Number.NEGATIVE_INFINITY,
    );
    const p = Float64Array.from(places, (place) => probabilities[place]);
    const gradient = Float64Array.from(places, (place) => dOutput[place]);
    const total = gradient.reduce((sum, g) => round(sum + g), 0);
    if (!options.log) softmaxBackward(p, gradient, [0, p.length], 0, round);
    places.forEach((place, d) => {
      dX[place] = options.log ? round(gradient[d] - round(p[d] * total)) : gradient[d];
    });
  });
  return dX;
}

export interface ReferenceLayerNormOptions {
  /** `residual` and `residualBias` are added to x before; they broadcast to its shape. */
  readonly residual?: ReferenceTensor | undefined;
  readonly residualBias?: ReferenceTensor | undefined;
  readonly weight?: ReferenceTensor | undefined;
  readonly bias?: ReferenceTensor | undefined;
  /** The first of the axes that are normalised. Default -1. */
  readonly axis?: number;
  /** Default 1e-5. */
  readonly epsilon?: number;
  /** Normalise by the root mean square. Default false. */
  readonly rms?: boolean;
  /** `"f32"` rounds every operation to f32. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/**
 * Layer normalisation of x + residual + residualBias, row-major. Sources: arXiv 1607.06450,
 * 1910.07467. The mean is found from the distances to the first element, so that a row of equal
 * numbers has no deviation. A row without deviation and epsilon is 0 before its bias.
 *
 * @returns output and sum, of the shape of x; mean (0 by the root mean square) and inverse
 *   deviation, one for each row
 */
export function layerNorm(x: ReferenceTensor, options: ReferenceLayerNormOptions = {}) {
  const {
    residual,
    residualBias,
    weight,
    bias,
    axis = -1,
    epsilon = 1e-5,
    rms = false,
    precision = "f64",
  } = options;
  const { round } = roundingOf(precision);
  const { shape } = x;
  const sum = pointwise(x, { bias: residual, residual: residualBias, precision });
  const [w, b] = [weight, bias].map((one) => one && elements(one, shape));
  const width = sizeOf(shape.slice(axis < 0 ? axis + shape.length : axis));
  const rows = width ? sum.length / width : 0;
  const mean = new Float64Array(rows);
  const inverseDeviation = new Float64Array(rows);
  const output = new Float64Array(sum.length);
  for (let row = 0; row < rows; row++) {
    const values = sum.subarray(row * width, (row + 1) * width);
    if (!rms) {
      const apart = values.reduce((total, value) => round(total + round(value - values[0])), 0);
      mean[row] = round(values[0] + round(apart / width));
    }
    const off = values.map((value) => round(value - mean[row]));
    const variance = round(
      off.reduce((total, value) => round(total + round(value * value)), 0) / width,
    );
    inverseDeviation[row] = round(1 / round(Math.sqrt(round(variance + epsilon))));
    const factor = variance + epsilon === 0 ? 0 : inverseDeviation[row];
    off.forEach((value, d) => {
      const at = row * width + d;
      const scaled = round(round(value * factor) * (w?.[at] ?? 1));
      output[at] = round(scaled + (b?.[at] ?? 0));
    });
  }
  return { output, sum, mean, inverseDeviation };
}
