// Sums and activations of single elements on the CPU. The pointwise kernel is measured against
// them.

import { ACTIVATIONS, type ReferenceActivation } from "./activations.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { elements, summed } from "./tensors.ts";

export interface ReferencePointwiseOptions {
  /** `bias` and `residual` are added to x; they broadcast to the shape. */
  readonly bias?: ReferenceTensor | undefined;
  readonly residual?: ReferenceTensor | undefined;
  readonly activation?: ReferenceActivation | undefined;
  /** Multiplies what the activation gives; broadcasts to the shape. */
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
  const factors = factor && elements(factor, shape);
  const sums = elements(x, shape);
  for (const added of [bias, residual]) {
    for (const [i, value] of added ? elements(added, shape).entries() : [])
      sums[i] = round(sums[i] + value);
  }
  const apply = activation && ACTIVATIONS[activation].apply;
  return sums.map((sum, i) => {
    const y = apply ? apply(sum, round) : sum;
    return factors ? round(y * factors[i]) : y;
  });
}

/**
 * The gradients of activation(t) * factor, t = x + bias + residual:
 *
 *     dt = dy factor activation'(t),   dfactor = dy activation(t)
 *
 * and x, bias and residual each get dt.
 *
 * @param x as for {@link pointwise}
 * @param options those of {@link pointwise}, the shape of the result, and its gradient, row-major
 * @returns row-major, each of its tensor's shape, summed over the axes along which that is
 *   broadcast; empty for a tensor that isn't given
 */
export function pointwiseBackward(
  x: ReferenceTensor,
  options: ReferencePointwiseOptions & {
    readonly dOutput: ArrayLike<number>;
    readonly shape?: readonly number[];
  },
) {
  const {
    bias,
    residual,
    activation,
    factor,
    dOutput,
    shape = x.shape,
    precision = "f64",
  } = options;
  const { round } = roundingOf(precision);
  const factors = factor && elements(factor, shape);
  const sums = pointwise(x, { bias, residual, precision }, shape);
  const derivative = activation && ACTIVATIONS[activation].derivative;
  const dSum = sums.map((sum, i) => {
    const dy = round(dOutput[i] * (factors?.[i] ?? 1));
    return derivative ? round(dy * derivative(sum, round)) : dy;
  });
  const results = factor ? pointwise(x, { bias, residual, activation, precision }, shape) : sums;
  const dFactors = results.map((y, i) => round(dOutput[i] * y));
  const of = (tensor: ReferenceTensor | undefined, gradient: Float64Array) =>
    tensor ? summed(gradient, shape, tensor) : new Float64Array();
  return {
    dX: of(x, dSum),
    dBias: of(bias, dSum),
    dResidual: of(residual, dSum),
    dFactor: of(factor, dFactors),
  };
}
