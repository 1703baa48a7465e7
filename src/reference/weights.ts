// Results that attention does not store: scores, probabilities, and the keys with the largest
// scores.

import type { ReferenceOptions, ReferencePosition, ReferenceTensor } from "./options.ts";
import { positionOf, type Row } from "./rows.ts";
import { type ScoreStage, type Scores, scoresOf } from "./scores.ts";

export interface ReferenceScoreOptions extends ReferenceOptions {
  /**
   * `"raw"` is scale * q.k of every used key, masked or not, and 0 for other keys. `"capped"` is
   * that after the softcap. `"scores"` are taken after score function, biases and masks, and are
   * -Infinity for keys that the row doesn't see. `"probabilities"` are taken after the softmax,
   * with the sink in the denominator and without dropout, and are 0 for masked keys.
   */
  readonly stage: ScoreStage | "probabilities";
  /** Changes a probability, which is 0 for a masked key. */
  readonly probabilityFunction?: (p: number, at: ReferencePosition) => number;
}

/**
 * The scores or the weights of attention.
 *
 * @returns [rows, N], by default [B, H, M, N]; packed, N is the number of keys of the longest entry
 */
export function attentionScores(
  q: ReferenceTensor,
  k: ReferenceTensor,
  options: ReferenceScoreOptions,
): Float64Array {
  const { stage, probabilityFunction } = options;
  const problem = scoresOf(q, k, options);
  const { numbers, maxKeys: N } = problem.rows;
  const out = new Float64Array(numbers.length * N).fill(
    stage === "scores" ? Number.NEGATIVE_INFINITY : 0,
  );
  const scores = new Float64Array(N);
  for (let index = 0; index < numbers.length; index++) {
    const row = problem.rows.find(numbers[index]);
    if (!row) continue;
    const into = out.subarray(index * N, (index + 1) * N);
    if (stage !== "probabilities") {
      problem.write(row, stage, into);
      continue;
    }
    writeProbabilities(problem, row, scores, into);
    if (!probabilityFunction) continue;
    for (let j = 0; j < N; j++)
      into[j] = problem.rounding.round(probabilityFunction(into[j], positionOf(row, j)));
  }
  return out;
}

export interface ReferenceTopK {
  /** [rows, k], the best first; -1 if the row sees fewer keys. */
  readonly indices: Int32Array;
  /** `[rows, k]`: the probabilities of these keys, 0 for an index of -1. */
  readonly weights: Float64Array;
}

/**
 * The `count` keys of each row with the largest scores, NaN before all, the smaller index first
 * among equals.
 */
export function topKKeys(
  q: ReferenceTensor,
  k: ReferenceTensor,
  count: number,
  options: ReferenceOptions = {},
): ReferenceTopK {
  const problem = scoresOf(q, k, options);
  const { numbers, maxKeys } = problem.rows;
  const indices = new Int32Array(numbers.length * count).fill(-1);
  const weights = new Float64Array(numbers.length * count);
  const scores = new Float64Array(maxKeys);
  const probabilities = new Float64Array(maxKeys);
  for (let index = 0; index < numbers.length; index++) {
    const row = problem.rows.find(numbers[index]);
    if (!row) continue;
    writeProbabilities(problem, row, scores, probabilities);
    const best = Array.from({ length: row.end - row.begin }, (_, j) => row.begin + j)
      .filter((j) => scores[j] !== Number.NEGATIVE_INFINITY)
      .sort((a, b) => compareScores(scores[b], scores[a])) // stable, so equals stay in order
      .slice(0, count);
    best.forEach((j, place) => {
      indices[index * count + place] = j;
      weights[index * count + place] = probabilities[j];
    });
  }
  return { indices, weights };
}

/** Orders scores, with NaN above all others. */
const compareScores = (a: number, b: number) =>
  Number(Number.isNaN(a)) - Number(Number.isNaN(b)) || a - b || 0;

/** Writes scores and probabilities of the keys row.begin .. row.end. */
function writeProbabilities(
  problem: Scores,
  row: Row,
  scores: Float64Array,
  probabilities: Float64Array,
): void {
  const { sum } = problem.softmax(row, scores, probabilities);
  for (let j = row.begin; j < row.end; j++) {
    const seesKey = scores[j] !== Number.NEGATIVE_INFINITY;
    probabilities[j] = seesKey ? problem.rounding.round(probabilities[j] / sum) : 0;
  }
}
