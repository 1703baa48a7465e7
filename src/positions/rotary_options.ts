// The options of a rotary embedding, and their checks: which channels turn together, and how fast.

import { check, show } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import { takeOptions } from "../options.ts";
import { checkFrequencies, ownFrequencies } from "./frequencies.ts";
import { checkPositive, plainFrequencies, scaledFrequencies } from "./rotary_scaling.ts";
import type { RotaryScaling } from "./rotary_scaling_options.ts";

/** A rotary position embedding. The defaults are those of Llama. */
export interface RotaryOptions {
  /**
   * R, channels that are rotated: the first of each row, an even number. The rest is copied.
   * Default the head dim.
   */
  readonly rotaryDim?: number;
  /**
   * Pairs are (2k, 2k + 1) (GPT-J, RoFormer); otherwise (k, k + R / 2) (GPT-NeoX, Llama in its
   * usual files). Default false.
   */
  readonly interleaved?: boolean;
  /** The frequency of pair k is base^(-2k / R) radians a position. Default 10000. */
  readonly base?: number;
  /** How the frequencies of the base change for longer texts. Default: not at all. */
  readonly scaling?: RotaryScaling;
  /**
   * The R / 2 frequencies themselves, in radians a position, in place of `base` and `scaling`. The
   * frequencies of LongRoPE are those of the base divided by the factors that come with the model.
   */
  readonly frequencies?: ArrayLike<number>;
  /** Factor of cos and sin. Default 1, or the factor of the scaling. */
  readonly attentionFactor?: number;
  /**
   * For tokens with three positions each, of time, height and width (M-RoPE, Qwen2-VL, arXiv
   * 2409.12191), how many pairs turn by each of the three. The sum is R / 2.
   */
  readonly sections?: readonly [t: number, h: number, w: number];
  /**
   * `"blocks"`: pairs of time first, then those of height, then those of width. `"interleaved"`: T
   * H W T H W ... as far as a section goes, and T after its end (Qwen3-VL). Default `"blocks"`.
   */
  readonly sectionLayout?: "blocks" | "interleaved";
}

/** The names of the options. */
export const ROTARY_OPTIONS: OptionNames<RotaryOptions> = {
  rotaryDim: "number",
  interleaved: "boolean",
  base: "number",
  scaling: "any",
  frequencies: "any",
  attentionFactor: "number",
  sections: "any",
  sectionLayout: "string",
};

/** A checked rotary embedding. */
export interface ResolvedRotary extends RotaryFrequencies {
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly sections?: readonly [t: number, h: number, w: number];
  readonly sectionsInterleaved: boolean;
}

/** What {@link rotaryFrequencies} gives. */
export interface RotaryFrequencies {
  /** Radians a position, for each of the R / 2 pairs. */
  readonly frequencies: Float64Array;
  /** Factor of cos and sin. */
  readonly attentionFactor: number;
}

/**
 * The frequencies of a rotary embedding, radians a position for each of its R / 2 pairs, and the
 * factor of cos and sin.
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
  given: Pick<RotaryOptions, "base" | "scaling" | "frequencies" | "attentionFactor"> = {},
): RotaryFrequencies {
  const { base, scaling, frequencies: own, attentionFactor: factor } = ROTARY_OPTIONS;
  const names = { base, scaling, frequencies: own, attentionFactor: factor };
  const options = takeOptions("rotaryFrequencies", given, names);
  check(
    Number.isInteger(rotaryDim) && rotaryDim % 2 === 0 && rotaryDim >= 0 && rotaryDim < 2 ** 29,
    "argument",
    () => `rotaryFrequencies: rotaryDim must be an even number below 2^29, got ${show(rotaryDim)}.`,
  );
  const { frequencies, attentionFactor } = resolveRotary("rotaryFrequencies", rotaryDim, {
    ...options,
    rotaryDim,
  });
  return { frequencies, attentionFactor };
}

/**
 * Checks a rotary embedding of rows of `headDim` elements. Throws FoveaError("argument") that names
 * what is wrong.
 */
export function resolveRotary(
  label: string,
  headDim: number,
  options: Taken<RotaryOptions> = {},
): ResolvedRotary {
  check(
    typeof options === "object" && options !== null,
    "argument",
    () =>
      `${label}: a rotary embedding is described by { rotaryDim?, interleaved?, base?, ... }, got ${options}.`,
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
    Number.isInteger(rotaryDim) &&
      rotaryDim % 2 === 0 &&
      rotaryDim >= Math.min(2, headDim) &&
      rotaryDim <= headDim,
    "argument",
    () =>
      `${label}: rotaryDim must be an even number from 2 to the head dim ${headDim}, got ${rotaryDim}${options.rotaryDim === undefined ? " (the head dim)" : ""}.`,
  );
  const pairs = rotaryDim / 2;
  checkPositive(label, "base", base);
  check(
    sectionLayout === "blocks" || sectionLayout === "interleaved",
    "argument",
    () => `${label}: sectionLayout must be "blocks" or "interleaved", got ${show(sectionLayout)}.`,
  );
  if (sections !== undefined) checkSections(label, sections, pairs, sectionLayout);
  const scaled =
    scaling === undefined ? undefined : scaledFrequencies(label, rotaryDim, base, scaling);
  const attentionFactor = options.attentionFactor ?? scaled?.attentionFactor ?? 1;
  checkPositive(label, "attentionFactor", attentionFactor);
  check(
    Number.isFinite(Math.fround(attentionFactor)),
    "argument",
    () => `${label}: attentionFactor must be a number of f32, got ${attentionFactor}.`,
  );
  check(
    options.frequencies === undefined || (options.base === undefined && scaling === undefined),
    "argument",
    () => `${label}: frequencies take the place of base and scaling; give one or the other.`,
  );
  return {
    rotaryDim,
    interleaved,
    ...(sections && { sections }),
    sectionsInterleaved: sectionLayout === "interleaved",
    frequencies:
      options.frequencies === undefined
        ? checkFrequencies(label, scaled?.frequencies ?? plainFrequencies(rotaryDim, base))
        : ownFrequencies(label, options.frequencies, pairs),
    attentionFactor,
  };
}

function checkSections(
  label: string,
  sections: readonly number[],
  pairs: number,
  layout: string,
): void {
  const whole =
    Array.isArray(sections) &&
    sections.length === 3 &&
    sections.every((n) => Number.isInteger(n) && n >= 0);
  check(
    whole && sections[0] + sections[1] + sections[2] === pairs,
    "argument",
    () =>
      `${label}: sections must be three whole numbers, pairs of time, height and width, that add up to ${pairs}, half of rotaryDim; got [${sections}].`,
  );
  // Pair k turns by stream k % 3: the last one of height is 3 (sections[1] - 1) + 1, of width 3
  // (sections[2] - 1) + 2.
  check(
    layout === "blocks" || (3 * sections[1] - 2 < pairs && 3 * sections[2] - 1 < pairs),
    "argument",
    () =>
      `${label}: interleaved sections [${sections}] don't fit: height and width have every third of ${pairs} pairs.`,
  );
}
