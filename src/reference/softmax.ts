// The softmax of one row, not yet divided by its sum.

/** The numbers that a row's weights have in common. */
export interface RowSoftmax {
  /** Largest score, -Infinity for a row without a key, NaN if a score is NaN. */
  readonly max: number;
  /** The number that weights have to be divided by. */
  readonly sum: number;
  /** Natural log of the sum of exp(score), the sink's included. */
  readonly lse: number;
}

/**
 * Writes exp(score - m) over the keys begin .. end into `weights`; m is the largest score, or the
 * sink if that is larger. A score of -Infinity belongs to a key that is not seen, and its weight is
 * 0. A sink of -Infinity counts as absent. A score of NaN or +Infinity makes the sum NaN, and so
 *    the row.
 */
export function softmax(
  scores: Float64Array,
  weights: Float64Array,
  [begin, end]: readonly [number, number],
  sink: number,
  round: (x: number) => number,
): RowSoftmax {
  let max = Number.NEGATIVE_INFINITY;
  let seen = false;
  for (let j = begin; j < end; j++) {
    if (scores[j] !== Number.NEGATIVE_INFINITY) seen = true;
    if (scores[j] > max || Number.isNaN(scores[j])) max = scores[j];
  }
  if (!seen) {
    weights.fill(0, begin, end);
    return { max, sum: 1, lse: sink };
  }
  const top = Math.max(max, sink);
  let sum = 0;
  for (let j = begin; j < end; j++) {
    const seesKey = scores[j] !== Number.NEGATIVE_INFINITY;
    weights[j] = seesKey ? round(Math.exp(round(scores[j] - top))) : 0;
    sum = round(sum + weights[j]);
  }
  sum = round(sum + round(Math.exp(round(sink - top))));
  return { max, sum, lse: round(top + round(Math.log(sum))) };
}

/**
 * Turns the gradients of a row's probabilities into those of its scores, in place:
 *
 *     dS_j = p_j (dP_j - delta),   delta = sum_j p_j dP_j - dLSE
 *
 * The sum over j is over all keys: dP_j is 0 for one that is not seen. The sink's gradient is
 * -exp(sink - LSE) delta. Source: FlashAttention (arXiv 2205.14135), appendix B.2; the LSE's
 * gradient joins delta because dLSE / dS_j = p_j.
 *
 * @returns delta
 */
export function softmaxBackward(
  p: Float64Array,
  dP: Float64Array,
  [begin, end]: readonly [number, number],
  dLse: number,
  round = (x: number) => x,
): number {
  let delta = -dLse;
  for (let j = begin; j < end; j++) delta = round(delta + round(p[j] * dP[j]));
  for (let j = begin; j < end; j++) dP[j] = round(p[j] * round(dP[j] - delta));
  return delta;
}
