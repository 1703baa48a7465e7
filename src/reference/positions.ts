// Absolute position encodings on the CPU. The kernel is measured against them.

import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";

export interface ReferenceEncodingOptions {
  /** Default 10000. */
  readonly maxWavelength?: number;
  /** Frequencies in place of `maxWavelength`: one for each pair, in radians a position. */
  readonly frequencies?: ArrayLike<number>;
  /** `"halves"` puts all sines before all cosines. Default `"interleaved"`. */
  readonly order?: "interleaved" | "halves";
  /**
   * `[P, D]`: a learned table in place of sinusoidal encodings. A position without a row adds
   * nothing.
   */
  readonly table?: ReferenceTensor;
  /** Gives the position of a row. Default: the row's index. */
  readonly position?: (batch: number, row: number) => number;
  /** Factor of x. Default 1. */
  readonly scale?: number;
  /** `"f32"` rounds every operation, and sine and cosine, to f32. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/**
 * The sinusoidal encoding of a position, D numbers: sin(p theta_k) at 2k and cos(p theta_k) at 2k +
 * 1, with theta_k = maxWavelength^(-2k / D). Source: Attention Is All You Need (arXiv 1706.03762),
 * section 3.5.
 */
export function sinusoidalEncoding(
  position: number,
  width: number,
  options: ReferenceEncodingOptions = {},
): number[] {
  const { maxWavelength = 10000, frequencies, order = "interleaved" } = options;
  return Array.from({ length: width }, (_, d) => {
    const halves = order === "halves";
    const pair = halves ? d % (width / 2) : Math.floor(d / 2);
    const isSine = halves ? d < width / 2 : d % 2 === 0;
    const angle =
      position * (frequencies ? frequencies[pair] : 1 / maxWavelength ** ((2 * pair) / width));
    return isSine ? Math.sin(angle) : Math.cos(angle);
  });
}

/**
 * scale * x + the encodings of the rows' positions.
 *
 * @param x [B, M, D], dense
 * @returns [B, M, D]
 */
export function positionEncoding(
  x: ReferenceTensor,
  options: ReferenceEncodingOptions = {},
): Float64Array {
  const { table, scale = 1, position = (_, row) => row } = options;
  const [B, M, D] = x.shape;
  const { round } = roundingOf(options.precision);
  const learned = (p: number, { data, shape }: ReferenceTensor) =>
    Array.from({ length: D }, (_, d) => (p >= 0 && p < shape[0] ? data[p * D + d] : 0));
  const output = new Float64Array(B * M * D);
  for (let row = 0; row < B * M; row++) {
    const p = position(Math.floor(row / M), row % M);
    const encoding = table ? learned(p, table) : sinusoidalEncoding(p, D, options);
    for (let d = 0; d < D; d++) {
      output[row * D + d] = round(round(scale * x.data[row * D + d]) + round(encoding[d]));
    }
  }
  return output;
}

/**
 * The gradients of scale * x + table[position]: dx = scale dy, and a row of the table gets the sum
 * of dy over all rows of x at its position.
 *
 * @param x as for {@link positionEncoding}
 * @param dOutput [B, M, D], row-major
 * @returns dX [B, M, D], and dTable [P, D], empty without a table
 */
export function positionEncodingBackward(
  x: ReferenceTensor,
  dOutput: ArrayLike<number>,
  options: ReferenceEncodingOptions = {},
) {
  const { table, scale = 1, position = (_, row) => row } = options;
  const { round } = roundingOf(options.precision);
  const [B, M, D] = x.shape;
  const P = table?.shape[0] ?? 0;
  const dX = new Float64Array(B * M * D);
  const dTable = new Float64Array(P * D);
  for (let row = 0; row < B * M; row++) {
    const p = position(Math.floor(row / M), row % M);
    for (let d = 0; d < D; d++) {
      const dy = dOutput[row * D + d];
      dX[row * D + d] = round(scale * dy);
      if (p >= 0 && p < P) dTable[p * D + d] = round(dTable[p * D + d] + dy);
    }
  }
  return { dX, dTable };
}
