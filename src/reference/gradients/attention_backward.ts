// The gradients of attention as plain loops on the CPU: what the backward kernels are measured
// against.

import { attention } from "../attention.ts";
import { dropoutFactor } from "../dropout.ts";
import { accumulate, dot } from "../inner.ts";
import type { ReferenceOptions, ReferenceTensor } from "../options.ts";
import { scoresOf } from "../scores.ts";
import { softmaxBackward } from "../softmax.ts";
import { at, rowAt, toBhmd, zerosLike } from "../tensors.ts";
import type { ReferenceScoreGradients } from "./score_gradients.ts";
import { scoresBackward } from "./scores_backward.ts";

/** The options of attention, and the gradients of its results. */
export interface ReferenceBackwardOptions extends Omit<ReferenceOptions, "store"> {
  /** The gradient of `output`, of its shape, row-major. Default zeros. */
  readonly dOutput?: ArrayLike<number>;
  /** What `precision: "f32"` takes for the output of attention. Default: what it computes itself. */
  readonly output?: ArrayLike<number>;
  /** The gradient of `lse`, of its shape. Default zeros. */
  readonly dLse?: ArrayLike<number>;
}

/** The gradients of q, k and v, and of what the options hold. */
export interface ReferenceAttentionGradients extends ReferenceScoreGradients {
  /** [B, H, M, D] in every layout; packed, B is 1. */
  readonly dQ: Float64Array;
  /** [B, Hkv, N, D] */
  readonly dK: Float64Array;
  /** [B, Hkv, N, Dv] */
  readonly dV: Float64Array;
}

/**
 * The gradients of L = sum(output * dOutput) + sum(lse * dLse). With the probabilities P, and Z for
 * what dropout multiplies them by:
 *
 *     dV = (P Z)^T dO,   dP = Z (dO V^T),   delta = rowsum(P dP) - dLSE,   dS = P (dP - delta)
 *     dsink = -exp(sink - LSE) delta
 *
 * and q, k and the options get what the score's own chain makes of dS. Key heads sum over the query
 * heads that share them. A key that a row doesn't see has no part in it, and neither has a row that
 * sees no key, but for its sink: nothing of theirs is read, and their gradients are 0.
 *
 * With `precision: "f32"` it takes P from the LSE and delta from the output as f32 stores them: P =
 * exp(S - LSE), delta = rowsum(dO O) - dLSE. That is what gradients can know that are given both.
 * Source: FlashAttention (arXiv 2205.14135), appendix B.2.
 *
 * @param q See `attention`, as for k and v
 */
export function attentionBackward(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceBackwardOptions,
): ReferenceAttentionGradients {
  const { dOutput, dLse, dropout, sinks } = options;
  const value = toBhmd(v, options.layout ?? "bhmd");
  const Dv = value.shape[3];
  const problem = scoresOf(q, k, options);
  const { round, single } = problem.rounding;
  const { numbers, maxKeys } = problem.rows;
  const dO = gradientRows(dOutput ?? new Float64Array(numbers.length * Dv), Dv);
  const ofScores = scoresBackward(problem, options);
  const dValue = zerosLike(value);
  const kept = dropoutFactor(dropout, round);
  const scores = new Float64Array(maxKeys);
  const p = new Float64Array(maxKeys);
  const dP = new Float64Array(maxKeys);

  const forward = single ? (options.output ?? attention(q, k, v, options).output) : [];
  const outputs = gradientRows(forward, Dv);
  const deltaOf = (index: number) => dot(dO, index * Dv, outputs, index * Dv, Dv, single);

  for (let index = 0; index < numbers.length; index++) {
    const row = problem.rows.find(numbers[index]);
    if (!row) continue;
    const { sum, lse } = problem.softmax(row, scores, p);
    if (lse === Number.NEGATIVE_INFINITY) continue;
    const { begin, end, head, batch } = row;
    const kvHead = problem.kvHead(head);
    const seen = keysSeen(scores, begin, end);
    dP.fill(0, begin, end);
    for (const j of seen) {
      const keyRow = row.keyRow + j;
      const z = kept(row.number, j);
      p[j] = single ? round(Math.exp(round(scores[j] - lse))) : p[j] / sum;
      dP[j] = round(z * dot(dO, index * Dv, value, at(value, batch, kvHead, keyRow), Dv, single));
      const weight = round(p[j] * z);
      accumulate(rowAt(dValue, batch, kvHead, keyRow), weight, dO, index * Dv, single);
    }
    const ofLse = dLse?.[index] ?? 0;
    const delta = single
      ? storedBackward(p, dP, seen, round(deltaOf(index) - ofLse))
      : softmaxBackward(p, dP, [begin, end], ofLse);
    if (sinks) {
      const { dSinks } = ofScores.options;
      const weight = round(Math.exp(round(sinks[head] - lse)));
      dSinks[head] = round(dSinks[head] - round(weight * delta));
    }
    for (const j of seen) ofScores.add(dP[j], row, j);
  }
  const { dQuery, dKey } = ofScores;
  return { dQ: dQuery.data, dK: dKey.data, dV: dValue.data, ...ofScores.options };
}

/** The same as `softmaxBackward`, in f32, with a delta that is known. */
function storedBackward(
  p: Float64Array,
  dP: Float64Array,
  seen: readonly number[],
  delta: number,
): number {
  for (const j of seen) dP[j] = Math.fround(p[j] * Math.fround(dP[j] - delta));
  return delta;
}

/** Rows of `width` numbers as a tensor whose last axis is the row. */
const gradientRows = (data: ArrayLike<number>, width: number) =>
  toBhmd({ data, shape: [1, 1, data.length / Math.max(width, 1), width] }, "bhmd");

/** The keys of begin .. end whose score is not -Infinity. */
const keysSeen = (scores: ArrayLike<number>, begin: number, end: number) =>
  Array.from({ length: end - begin }, (_, j) => begin + j).filter(
    (j) => scores[j] !== Number.NEGATIVE_INFINITY,
  );
