// Compares derivatives with difference quotients.

import type { Sample } from "./score_samples.ts";

/** Units in the last place of the score, of rounding, that a difference quotient may have. */
const ROUNDING = 8 * 2 ** -23;

/** Scores on both sides of the samples, and how far apart they are. */
export interface Pair {
  readonly low: readonly number[];
  readonly high: readonly number[];
  readonly step: number;
}

export interface Comparison {
  readonly by: string;
  readonly sample: Sample;
  readonly derivative: number;
  readonly quotient: number;
  readonly difference: number;
  readonly allowed: number;
}

/** The value of HIDDEN, which stands for no score. */
const HIDDEN = -3.4028234663852886e38;

/** Derivatives by one argument beside its quotients, of which the better one counts. */
export function compare(
  by: string,
  {
    samples,
    base,
    pairs,
    derivatives,
    tolerance,
  }: {
    readonly samples: readonly Sample[];
    readonly base: readonly { readonly score: number }[];
    readonly pairs: readonly Pair[];
    readonly derivatives: readonly number[];
    readonly tolerance: number;
  },
): Comparison[] {
  const seen = samples.flatMap((sample, i) => {
    const scores = [base[i].score, ...pairs.flatMap(({ low, high }) => [low[i], high[i]])];
    return scores.includes(HIDDEN) ? [] : [{ sample, i }];
  });
  const quotients = pairs.map(({ low, high, step }) =>
    seen.map(({ i }) => (high[i] - low[i]) / (2 * step)),
  );
  const largest = quotients.map((of) => Math.max(0, ...of.map(Math.abs)));
  return seen.map(({ sample, i }, at) => {
    const tried = pairs.map(({ step }, which): Comparison => {
      const quotient = quotients[which][at];
      const rounding = (ROUNDING * Math.abs(base[i].score)) / step;
      const magnitude = Math.max(Math.abs(quotient), 0.01 * largest[which]);
      const difference = Math.abs(derivatives[i] - quotient);
      const allowed = tolerance * magnitude + rounding;
      return { by, sample, derivative: derivatives[i], quotient, difference, allowed };
    });
    return tried.reduce((a, b) => (excess(b) < excess(a) ? b : a));
  });
}

/** How far off a derivative is, as a part of what it may be; a NaN is farther than anything. */
export function excess({ difference, allowed }: Comparison): number {
  if (difference === 0) return 0;
  const part = difference / allowed;
  return Number.isNaN(part) ? Number.POSITIVE_INFINITY : part;
}
