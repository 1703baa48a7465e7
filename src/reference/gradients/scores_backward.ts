// The gradients of scores: of q, k and what the options hold.

import type { ReferenceOptions } from "../options.ts";
import type { Row } from "../rows.ts";
import type { Scores } from "../scores.ts";
import { givenSimilarity } from "../similarity.ts";
import type { ElementDerivative } from "../steps.ts";
import { at, type Gradient, rowAt, zerosLike } from "../tensors.ts";
import { type ReferenceScoreGradients, zeroScoreGradients } from "./score_gradients.ts";
import { similarityBackward } from "./similarity_backward.ts";

export interface ScoresBackward {
  /** [B, H, M, D] */
  readonly dQuery: Gradient;
  /** [B, Hkv, N, D] */
  readonly dKey: Gradient;
  readonly options: ReferenceScoreGradients;
  /** Adds what the gradient g of the final score of a row and a key that it sees makes of all. */
  add(g: number, row: Row, key: number): void;
}

/**
 * The chain rule, backwards along
 *
 *     raw = scale * temperature * similarity(q, k) -> softcap -> score function -> biases
 *
 * where each step gives its derivatives.
 */
export function scoresBackward(problem: Scores, options: ReferenceOptions): ScoresBackward {
  const { query, key, scale, steps, kvHead, rounding } = problem;
  const { round } = rounding;
  const { similarity, temperature, compare } = problem.parts;
  const dQuery = zerosLike(query);
  const dKey = zerosLike(key);
  const into = zeroScoreGradients(options);
  const addPair = similarityBackward(problem, givenSimilarity(options), into);
  const { dTemperature, dLogTemperature } = into;
  const dHeads = dTemperature.length ? dTemperature : dLogTemperature;

  function add(g: number, row: Row, j: number): void {
    const { head, batch } = row;
    const kHead = kvHead(head);
    const keyRow = row.keyRow + j;
    const qAt = at(query, batch, head, row.qRow);
    const kAt = at(key, batch, kHead, keyRow);
    const before = [round(scale * compare(qAt, kAt, head))];
    for (const step of steps) before.push(step.apply(before[before.length - 1], row, j));
    let dS = g;
    for (let index = steps.length - 1; index >= 0; index--) {
      const { elements, derivative } = steps[index];
      const s = before[index];
      for (const element of elements?.(s, row, j) ?? []) addElement(into, element, dS, round);
      if (derivative) dS = round(dS * round(derivative(s, row, j)));
    }
    let factor = scale;
    if (temperature) {
      const { value, derivative } = temperature(head);
      const raw = similarity(qAt, kAt, head);
      const index = dHeads.length === 1 ? 0 : head;
      dHeads[index] = round(dHeads[index] + round(dS * round(scale * round(derivative * raw))));
      factor = round(factor * value);
    }
    addPair(round(dS * factor), {
      head,
      qAt,
      kAt,
      dQuery: rowAt(dQuery, batch, head, row.qRow),
      dKey: rowAt(dKey, batch, kHead, keyRow),
    });
  }
  return { dQuery, dKey, options: into, add };
}

/** Adds to the gradient of an element that a step has read. */
function addElement(
  into: ReferenceScoreGradients,
  { name, index, derivative }: ElementDerivative,
  dS: number,
  round: (x: number) => number,
): void {
  const sums = sumsOf(into, name);
  if (!(index in (sums ?? []))) throw new Error(`The gradient of ${name} has no element ${index}.`);
  sums[index] = round(sums[index] + round(dS * derivative));
}

function sumsOf(into: ReferenceScoreGradients, name: ElementDerivative["name"]): Float64Array {
  if (name === "bias") return into.dBias;
  if (name === "relativeBias") return into.dRelativeBias;
  if (name === "alibiSlopes") return into.dAlibiSlopes;
  return into.dCaptures[name.slice("captures.".length)];
}
