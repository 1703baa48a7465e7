// Biases of scores on the CPU. The kernel of biases in memory is measured against them.

import { sigmoid } from "./activations.ts";
import { relativeBucket } from "./bucket.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { elements, sizeOf, summed } from "./tensors.ts";

export interface ReferenceBiasOptions {
  /** [buckets, H], in place of the bias. */
  readonly table?: ReferenceTensor;
  /** Default true. */
  readonly bidirectional?: boolean;
  /** Default 128. */
  readonly maxDistance?: number;
  /** Position of the first query. Default 0. */
  readonly queryOffset?: number;
  /** Broadcasts to the shape. */
  readonly bias?: ReferenceTensor;
  /** Gates, which broadcast to [B, H, M, 1]. */
  readonly gates?: {
    readonly update: ReferenceTensor;
    readonly reset: ReferenceTensor;
    readonly scale: ReferenceTensor;
  };
  readonly precision?: "f64" | "f32";
}

/**
 * bias or table[bucket(j - p), h], times u (r w - 1) + 2 with the sigmoids u and r of the gates.
 * Sources: arXiv 1910.10683, section 2.1; arXiv 2110.13900, equations 2 to 5.
 *
 * @param shape [B, H, M, N], the shape of the result
 */
export function positionBias(
  shape: readonly number[],
  options: ReferenceBiasOptions,
): Float64Array {
  const { gates, precision } = options;
  const { round } = roundingOf(precision);
  const { plain } = plainBias(shape, options);
  if (!gates) return plain;
  const N = shape[3];
  const { update, reset, scale } = gateRows(shape, gates);
  return plain.map((value, at) => {
    const row = Math.floor(at / N);
    const inner = round(round(sigmoid(reset[row], round) * scale[row]) - 1);
    const factor = round(round(sigmoid(update[row], round) * inner) + 2);
    return round(factor * value);
  });
}

/**
 * The gradients of a bias, from the one of the result: with its factor f = u (r w - 1) + 2 and the
 * sigmoids u and r,
 *
 *     dbias = f dy,   df = sum_j bias_j dy_j
 *     dupdate = df (r w - 1) u (1 - u),   dreset = df u w r (1 - r),   dscale = df u r
 *
 * @param shape [B, H, M, N], that of the result
 * @param dOutput of this shape, row-major
 * @returns row-major, each of its tensor's shape, summed over the axes along which that is
 *   broadcast, dTable over the places that read an element; empty for what isn't given
 */
export function positionBiasBackward(
  shape: readonly number[],
  dOutput: ArrayLike<number>,
  options: ReferenceBiasOptions,
) {
  const { table, bias, gates } = options;
  const { round } = roundingOf(options.precision);
  const N = shape[3];
  const rows = [...shape.slice(0, 3), 1];
  const { plain, element } = plainBias(shape, options);
  const dPlain = Float64Array.from(plain, (_, at) => dOutput[at]);
  const dGates = [0, 1, 2].map(() => new Float64Array(gates ? sizeOf(rows) : 0));
  if (gates) {
    const { update, reset, scale } = gateRows(shape, gates);
    for (let row = 0; row < sizeOf(rows); row++) {
      const u = sigmoid(update[row], round);
      const r = sigmoid(reset[row], round);
      const inner = round(round(r * scale[row]) - 1);
      const factor = round(round(u * inner) + 2);
      let dFactor = 0;
      for (let at = row * N; at < (row + 1) * N; at++) {
        dFactor = round(dFactor + round(plain[at] * dOutput[at]));
        dPlain[at] = round(dPlain[at] * factor);
      }
      const product = (...factors: number[]) => factors.reduce((a, b) => round(a * b), dFactor);
      dGates[0][row] = product(inner, u, round(1 - u));
      dGates[1][row] = product(u, scale[row], r, round(1 - r));
      dGates[2][row] = product(u, r);
    }
  }
  const dTable = new Float64Array(table ? sizeOf(table.shape) : 0);
  if (table)
    for (const [at, g] of dPlain.entries()) dTable[element(at)] = round(dTable[element(at)] + g);
  const of = (tensor: ReferenceTensor | undefined, gradient: Float64Array, like = shape) =>
    tensor ? summed(gradient, like, tensor, round) : new Float64Array();
  return {
    dTable,
    dBias: of(table ? undefined : bias, dPlain),
    dUpdate: of(gates?.update, dGates[0], rows),
    dReset: of(gates?.reset, dGates[1], rows),
    dScale: of(gates?.scale, dGates[2], rows),
  };
}

/** The bias without gates, and which element of the table each is. */
function plainBias(shape: readonly number[], options: ReferenceBiasOptions) {
  const { table, bias, bidirectional = true, maxDistance = 128, queryOffset = 0 } = options;
  const [, H, M, N] = shape;
  const element = (at: number) => {
    const row = Math.floor(at / N);
    const distance = (at % N) - (row % M) - queryOffset;
    const bucket = relativeBucket(distance, table?.shape[0] ?? 0, bidirectional, maxDistance);
    return bucket * H + (Math.floor(row / M) % H);
  };
  const values = bias ? elements(bias, shape) : new Float64Array(sizeOf(shape));
  return { plain: table ? values.map((_, at) => table.data[element(at)]) : values, element };
}

/** The gates of each row. */
function gateRows(shape: readonly number[], gates: NonNullable<ReferenceBiasOptions["gates"]>) {
  const rows = [...shape.slice(0, 3), 1];
  return {
    update: elements(gates.update, rows),
    reset: elements(gates.reset, rows),
    scale: elements(gates.scale, rows),
  };
}
