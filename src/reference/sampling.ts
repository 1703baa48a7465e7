// The choice of a token from logits, as loops in float64.

import { threefry2x32 } from "./dropout.ts";

/** How a token is chosen; `planSampling` of `fovea/models` has the meaning of each setting. */
export interface ReferenceSamplingOptions {
  /** Tokens that were said; one that occurs several times gets the penalty once. Default: none. */
  readonly history?: Iterable<number>;
  /** Default 1. */
  readonly repetitionPenalty?: number;
  /** 0 is greedy: the token of the largest logit has the whole probability. Default 1. */
  readonly temperature?: number;
  /** Default 0: all tokens stay. */
  readonly topK?: number;
  /** Default 1. */
  readonly topP?: number;
  /** Default 0. */
  readonly minP?: number;
}

/**
 * The probabilities of tokens after the repetition penalty, temperature, top-k, top-p and min-p, in
 * this order; exact zeros for tokens that were removed. Of equal logits at the threshold of top-p,
 * those of the larger ids stay. Logits are finite or -Infinity, and one is finite.
 *
 * Source: the processors of Hugging Face's `generate`; Holtzman et al., The Curious Case of Neural
 * Text Degeneration (ICLR 2020) for top-p.
 *
 * @returns [V]
 */
export function samplingProbabilities(
  logits: ArrayLike<number>,
  options: ReferenceSamplingOptions = {},
): Float64Array {
  const { history = [], repetitionPenalty = 1, temperature = 1 } = options;
  const { topK = 0, topP = 1, minP = 0 } = options;
  const left = Float64Array.from(logits);
  for (const id of new Set(history))
    left[id] = left[id] < 0 ? left[id] * repetitionPenalty : left[id] / repetitionPenalty;
  if (temperature === 0) {
    const chosen = greedyToken(left);
    return left.map((_, id) => (id === chosen ? 1 : 0));
  }
  for (let id = 0; id < left.length; id++) left[id] /= temperature;
  const remove = (isRemoved: (id: number) => boolean) => {
    const removed = [...left.keys()].filter(isRemoved);
    for (const id of removed) left[id] = Number.NEGATIVE_INFINITY;
  };
  if (topK > 0 && topK < left.length) {
    const last = Float64Array.from(left).sort()[left.length - topK];
    remove((id) => left[id] < last);
  }
  if (topP < 1) {
    const p = softmax(left);
    const ascending = [...left.keys()].sort((a, b) => left[a] - left[b] || a - b);
    let sum = 0;
    const below = new Set<number>();
    for (const id of ascending.slice(0, -1)) {
      sum += p[id];
      if (sum <= 1 - topP) below.add(id);
    }
    remove((id) => below.has(id));
  }
  if (minP > 0) {
    const p = softmax(left);
    const least = minP * p.reduce((most, one) => Math.max(most, one), 0);
    remove((id) => p[id] < least);
  }
  return softmax(left);
}

/** The largest logit's id, the lowest one if several are as large. */
function greedyToken(logits: ArrayLike<number>): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

function softmax(logits: Float64Array): Float64Array {
  const top = logits.reduce((most, one) => Math.max(most, one), Number.NEGATIVE_INFINITY);
  const weights = logits.map((one) => Math.exp(one - top));
  const sum = weights.reduce((total, one) => total + one, 0);
  return weights.map((one) => one / sum);
}

/**
 * The first token, in the order of ids, at which the sum of the probabilities is above u.
 *
 * @param u from 0 up to, but not including, 1
 */
export function chooseToken(probabilities: ArrayLike<number>, u: number): number {
  let sum = 0;
  let last = 0;
  for (let id = 0; id < probabilities.length; id++) {
    sum += probabilities[id];
    if (probabilities[id] > 0) last = id;
    if (sum > u) return id;
  }
  return last; // the sum was rounded below u
}

/**
 * The number u by which a draw is made: the first word of threefry(key = seed, counter = [entry,
 * step]) over 2^32.
 *
 * @param seed a whole number, 0 <= seed < 2^53
 * @param step the number of the draw, a whole number, 0 <= step < 2^32
 * @param entry the place in the batch
 */
export function uniformOfDraw(seed: number, step: number, entry: number): number {
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] as const;
  return threefry2x32(key, [entry, step])[0] / 2 ** 32;
}

/** The k largest logits of an entry, as {@link topTokens} gives them. */
export interface ReferenceTopTokens {
  readonly ids: readonly number[];
  readonly logprobs: readonly number[];
}

/**
 * The k tokens with the largest logits, the largest first, of equal ones the lower id first, and
 * the logarithms of their probabilities by the softmax of all logits.
 */
export function topTokens(logits: ArrayLike<number>, k: number): ReferenceTopTokens {
  const values = Float64Array.from(logits);
  const ids = [...values.keys()]
    // Two logits of -Infinity differ by NaN.
    .sort((a, b) => (values[a] === values[b] ? a - b : values[b] - values[a]))
    .slice(0, k);
  const top = values[ids[0]];
  const sum = values.reduce((total, one) => total + Math.exp(one - top), 0);
  return { ids, logprobs: ids.map((id) => values[id] - top - Math.log(sum)) };
}
