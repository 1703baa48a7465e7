// The effects of options on a score between scale * q.k and the masks, each as a separate step.

import { relativeBucket } from "./bucket.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import type { Rounding } from "./rounding.ts";
import { positionOf, type Row } from "./rows.ts";
import { at, broadcast } from "./tensors.ts";

/** Turns a score into the score after an option. */
export type Step = (s: number, row: Row, key: number) => number;

/** The softcap, as the only step of its list. */
export function capSteps({ softcap }: ReferenceOptions, { round }: Rounding): Step[] {
  if (!softcap) return [];
  const cap = round(softcap);
  return [(s) => round(cap * round(Math.tanh(round(s / cap))))];
}

/** The steps that follow the softcap, in this order. */
export function scoreSteps(
  options: ReferenceOptions,
  H: number,
  { round, roundScore }: Rounding,
): Step[] {
  const { scoreFunction, bias, relativeBias, alibiSlopes } = options;
  const steps: Step[] = [];
  if (scoreFunction)
    steps.push((s, row, key) => roundScore(scoreFunction(s, positionOf(row, key))));
  if (bias) {
    const element = biasElement(bias);
    steps.push((s, row, key) => roundScore(s + element(row, key)));
  }
  if (relativeBias) {
    const element = relativeElement(relativeBias);
    steps.push((s, row, key) => roundScore(s + element(row, key)));
  }
  if (alibiSlopes) {
    const slopes = broadcast(slopeTensor(alibiSlopes, H), 2);
    const [perEntry, perHead] = slopes.strides;
    steps.push((s, { entry, head, position }, key) => {
      const slope = round(slopes.data[slopes.offset + entry * perEntry + head * perHead]);
      return roundScore(s - round(slope * Math.abs(position - key)));
    });
  }
  return steps;
}

/** Reads the element of a [B|1, H|1, M|1, N|1] tensor that belongs to a score. */
export function biasElement(tensor: ReferenceTensor): (row: Row, key: number) => number {
  const elements = broadcast(tensor, 4);
  const perKey = elements.strides[3];
  return ({ entry, head, query }, key) =>
    elements.data[at(elements, entry, head, query) + key * perKey];
}

function relativeElement({ table, bidirectional = true, maxDistance = 128 }: RelativeBias) {
  const { data, shape, strides, offset } = broadcast(table, 2);
  return ({ head, position }: Row, key: number): number => {
    const bucket = relativeBucket(key - position, shape[0], bidirectional, maxDistance);
    return data[offset + bucket * strides[0] + head * strides[1]];
  };
}

type RelativeBias = NonNullable<ReferenceOptions["relativeBias"]>;

function slopeTensor(
  slopes: NonNullable<ReferenceOptions["alibiSlopes"]>,
  H: number,
): ReferenceTensor {
  if ("data" in slopes) return slopes as ReferenceTensor;
  return { data: slopes, shape: slopes.length === H ? [H] : [slopes.length / H, H] };
}
