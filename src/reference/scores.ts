// The scores of a row, at any stage from scale * q.k to the softmax.

import { type Mask, masksOf } from "./masks.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { type Rounding, roundingOf } from "./rounding.ts";
import { type Row, type Rows, rowsOf } from "./rows.ts";
import { type SimilarityParts, similarityOf } from "./similarity.ts";
import { type RowSoftmax, softmax } from "./softmax.ts";
import { capSteps, type Step, scoreSteps } from "./steps.ts";
import { at, type Strided, toBhmd } from "./tensors.ts";

/**
 * "raw" is scale * q.k, "capped" is taken after the softcap, and "scores" after everything, masks
 * included.
 */
export type ScoreStage = "raw" | "capped" | "scores";

export interface Scores {
  /** q and k with their axes in the order batch, head, row, column. */
  readonly query: Strided;
  readonly key: Strided;
  readonly scale: number;
  readonly parts: SimilarityParts;
  /** What follows scale * similarity, the softcap first. */
  readonly steps: readonly Step[];
  readonly rows: Rows;
  readonly rounding: Rounding;
  /** The key head of a query head. */
  kvHead(head: number): number;
  /**
   * Writes a row's scores, each at the index of its key. `"scores"` writes the keys `row.begin` ..
   * `row.end`, -Infinity for masked ones, which are not read; the other stages write all used keys.
   */
  write(row: Row, stage: ScoreStage, scores: Float64Array): void;
  /**
   * Writes a row's final scores, and the weights that `softmax` gives for them and the head's sink.
   */
  softmax(row: Row, scores: Float64Array, weights: Float64Array): RowSoftmax;
}

/** @param q,k Tensors in the layout of the options */
export function scoresOf(
  q: ReferenceTensor,
  k: ReferenceTensor,
  options: ReferenceOptions,
): Scores {
  const layout = options.layout ?? "bhmd";
  const query = toBhmd(q, layout);
  const key = toBhmd(k, layout);
  const [B, H, M] = query.shape;
  const [, kvHeads, N] = key.shape;
  const rounding = roundingOf(options.precision);
  const { round } = rounding;
  const { store = (x) => x } = options;
  const parts = similarityOf(query, key, options, rounding);
  const { compare } = parts;
  const scale = round(options.scale ?? parts.defaultScale);
  const kvHead = (head: number) => Math.floor(head / (H / kvHeads));

  const cap = capSteps(options, rounding);
  const steps = { raw: [], capped: cap, scores: [...cap, ...scoreSteps(options, H, rounding)] };
  const masks = { raw: [], capped: [], scores: masksOf(options) };

  function write(row: Row, stage: ScoreStage, scores: Float64Array): void {
    const qAt = at(query, row.batch, row.head, row.qRow);
    const kHead = kvHead(row.head);
    const [begin, end] = stage === "scores" ? [row.begin, row.end] : [0, row.keys];
    const stageMasks = masks[stage];
    const stageSteps = steps[stage];
    for (let j = begin; j < end; j++) {
      if (!sees(stageMasks, row, j)) {
        scores[j] = Number.NEGATIVE_INFINITY;
        continue;
      }
      const raw = round(scale * compare(qAt, at(key, row.batch, kHead, row.keyRow + j), row.head));
      scores[j] = store(afterSteps(stageSteps, raw, row, j));
    }
  }
  function softmaxOf(row: Row, scores: Float64Array, weights: Float64Array): RowSoftmax {
    write(row, "scores", scores);
    const sink = round(options.sinks?.[row.head] ?? Number.NEGATIVE_INFINITY);
    return softmax(scores, weights, [row.begin, row.end], sink, round);
  }
  return {
    query,
    key,
    scale,
    parts,
    steps: steps.scores,
    rows: rowsOf([B, H, M, N], options),
    rounding,
    kvHead,
    write,
    softmax: softmaxOf,
  };
}

function sees(masks: readonly Mask[], row: Row, key: number): boolean {
  for (const mask of masks) if (!mask(row, key)) return false;
  return true;
}

function afterSteps(steps: readonly Step[], raw: number, row: Row, key: number): number {
  let s = raw;
  for (const step of steps) s = step.apply(s, row, key);
  return s;
}
