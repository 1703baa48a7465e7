// Rotary position embedding on the CPU. The kernel is measured against it.

import type { Layout } from "../types.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { at, toBhmd } from "./tensors.ts";

/** How frequencies are changed for longer texts. */
export interface ReferenceRotaryScaling {
  readonly type: "linear" | "ntk" | "dynamic" | "yarn" | "llama3" | "longrope";
  readonly factor: number;
  readonly originalMaxPositions?: number;
  readonly betaFast?: number;
  readonly betaSlow?: number;
  readonly truncate?: boolean;
  readonly mscale?: number;
  readonly mscaleAllDim?: number;
  readonly lowFreqFactor?: number;
  readonly highFreqFactor?: number;
  readonly shortFactor?: ArrayLike<number | bigint>;
  readonly longFactor?: ArrayLike<number | bigint>;
  /** Tokens of the text. */
  readonly length?: number;
}

export interface ReferenceRotaryOptions {
  /** R. Default the head dim. */
  readonly rotaryDim?: number;
  /** Whether pairs are (2k, 2k + 1); otherwise they are (k, k + R / 2). */
  readonly interleaved?: boolean;
  /** Default 10000. */
  readonly base?: number;
  readonly scaling?: ReferenceRotaryScaling;
  /** Frequencies in place of base and scaling. */
  readonly frequencies?: ArrayLike<number>;
  /** Factor of cos and sin. Default: that of the scaling, or 1. */
  readonly attentionFactor?: number;
  /** How many pairs turn by the positions of time, height and width. */
  readonly sections?: readonly number[];
  readonly sectionLayout?: "blocks" | "interleaved";
  /** cos and sin by position, [rows, R / 2], in place of cos and sin of the frequencies. */
  readonly cos?: ReferenceTensor;
  readonly sin?: ReferenceTensor;
  /**
   * Gives the position of a row, in stream 0 or in those of time, height and width. Default: the
   * row's index.
   */
  readonly position?: (stream: number, batch: number, row: number) => number;
  /** Whether pairs turn the other way. */
  readonly conjugate?: boolean;
  readonly layout?: Layout;
  /** `"f32"` rounds the angle's cos and sin, and every operation, to f32. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/** Frequencies of the R / 2 pairs, radians a position, and the factor of cos and sin. */
export function rotaryFrequencies(rotaryDim: number, options: ReferenceRotaryOptions = {}) {
  const { base = 10000, scaling } = options;
  const pairs = Array.from({ length: rotaryDim / 2 }, (_, k) => k);
  const plain = pairs.map((k) => 1 / base ** ((2 * k) / rotaryDim));
  const frequencies = options.frequencies
    ? Array.from(options.frequencies)
    : scaling
      ? SCALED[scaling.type](plain, scaling, base)
      : plain;
  return {
    frequencies,
    attentionFactor: options.attentionFactor ?? (scaling ? factorOf(scaling) : 1),
  };
}

type Scaled = (plain: readonly number[], scaling: ReferenceRotaryScaling, base: number) => number[];

const SCALED: Readonly<Record<ReferenceRotaryScaling["type"], Scaled>> = {
  // Position Interpolation, arXiv 2306.15595, equation 4
  linear: (plain, { factor }) => plain.map((theta) => theta / factor),
  // The divisors of frequencies grow geometrically from pair to pair, up to the whole factor for
  // the last one.
  ntk: (plain, { factor }) =>
    plain.map((theta, k) => theta / factor ** (k / Math.max(1, plain.length - 1))),
  // Hugging Face's _compute_dynamic_ntk_parameters: the base grows with the text, and the factor
  // does not
  dynamic: (plain, { factor, originalMaxPositions: L = 0, length = 0 }, base) => {
    const R = 2 * plain.length;
    const grown = ((factor * Math.max(length, L)) / L - (factor - 1)) ** (R / (R - 2));
    return plain.map((_, k) => (k === 0 ? 1 : (base * grown) ** ((-2 * k) / R)));
  },
  // Hugging Face's _compute_longrope_parameters
  longrope: (plain, { originalMaxPositions = 0, length = 0, shortFactor = [], longFactor = [] }) =>
    plain.map(
      (theta, k) => theta / Number(length <= originalMaxPositions ? shortFactor[k] : longFactor[k]),
    ),
  // YaRN, arXiv 2309.00071, section 3.2, and the authors' code, in which the ramp runs over k
  yarn: (
    plain,
    { factor, originalMaxPositions = 0, betaFast = 32, betaSlow = 1, truncate = true },
    base,
  ) => {
    // base^(-k / pairs) * positions = 2 pi turns, solved for k
    const k = (turns: number) =>
      (plain.length * Math.log(originalMaxPositions / (2 * Math.PI * turns))) / Math.log(base);
    let low = k(betaFast);
    let high = k(betaSlow);
    if (truncate) [low, high] = [Math.floor(low), Math.ceil(high)];
    low = Math.max(low, 0);
    high = Math.min(high, 2 * plain.length - 1);
    if (low === high) high += 0.001;
    return plain.map((theta, index) => {
      const ramp = Math.max(0, Math.min(1, (index - low) / (high - low)));
      return theta * (1 - ramp) + (theta / factor) * ramp;
    });
  },
  // Llama 3.1's code
  llama3: (plain, { factor, originalMaxPositions = 0, lowFreqFactor = 1, highFreqFactor = 4 }) =>
    plain.map((theta) => {
      const wavelength = (2 * Math.PI) / theta;
      if (wavelength < originalMaxPositions / highFreqFactor) return theta;
      if (wavelength > originalMaxPositions / lowFreqFactor) return theta / factor;
      const smooth =
        (originalMaxPositions / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return ((1 - smooth) * theta) / factor + smooth * theta;
    }),
};

function factorOf({
  type,
  factor,
  originalMaxPositions: L = 0,
  ...scaling
}: ReferenceRotaryScaling): number {
  const { mscale = 1, mscaleAllDim = 0 } = scaling;
  if (type === "longrope") return factor > 1 ? Math.sqrt(Math.log(L * factor) / Math.log(L)) : 1;
  if (type !== "yarn" || factor <= 1) return 1;
  return (0.1 * mscale * Math.log(factor) + 1) / (0.1 * mscaleAllDim * Math.log(factor) + 1);
}

/** The stream of positions that pair k turns by. */
function streamOf(k: number, { sections, sectionLayout }: ReferenceRotaryOptions): number {
  if (!sections) return 0;
  if (sectionLayout === "interleaved")
    return k % 3 > 0 && Math.floor(k / 3) < sections[k % 3] ? k % 3 : 0;
  return k < sections[0] ? 0 : k < sections[0] + sections[1] ? 1 : 2;
}

/**
 * Turns pairs of channels by angles that grow with the position:
 *
 *     (a, b) -> (a cos t - b sin t, a sin t + b cos t),   t = position * frequency of the pair
 *
 * Channels from R on are copied. Source: RoFormer (arXiv 2104.09864), equation 34.
 *
 * @param x [B, H, M, D]
 * @returns [B, H, M, D]
 */
export function rotary(x: ReferenceTensor, options: ReferenceRotaryOptions = {}): Float64Array {
  const {
    layout = "bhmd",
    interleaved = false,
    conjugate = false,
    position = (_, __, row) => row,
  } = options;
  const source = toBhmd(x, layout);
  const [B, H, M, D] = source.shape;
  const { rotaryDim = D } = options;
  const { round } = roundingOf(options.precision);
  const { frequencies, attentionFactor } = rotaryFrequencies(rotaryDim, options);
  const angle = (
    table: ReferenceTensor | undefined,
    p: number,
    k: number,
    of: (t: number) => number,
    none: number,
  ) => {
    if (!table) return round(attentionFactor * of(p * frequencies[k]));
    const { data, shape, offset = 0, strides = [shape[1], 1] } = table;
    // A position without a row turns nothing.
    return p >= 0 && p < shape[0]
      ? attentionFactor * data[offset + p * strides[0] + k * strides[1]]
      : none;
  };
  const output = new Float64Array(B * H * M * D);
  for (let row = 0; row < B * H * M; row++) {
    const b = Math.floor(row / (H * M));
    const h = Math.floor(row / M) % H;
    const m = row % M;
    const start = at(source, b, h, m);
    const out = output.subarray(row * D, (row + 1) * D);
    for (let d = 0; d < D; d++) out[d] = source.data[start + d * source.strides[3]];
    for (let k = 0; k < rotaryDim / 2; k++) {
      const p = position(streamOf(k, options), b, m);
      const cos = angle(options.cos, p, k, Math.cos, 1);
      const sine = angle(options.sin, p, k, Math.sin, 0);
      const sin = conjugate ? -sine : sine;
      const [i, j] = interleaved ? [2 * k, 2 * k + 1] : [k, k + rotaryDim / 2];
      const a = out[i];
      const c = out[j];
      out[i] = round(round(a * cos) - round(c * sin));
      out[j] = round(round(a * sin) + round(c * cos));
    }
  }
  return output;
}

/**
 * The gradient of x, [B, H, M, D]: the gradient of the result, turned back. The matrix of a turn is
 * orthogonal, but for the factor of cos and sin, which stays.
 *
 * @param dOutput [B, H, M, D] in every layout, row-major
 * @param options those of {@link rotary}
 */
export function rotaryBackward(
  dOutput: ReferenceTensor,
  options: ReferenceRotaryOptions = {},
): Float64Array {
  return rotary(dOutput, { ...options, layout: "bhmd", conjugate: !options.conjugate });
}
