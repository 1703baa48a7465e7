// The gradients of layer normalisation on the CPU.

import { layerNorm, type ReferenceLayerNormOptions } from "../normalise.ts";
import type { ReferenceTensor } from "../options.ts";
import { roundingOf } from "../rounding.ts";
import { elements, sizeOf, summed } from "../tensors.ts";

/** The options of {@link layerNorm}, and the gradients of its results. */
export interface ReferenceLayerNormBackwardOptions extends ReferenceLayerNormOptions {
  /** Of `output`, of the shape of x, row-major. */
  readonly dOutput: ArrayLike<number>;
  /** Of `sum`, where it goes on as the residual. Default zeros. */
  readonly dSum?: ArrayLike<number> | undefined;
}

/**
 * The gradients of y = n weight + bias, n = (t - mean) / deviation, t = x + residual +
 * residualBias:
 *
 *     dweight = sum dy n,   dbias = sum dy,   dn = dy weight
 *     dt = (dn - mean(dn) - n mean(dn n)) / deviation + dsum
 *
 * By the root mean square, mean(dn) is left out. Rows without deviation and epsilon have n = 0 and
 * dt = dsum.
 *
 * @returns row-major, each of its tensor's shape, summed over the axes along which that is
 *   broadcast; empty for a tensor that isn't given
 */
export function layerNormBackward(x: ReferenceTensor, options: ReferenceLayerNormBackwardOptions) {
  const { dOutput, dSum, weight, axis = -1, rms = false, precision } = options;
  const { round } = roundingOf(precision);
  const { shape } = x;
  const { sum, mean, inverseDeviation } = layerNorm(x, options);
  const factors = weight && elements(weight, shape);
  const width = sizeOf(shape.slice(axis < 0 ? axis + shape.length : axis));
  const dTotal = Float64Array.from(dSum ?? new Float64Array(sum.length));
  const weighed = new Float64Array(sum.length);
  for (let row = 0; row < mean.length; row++) {
    const places = Array.from({ length: width }, (_, d) => row * width + d);
    const own = inverseDeviation[row] === Number.POSITIVE_INFINITY ? 0 : inverseDeviation[row];
    const n = places.map((place) => round(round(sum[place] - mean[row]) * own));
    const dN = places.map((place) => round(dOutput[place] * (factors?.[place] ?? 1)));
    const meanOf = (values: readonly number[]) =>
      round(values.reduce((total, value) => round(total + value), 0) / width);
    const average = rms ? 0 : meanOf(dN);
    const along = meanOf(dN.map((value, d) => round(value * n[d])));
    places.forEach((place, d) => {
      weighed[place] = round(dOutput[place] * n[d]);
      const apart = round(round(dN[d] - average) - round(n[d] * along));
      dTotal[place] = round(dTotal[place] + round(apart * own));
    });
  }
  const of = (tensor: ReferenceTensor | undefined, gradient: ArrayLike<number>) =>
    tensor ? summed(gradient, shape, tensor, round) : new Float64Array();
  return {
    dX: dTotal,
    dResidual: of(options.residual, dTotal),
    dResidualBias: of(options.residualBias, dTotal),
    dWeight: of(weight, weighed),
    dBias: of(options.bias, dOutput),
  };
}
