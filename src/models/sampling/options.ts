// How a token is chosen: the settings, their checks, and the numbers that the kernels take for
// them.

import { check, show } from "../../errors.ts";
import { isLength, type OptionNames } from "../../given.ts";
import type { UniformValues } from "../../kernels/uniform.ts";

/**
 * How a token is chosen from logits. The steps follow each other in the order of the members, as in
 * Hugging Face's `generate`; a setting that is left out does nothing.
 */
export interface SamplingSettings {
  /**
   * The penalty of tokens that were said: once for each of them, a negative logit is multiplied by
   * it, any other is divided by it. From 0.001 up to 1000; below 1 it favours them. It needs
   * `seen`. Default 1.
   */
  readonly repetitionPenalty?: number;
  /**
   * What logits are divided by, from 1e-30 up to 1e30. 0 is greedy: the largest logit is chosen, of
   * equal ones that of the lowest id, and no later setting changes that. Default 1.
   */
  readonly temperature?: number;
  /**
   * The largest logits that stay, and all that equal the last of them: a whole number from 1 up. 0
   * keeps all. Default 0.
   */
  readonly topK?: number;
  /**
   * Of what is left, the fewest tokens stay that have this share of the probability, from 0 up to
   * 1: from the least likely one on, tokens are removed while the sum of their probabilities is at
   * most 1 - topP. The last one always stays; of equal ones at the threshold, those of the larger
   * ids do. Default 1.
   */
  readonly topP?: number;
  /**
   * Of what is left, tokens stay whose probability is at least this share of the largest, from 0 up
   * to 1. Default 0.
   */
  readonly minP?: number;
  /** The key of the generator: a whole number from 0 up to 2^53. Default 0. */
  readonly seed?: number;
}

/** The names of the settings. */
export const SAMPLING_SETTINGS: OptionNames<SamplingSettings> = {
  repetitionPenalty: "number",
  temperature: "number",
  topK: "number",
  topP: "number",
  minP: "number",
  seed: "number",
};

/** Settings that were checked, with their defaults. */
export type ResolvedSettings = Required<SamplingSettings>;

const between = (value: number, least: number, most: number) => value >= least && value <= most;

/** Checks settings. Throws FoveaError("argument") that names the one that is wrong. */
export function resolveSettings(label: string, settings: SamplingSettings): ResolvedSettings {
  const { repetitionPenalty = 1, temperature = 1, topK = 0 } = settings;
  const { topP = 1, minP = 0, seed = 0 } = settings;
  const expect = (holds: boolean, name: string, what: string, value: number) =>
    check(holds, "argument", () => `${label}: ${name} must be ${what}, got ${show(value)}.`);
  expect(
    between(repetitionPenalty, 1e-3, 1e3),
    "repetitionPenalty",
    "a number from 0.001 up to 1000",
    repetitionPenalty,
  );
  expect(
    temperature === 0 || between(temperature, 1e-30, 1e30),
    "temperature",
    "0 for greedy decoding, or a number from 1e-30 up to 1e30",
    temperature,
  );
  expect(isLength(topK), "topK", "a whole number from 0 up", topK);
  expect(between(topP, 0, 1), "topP", "a number from 0 up to 1", topP);
  expect(between(minP, 0, 1), "minP", "a number from 0 up to 1", minP);
  expect(isLength(seed), "seed", "a whole number from 0 up to 2^53", seed);
  return { repetitionPenalty, temperature, topK, topP, minP, seed };
}

/** The largest f32, but for what roundings add. */
const MOST = 3.4e38;
/** Powers of two below the largest weight beyond which kernels tell no weights apart. */
const FARTHEST = 4000;
/** Distances that no weight has. */
const NEVER = 1e6;

/** The numbers of the uniform that say how entries of `width` logits are processed. */
export function settingNumbers(settings: ResolvedSettings, width: number): UniformValues {
  const { repetitionPenalty, temperature, topK, topP, minP, seed } = settings;
  const divisor = Math.fround(1 / repetitionPenalty);
  const rate = Math.fround((2 * Math.LOG2E) / (temperature || 1));
  return {
    rate,
    farthest: Math.min(FARTHEST / rate, MOST),
    penalty: repetitionPenalty,
    divisor,
    divisor_rest: 1 / repetitionPenalty - divisor,
    bound: MOST / Math.max(repetitionPenalty, 1 / repetitionPenalty),
    top_k: topK < width ? topK : 0,
    top_p: topP < 1 ? Math.min(Math.max(1, Math.round(topP * 2 ** 32)), 2 ** 32 - 1) : 0,
    least: minP > 0 ? -Math.log2(minP) : NEVER,
    seed_low: seed % 2 ** 32,
    seed_high: Math.floor(seed / 2 ** 32),
  };
}
