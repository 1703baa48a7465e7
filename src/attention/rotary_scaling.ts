// The frequencies of rotary embedding, and the ways to change them for longer texts than a model was trained with.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { checkNames } from "../options.ts";

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

/** The names of what each type has. */
const LINEAR = { type: "string", factor: "number" } as const;
const LLAMA3 = {
  ...LINEAR,
  originalMaxPositions: "number",
  lowFreqFactor: "number",
  highFreqFactor: "number",
} as const;
const SCALING: { readonly [Type in RotaryScaling["type"]]: OptionNames<Extract<RotaryScaling, { type: Type }>> } = {
  linear: LINEAR,
  ntk: LINEAR,
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
export function scaledFrequencies(label: string, rotaryDim: number, base: number, scaling: RotaryScaling) {
  const type = scaling?.type;
  check(
    type === "linear" || type === "ntk" || type === "yarn" || type === "llama3",
    "argument",
    () => `${label}: scaling.type must be "linear", "ntk", "yarn" or "llama3", got ${show(type)}.`,
  );
  checkNames(`${label}: scaling`, scaling, SCALING[type]);
  const { factor } = scaling;
  checkPositive(label, "scaling.factor", factor);
  const plain = plainFrequencies(rotaryDim, base);
  if (type === "linear") return { frequencies: plain.map((theta) => theta / factor), attentionFactor: 1 };
  if (type === "ntk") {
    // Of a single pair there is no slowest one: its frequency is 1 whatever the base.
    const changed = rotaryDim > 2 ? base * factor ** (rotaryDim / (rotaryDim - 2)) : base;
    return { frequencies: plainFrequencies(rotaryDim, changed), attentionFactor: 1 };
  }
  checkPositive(label, "scaling.originalMaxPositions", scaling.originalMaxPositions);
  if (type === "llama3") return { frequencies: llamaFrequencies(label, plain, scaling), attentionFactor: 1 };
  return yarn(label, plain, base, scaling);
}

function llamaFrequencies(label: string, plain: Float64Array, scaling: RotaryScaling & { type: "llama3" }) {
  const { factor, originalMaxPositions, lowFreqFactor = 1, highFreqFactor = 4 } = scaling;
  checkPositive(label, "scaling.lowFreqFactor", lowFreqFactor);
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
