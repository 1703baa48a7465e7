// What the options do to a score between scale * q.k and the masks, each as a separate step with
// its derivatives.

import { tanhDerivative } from "./activations.ts";
import { relativeBucket } from "./bucket.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import type { Rounding } from "./rounding.ts";
import { positionOf, type Row } from "./rows.ts";
import { at, broadcast } from "./tensors.ts";

/** An element of a tensor in the options that a step reads, and the step's derivative by it. */
export interface ElementDerivative {
  /** The option, or `captures.` and the name of a captured tensor. */
  readonly name: "bias" | "relativeBias" | "alibiSlopes" | `captures.${string}`;
  /** The element, in row-major order. */
  readonly index: number;
  readonly derivative: number;
}

/** What an option does to the score s of a row and a key. */
export interface Step {
  /** Makes of a score the one after the option. */
  readonly apply: (s: number, row: Row, key: number) => number;
  /** The derivative of the score after the option by s. Default 1. */
  readonly derivative?: (s: number, row: Row, key: number) => number;
  /** The derivatives by what the option holds. Default none. */
  readonly elements?: (s: number, row: Row, key: number) => readonly ElementDerivative[];
}

/** The softcap, as the only step of its list: c tanh(s / c), with derivative 1 - tanh^2(s / c). */
export function capSteps({ softcap }: ReferenceOptions, { round }: Rounding): Step[] {
  if (!softcap) return [];
  const cap = round(softcap);
  return [
    {
      apply: (s) => round(cap * round(Math.tanh(round(s / cap)))),
      derivative: (s) => tanhDerivative(s / cap),
    },
  ];
}

/** What follows the softcap, in this order. */
export function scoreSteps(options: ReferenceOptions, H: number, rounding: Rounding): Step[] {
  const { scoreFunction, bias, relativeBias, alibiSlopes } = options;
  const steps: Step[] = [];
  if (scoreFunction) steps.push(functionStep(scoreFunction, options.scoreGradient, rounding));
  if (bias) steps.push(addingStep("bias", bias, biasIndex, rounding));
  if (relativeBias) {
    const { table } = relativeBias;
    const indexIn = (one: ReferenceTensor) => relativeIndex({ ...relativeBias, table: one });
    steps.push(addingStep("relativeBias", table, indexIn, rounding));
  }
  if (alibiSlopes) steps.push(alibiStep(slopeTensor(alibiSlopes, H), rounding));
  return steps;
}

/** f(s), whose derivatives the caller gives. */
function functionStep(
  scoreFunction: NonNullable<ReferenceOptions["scoreFunction"]>,
  gradient: ReferenceOptions["scoreGradient"],
  { roundScore }: Rounding,
): Step {
  const given = () => {
    if (!gradient) throw new Error("The gradient of a score function needs scoreGradient.");
    return gradient;
  };
  return {
    apply: (s, row, key) => roundScore(scoreFunction(s, positionOf(row, key))),
    derivative: (s, row, key) => given().derivative(s, positionOf(row, key)),
    elements: (s, row, key) =>
      (given().captured?.(s, positionOf(row, key)) ?? []).map(({ name, index, derivative }) => ({
        name: `captures.${name}`,
        index,
        derivative,
      })),
  };
}

/** Where a tensor has the element that belongs to a score. */
type IndexOf = (row: Row, key: number) => number;

/** s + the element of a tensor that belongs to the score: the derivative by it is 1. */
function addingStep(
  name: "bias" | "relativeBias",
  tensor: ReferenceTensor,
  indexIn: (tensor: ReferenceTensor) => IndexOf,
  { roundScore }: Rounding,
): Step {
  const index = indexIn(tensor);
  const denseIndex = indexIn({ data: tensor.data, shape: tensor.shape });
  return {
    apply: (s, row, key) => roundScore(s + tensor.data[index(row, key)]),
    elements: (_, row, key) => [{ name, index: denseIndex(row, key), derivative: 1 }],
  };
}

/** s - slope |p - j|: the derivative by the slope is -|p - j|. */
function alibiStep(slopes: ReferenceTensor, { round, roundScore }: Rounding): Step {
  const indexIn = (tensor: ReferenceTensor) => {
    const { strides, offset } = broadcast(tensor, 2);
    return ({ entry, head }: Row) => offset + entry * strides[0] + head * strides[1];
  };
  const index = indexIn(slopes);
  const denseIndex = indexIn({ data: slopes.data, shape: slopes.shape });
  return {
    apply: (s, row, key) => {
      const slope = round(slopes.data[index(row)]);
      return roundScore(s - round(slope * Math.abs(row.position - key)));
    },
    elements: (_, row, key) => [
      {
        name: "alibiSlopes",
        index: denseIndex(row),
        derivative: -Math.abs(row.position - key),
      },
    ],
  };
}

/** Reads the element of a [B|1, H|1, M|1, N|1] tensor that belongs to a score. */
export function biasElement(tensor: ReferenceTensor): (row: Row, key: number) => number {
  const index = biasIndex(tensor);
  return (row, key) => tensor.data[index(row, key)];
}

function biasIndex(tensor: ReferenceTensor): IndexOf {
  const elements = broadcast(tensor, 4);
  const perKey = elements.strides[3];
  return ({ entry, head, query }, key) => at(elements, entry, head, query) + key * perKey;
}

function relativeIndex({ table, bidirectional = true, maxDistance = 128 }: RelativeBias): IndexOf {
  const { shape, strides, offset } = broadcast(table, 2);
  return ({ head, position }, key) => {
    const bucket = relativeBucket(key - position, shape[0], bidirectional, maxDistance);
    return offset + bucket * strides[0] + head * strides[1];
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
