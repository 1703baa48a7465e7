// The frequencies of rotary embedding, and the ways to change them for longer texts than a model
// was trained with.

import { check, show } from "../errors.ts";
import { checkScaling, type RotaryScaling } from "./rotary_scaling_options.ts";

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

/**
 * Gives the scaled frequencies and the attention factor. Throws FoveaError("argument") if the
 * numbers of the scaling make no sense.
 */
export function scaledFrequencies(
  label: string,
  rotaryDim: number,
  base: number,
  scaling: RotaryScaling,
) {
  checkScaling(label, scaling);
  const { type, factor } = scaling;
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

/**
 * Makes the slowest pair turn `factor` times slower. A single pair has no slowest one: it turns by
 * 1 radian a position, always.
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
  /** The pair, as a real number, that turns so often in a text of L positions. */
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
