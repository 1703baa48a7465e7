// The frequencies of rotary embedding, and the ways to change them for longer texts than a model
// was trained with.

import { check, show } from "../errors.ts";
import type { Numbers, OptionNames } from "../given.ts";
import { checkNames } from "../options.ts";

/**
 * How the frequencies that a model was trained with are changed for longer texts. L is the number
 * of positions that it was trained for, theta_k the frequency of pair k and 2 pi / theta_k its
 * wavelength.
 */
export type RotaryScaling =
  | {
      /** theta_k / factor. Source: Position Interpolation (arXiv 2306.15595). */
      readonly type: "linear";
      readonly factor: number;
    }
  | {
      /**
       * The base becomes base * factor^(R / (R - 2)): the slowest pair turns `factor` times slower,
       * the fastest as before.
       */
      readonly type: "ntk";
      readonly factor: number;
    }
  | {
      /**
       * "Dynamic" NTK: `"ntk"` by the factor that a text of this length needs, factor * length / L
       * - (factor - 1), and no change up to L. Source: Hugging Face's rope_type "dynamic".
       */
      readonly type: "dynamic";
      readonly factor: number;
      /** L */
      readonly originalMaxPositions: number;
      /**
       * Tokens that the text has, or will have at most. Frequencies are fixed by it: rows that were
       * rotated for another length, as in a cache, don't go with these.
       */
      readonly length: number;
    }
  | {
      /**
       * Pairs that turn more than `betaFast` times in L positions keep their frequency, those that
       * turn less than `betaSlow` times have it divided by `factor`, and a ramp over k joins the
       * two. cos and sin are multiplied by the attention factor, by default 0.1 ln(factor) + 1.
       * Source: YaRN (arXiv 2309.00071), section 3.
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
       * DeepSeek's: the attention factor is (0.1 mscale ln(factor) + 1) / (0.1 mscaleAllDim
       * ln(factor) + 1). Both or neither.
       */
      readonly mscale?: number;
      readonly mscaleAllDim?: number;
    }
  | {
      /**
       * Wavelengths above L / lowFreqFactor have their frequency divided by `factor`, those below L
       * / highFreqFactor keep it, and between them the two are mixed. Source: Llama 3.1 (arXiv
       * 2407.21783), and its code.
       */
      readonly type: "llama3";
      readonly factor: number;
      /** L */
      readonly originalMaxPositions: number;
      /** Default 1. */
      readonly lowFreqFactor?: number;
      /** Default 4. */
      readonly highFreqFactor?: number;
    }
  | {
      /**
       * LongRoPE: each frequency is divided by a factor that comes with the model, one list of them
       * for texts up to L and one for longer texts. cos and sin are multiplied by the attention
       * factor, by default sqrt(1 + ln(factor) / ln(L)). Source: LongRoPE (arXiv 2402.13753), and
       * Hugging Face's rope_type "longrope".
       */
      readonly type: "longrope";
      /**
       * Positions that the model is made for, divided by L: max_position_embeddings /
       * original_max_position_embeddings.
       */
      readonly factor: number;
      /** L */
      readonly originalMaxPositions: number;
      /** R / 2 divisors for texts up to L. */
      readonly shortFactor: Numbers;
      /** R / 2 divisors for longer texts. */
      readonly longFactor: Numbers;
      /** Tokens that the text has, or will have at most, as for `"dynamic"`. */
      readonly length: number;
    };

/** The names of what each type has. */
const LINEAR = { type: "string", factor: "number" } as const;
const LLAMA3 = {
  ...LINEAR,
  originalMaxPositions: "number",
  lowFreqFactor: "number",
  highFreqFactor: "number",
} as const;
const SCALING: {
  readonly [Type in RotaryScaling["type"]]: OptionNames<Extract<RotaryScaling, { type: Type }>>;
} = {
  linear: LINEAR,
  ntk: LINEAR,
  dynamic: { ...LINEAR, originalMaxPositions: "number", length: "number" },
  yarn: {
    ...LINEAR,
    originalMaxPositions: "number",
    betaFast: "number",
    betaSlow: "number",
    truncate: "boolean",
    mscale: "number",
    mscaleAllDim: "number",
  },
  llama3: LLAMA3,
  longrope: {
    ...LINEAR,
    originalMaxPositions: "number",
    shortFactor: "any",
    longFactor: "any",
    length: "number",
  },
};

/** What models' configurations have in rope_type, and what it is here. */
const FOREIGN: Readonly<Record<string, string>> = {
  default: 'leave scaling out: "default" changes nothing',
  su: 'it is called "longrope" here',
  deepseek_yarn: 'it is called "yarn" here, with mscale and mscaleAllDim',
  mrope: "M-RoPE is no scaling; give sections",
  "": 'rope_type is called "type" here',
};

/** base^(-2k / R) for each pair k. */
export const plainFrequencies = (rotaryDim: number, base: number) =>
  Float64Array.from({ length: rotaryDim / 2 }, (_, pair) => base ** ((-2 * pair) / rotaryDim));

export function checkPositive(label: string, name: string, value: unknown): void {
  check(
    typeof value === "number" && Number.isFinite(value) && value > 0,
    "argument",
    () => `${label}: ${name} must be a positive number, got ${value}.`,
  );
}

/** Frequencies and attention factor. Throws FoveaError("argument") for a scaling that is none. */
export function scaledFrequencies(
  label: string,
  rotaryDim: number,
  base: number,
  scaling: RotaryScaling,
) {
  const type = scaling?.type;
  check(typeof type === "string" && Object.hasOwn(SCALING, type), "argument", () =>
    unknownType(label, scaling),
  );
  checkNames(`${label}: scaling`, scaling, SCALING[type]);
  const { factor } = scaling;
  checkPositive(label, "scaling.factor", factor);
  const plain = plainFrequencies(rotaryDim, base);
  if (type === "linear")
    return { frequencies: plain.map((theta) => theta / factor), attentionFactor: 1 };
  if (type === "ntk") return { frequencies: ntk(rotaryDim, base, factor), attentionFactor: 1 };
  const { originalMaxPositions } = scaling;
  checkPositive(label, "scaling.originalMaxPositions", originalMaxPositions);
  if (type === "dynamic") {
    checkPositive(label, "scaling.length", scaling.length);
    const needed =
      (factor * Math.max(scaling.length, originalMaxPositions)) / originalMaxPositions -
      (factor - 1);
    return { frequencies: ntk(rotaryDim, base, needed), attentionFactor: 1 };
  }
  if (type === "longrope") return longRope(label, plain, scaling);
  if (type === "llama3")
    return { frequencies: llamaFrequencies(label, plain, scaling), attentionFactor: 1 };
  return yarn(label, plain, base, scaling);
}

function unknownType(label: string, scaling: unknown): string {
  const { type, rope_type } = (scaling ?? {}) as { type?: unknown; rope_type?: unknown };
  const word = type === undefined && rope_type !== undefined ? "" : type;
  const advice =
    typeof word === "string" && Object.hasOwn(FOREIGN, word) ? FOREIGN[word] : undefined;
  const names = Object.keys(SCALING).map((name) => `"${name}"`);
  const all = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  return `${label}: scaling.type must be ${all}, got ${show(type)}; ${advice ?? "others can be given as frequencies and attentionFactor"}.`;
}

/**
 * The slowest pair turns `factor` times slower. Of a single pair there is no slowest one: it turns
 * by 1, always.
 */
function ntk(rotaryDim: number, base: number, factor: number): Float64Array {
  return plainFrequencies(
    rotaryDim,
    rotaryDim > 2 ? base * factor ** (rotaryDim / (rotaryDim - 2)) : base,
  );
}

function longRope(
  label: string,
  plain: Float64Array,
  scaling: RotaryScaling & { type: "longrope" },
) {
  const { factor, originalMaxPositions, length } = scaling;
  checkPositive(label, "scaling.length", length);
  for (const name of ["shortFactor", "longFactor"] as const) {
    const divisors = scaling[name] as unknown;
    check(
      Array.isArray(divisors) &&
        divisors.length === plain.length &&
        divisors.every((one) => one > 0 && one < Infinity),
      "argument",
      () =>
        `${label}: scaling.${name} must be ${plain.length} positive numbers, one for each pair, got ${show(divisors)}.`,
    );
  }
  check(
    factor <= 1 || originalMaxPositions > 1,
    "argument",
    () => `${label}: scaling.originalMaxPositions must be above 1, got ${originalMaxPositions}.`,
  );
  const divisors = length > originalMaxPositions ? scaling.longFactor : scaling.shortFactor;
  const attentionFactor =
    factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions));
  return {
    frequencies: plain.map((theta, pair) => theta / Number(divisors[pair])),
    attentionFactor,
  };
}

function llamaFrequencies(
  label: string,
  plain: Float64Array,
  scaling: RotaryScaling & { type: "llama3" },
) {
  const { factor, originalMaxPositions, lowFreqFactor = 1, highFreqFactor = 4 } = scaling;
  checkPositive(label, "scaling.lowFreqFactor", lowFreqFactor);
  check(
    Number.isFinite(highFreqFactor) && highFreqFactor > lowFreqFactor,
    "argument",
    () =>
      `${label}: scaling.highFreqFactor must be above lowFreqFactor ${lowFreqFactor}, got ${highFreqFactor}.`,
  );
  return plain.map((theta) => {
    const turns = (originalMaxPositions * theta) / (2 * Math.PI); // in the texts of the training
    const kept = clamped((turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor));
    return kept * theta + ((1 - kept) * theta) / factor;
  });
}

function yarn(
  label: string,
  plain: Float64Array,
  base: number,
  scaling: RotaryScaling & { type: "yarn" },
) {
  const {
    factor,
    originalMaxPositions,
    betaFast = 32,
    betaSlow = 1,
    truncate = true,
    mscale,
    mscaleAllDim,
  } = scaling;
  checkPositive(label, "scaling.betaFast", betaFast);
  checkPositive(label, "scaling.betaSlow", betaSlow);
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
  const first = pairOf(betaFast);
  const last = pairOf(betaSlow);
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
    mscale !== undefined && mscaleAllDim !== undefined
      ? magnitude(mscale) / magnitude(mscaleAllDim)
      : magnitude(1);
  return { frequencies, attentionFactor };
}

const clamped = (share: number) => Math.min(Math.max(share, 0), 1);
