// Rotary embedding as a caller describes it: which channels turn together, and how fast; checked, and the frequencies
// of the ways to stretch a model's context.

import { check } from "../errors.ts";

/**
 * How the frequencies that a model was trained with are changed for longer texts. L is the number of positions that it
 * was trained for, theta_k the frequency of pair k and 2 pi / theta_k its wavelength.
 */
export type RotaryScaling =
  | {
      /** theta_k / factor. Source: Position Interpolation (arXiv 2306.15595). */
      readonly type: "linear";
      readonly factor: number;
    }
  | {
      /**
       * The base becomes base * factor^(R / (R - 2)): the slowest pair turns `factor` times slower, the fastest as before.
       * "Dynamic" NTK is this one with another factor as the text grows: factor * length / L - (factor - 1).
       */
      readonly type: "ntk";
      readonly factor: number;
    }
  | {
      /**
       * Pairs that turn more than `betaFast` times in L positions keep their frequency, those that turn less than
       * `betaSlow` times have it divided by `factor`, and a ramp over k joins the two. cos and sin are multiplied by the
       * attention factor, by default 0.1 ln(factor) + 1. Source: YaRN (arXiv 2309.00071), section 3.
       */
      readonly type: "yarn";
      readonly factor: number;
      /** L */
      readonly originalMaxPositions: number;
      /** Default 32. */
      readonly betaFast?: number;
      /** Default 1. */
      readonly betaSlow?: number;
      /** Whether the ends of the ramp are whole pairs. Default true; gpt-oss has false. */
      readonly truncate?: boolean;
      /**
       * DeepSeek's: the attention factor is (0.1 mscale ln(factor) + 1) / (0.1 mscaleAllDim ln(factor) + 1). Both or
       * neither.
       */
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
    }
  | {
      /**
       * Wavelengths above L / lowFreqFactor have their frequency divided by `factor`, those below L / highFreqFactor keep
       * it, and between them the two are mixed. Source: Llama 3.1 (arXiv 2407.21783), and its code.
       */
      readonly type: "llama3";
      readonly factor: number;
      /** L */
      readonly originalMaxPositions: number;
      /** Default 1. */
      readonly lowFreqFactor?: number;
      /** Default 4. */
      readonly highFreqFactor?: number;
    };

/** A rotary position embedding. The defaults are those of Llama. */
export interface RotaryOptions {
  /** R, channels that are rotated: the first of each row, an even number. The rest is copied. Default the head dim. */
  readonly rotaryDim?: number;
  /** Pairs are (2k, 2k + 1) (GPT-J, RoFormer); otherwise (k, k + R / 2) (GPT-NeoX, Llama in its usual files). Default false. */
  readonly interleaved?: boolean;
  /** The frequency of pair k is base^(-2k / R) radians a position. Default 10000. */
  readonly base?: number;
  readonly scaling?: RotaryScaling;
  /** The R / 2 frequencies themselves, in radians a position, in place of `base` and `scaling`. */
  readonly frequencies?: ArrayLike<number>;
  /** Factor of cos and sin. Default 1, or what YaRN says. */
  readonly attentionFactor?: number;
  /**
   * Tokens with three positions each, of time, height and width (M-RoPE, Qwen2-VL, arXiv 2409.12191): how many pairs turn
   * by each of them. The sum is R / 2.
   */
  readonly sections?: readonly [t: number, h: number, w: number];
  /**
   * `"blocks"`: pairs of time first, then those of height, then those of width. `"interleaved"`: T H W T H W ... as far as
   * a section goes, and T where it has ended (Qwen3-VL). Default `"blocks"`.
   */
  readonly sectionLayout?: "blocks" | "interleaved";
}

/** A checked rotary embedding. */
export interface ResolvedRotary {
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly sections?: readonly [t: number, h: number, w: number];
  readonly sectionsInterleaved: boolean;
  /** Radians a position, for each pair. */
  readonly frequencies: Float64Array;
  readonly attentionFactor: number;
}

/**
 * The frequencies of a rotary embedding, radians a position for each of its R / 2 pairs, and the factor of cos and sin.
 *
 * @param rotaryDim R, even.
 * @throws FoveaError for a number that makes no sense.
 *
 * @example
 * const scaling = { type: "llama3", factor: 8, originalMaxPositions: 8192 } as const;
 * const { frequencies } = rotaryFrequencies(128, { base: 500_000, scaling });
 */
export function rotaryFrequencies(
  rotaryDim: number,
  options: Pick<RotaryOptions, "base" | "scaling" | "frequencies" | "attentionFactor"> = {},
): Pick<ResolvedRotary, "frequencies" | "attentionFactor"> {
  const { frequencies, attentionFactor } = resolveRotary("rotaryFrequencies", rotaryDim, { ...options, rotaryDim });
  return { frequencies, attentionFactor };
}

/** Checks a rotary embedding of rows of `headDim` elements. Throws FoveaError("argument") that names what is wrong. */
export function resolveRotary(label: string, headDim: number, options: RotaryOptions = {}): ResolvedRotary {
  check(
    typeof options === "object" && options !== null,
    "argument",
    () => `${label}: a rotary embedding is described by { rotaryDim?, interleaved?, base?, ... }, got ${options}.`,
  );
  const {
    rotaryDim = headDim,
    interleaved = false,
    base = 10_000,
    scaling,
    sections,
    sectionLayout = "blocks",
  } = options;
  check(
    Number.isInteger(rotaryDim) && rotaryDim % 2 === 0 && rotaryDim >= 2 && rotaryDim <= headDim,
    "argument",
    () =>
      `${label}: rotaryDim must be an even number from 2 to the head dim ${headDim}, got ${rotaryDim}${options.rotaryDim === undefined ? " (the head dim)" : ""}.`,
  );
  const pairs = rotaryDim / 2;
  positive(label, "base", base);
  check(
    sectionLayout === "blocks" || sectionLayout === "interleaved",
    "argument",
    () => `${label}: sectionLayout must be "blocks" or "interleaved", got ${JSON.stringify(sectionLayout)}.`,
  );
  if (sections !== undefined) checkSections(label, sections, pairs, sectionLayout);
  const scaled = scaling === undefined ? undefined : scaledFrequencies(label, rotaryDim, base, scaling);
  const attentionFactor = options.attentionFactor ?? scaled?.attentionFactor ?? 1;
  positive(label, "attentionFactor", attentionFactor);
  return {
    rotaryDim,
    interleaved,
    ...(sections && { sections }),
    sectionsInterleaved: sectionLayout === "interleaved",
    frequencies: options.frequencies
      ? ownFrequencies(label, options, pairs)
      : (scaled?.frequencies ?? plainFrequencies(rotaryDim, base)),
    attentionFactor,
  };
}

const plainFrequencies = (rotaryDim: number, base: number) =>
  Float64Array.from({ length: rotaryDim / 2 }, (_, pair) => base ** ((-2 * pair) / rotaryDim));

function positive(label: string, name: string, value: unknown): void {
  check(
    typeof value === "number" && Number.isFinite(value) && value > 0,
    "argument",
    () => `${label}: ${name} must be a positive number, got ${value}.`,
  );
}

function ownFrequencies(label: string, { frequencies, base, scaling }: RotaryOptions, pairs: number): Float64Array {
  check(
    base === undefined && scaling === undefined,
    "argument",
    () => `${label}: frequencies take the place of base and scaling; give one or the other.`,
  );
  const own = Float64Array.from(frequencies as ArrayLike<number>);
  check(
    own.length === pairs && own.every(Number.isFinite),
    "argument",
    () => `${label}: frequencies must be ${pairs} finite numbers, one for each pair, got [${own}].`,
  );
  return own;
}

function checkSections(label: string, sections: readonly number[], pairs: number, layout: string): void {
  const whole =
    Array.isArray(sections) && sections.length === 3 && sections.every((n) => Number.isInteger(n) && n >= 0);
  check(
    whole && sections[0] + sections[1] + sections[2] === pairs,
    "argument",
    () =>
      `${label}: sections must be three whole numbers, pairs of time, height and width, that add up to ${pairs}, half of rotaryDim; got [${sections}].`,
  );
  // Pair k turns by stream k % 3: the last one of height is 3 (sections[1] - 1) + 1, of width 3 (sections[2] - 1) + 2.
  check(
    layout === "blocks" || (3 * sections[1] - 2 < pairs && 3 * sections[2] - 1 < pairs),
    "argument",
    () =>
      `${label}: interleaved sections [${sections}] don't fit: height and width have every third of ${pairs} pairs.`,
  );
}

function scaledFrequencies(label: string, rotaryDim: number, base: number, scaling: RotaryScaling) {
  const type = scaling?.type;
  check(
    type === "linear" || type === "ntk" || type === "yarn" || type === "llama3",
    "argument",
    () => `${label}: scaling.type must be "linear", "ntk", "yarn" or "llama3", got ${JSON.stringify(type)}.`,
  );
  const { factor } = scaling;
  positive(label, "scaling.factor", factor);
  const plain = plainFrequencies(rotaryDim, base);
  if (type === "linear") return { frequencies: plain.map((theta) => theta / factor), attentionFactor: 1 };
  if (type === "ntk") {
    // Of a single pair there is no slowest one: its frequency is 1 whatever the base.
    const changed = rotaryDim > 2 ? base * factor ** (rotaryDim / (rotaryDim - 2)) : base;
    return { frequencies: plainFrequencies(rotaryDim, changed), attentionFactor: 1 };
  }
  positive(label, "scaling.originalMaxPositions", scaling.originalMaxPositions);
  if (type === "llama3") return { frequencies: llamaFrequencies(label, plain, scaling), attentionFactor: 1 };
  return yarn(label, plain, base, scaling);
}

function llamaFrequencies(label: string, plain: Float64Array, scaling: RotaryScaling & { type: "llama3" }) {
  const { factor, originalMaxPositions, lowFreqFactor = 1, highFreqFactor = 4 } = scaling;
  positive(label, "scaling.lowFreqFactor", lowFreqFactor);
  check(
    Number.isFinite(highFreqFactor) && highFreqFactor > lowFreqFactor,
    "argument",
    () => `${label}: scaling.highFreqFactor must be above lowFreqFactor ${lowFreqFactor}, got ${highFreqFactor}.`,
  );
  return plain.map((theta) => {
    const turns = (originalMaxPositions * theta) / (2 * Math.PI); // in the texts of the training
    const kept = clamped((turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor));
    return kept * theta + ((1 - kept) * theta) / factor;
  });
}

function yarn(label: string, plain: Float64Array, base: number, scaling: RotaryScaling & { type: "yarn" }) {
  const { factor, originalMaxPositions, betaFast = 32, betaSlow = 1, truncate = true, mscale, mscaleAllDim } = scaling;
  positive(label, "scaling.betaFast", betaFast);
  positive(label, "scaling.betaSlow", betaSlow);
  check(
    betaFast >= betaSlow,
    "argument",
    () => `${label}: scaling.betaFast must be at least betaSlow ${betaSlow}, got ${betaFast}.`,
  );
  check(base > 1, "argument", () => `${label}: YaRN needs a base above 1, got ${base}.`);
  const rotaryDim = 2 * plain.length;
  /** The pair, of any real number, that turns so often in the texts of the training. */
  const pairOf = (turns: number) =>
    (rotaryDim * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const [first, last] = [pairOf(betaFast), pairOf(betaSlow)];
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, rotaryDim - 1);
  const width = high === low ? 0.001 : high - low; // a step, as in the authors' code
  const frequencies = plain.map((theta, pair) => {
    const divided = clamped((pair - low) / width);
    return (divided * theta) / factor + (1 - divided) * theta;
  });
  check(
    (mscale === undefined) === (mscaleAllDim === undefined),
    "argument",
    () => `${label}: scaling.mscale and scaling.mscaleAllDim belong together; only one was given.`,
  );
  const magnitude = (of: number) => (factor <= 1 ? 1 : 0.1 * of * Math.log(factor) + 1);
  const attentionFactor =
    mscale !== undefined && mscaleAllDim !== undefined ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1);
  return { frequencies, attentionFactor };
}

const clamped = (share: number) => Math.min(Math.max(share, 0), 1);
