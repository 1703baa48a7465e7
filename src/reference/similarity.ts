// The similarities that a query and a key are compared by.

import { dot } from "./inner.ts";
import type { ReferenceOptions, ReferenceSimilarity } from "./options.ts";
import type { Rounding } from "./rounding.ts";
import type { Strided } from "./tensors.ts";

/** Compares the row of q that starts at `qAt` with that of k at `kAt`. */
type Compare = (qAt: number, kAt: number, head: number) => number;

/** A similarity, its temperature, and the scale that goes with it. */
export interface SimilarityParts {
  /** Without the temperature. */
  readonly similarity: Compare;
  /** Of a head. Without one it is undefined. */
  readonly temperature: Temperature | undefined;
  /** The temperature times the similarity. */
  readonly compare: Compare;
  readonly defaultScale: number;
}

/** The similarity of the options, with cosine by its other name. */
export function givenSimilarity({ similarity = "dot" }: ReferenceOptions) {
  return similarity === "cosine" ? ({ kind: "l2" } as const) : similarity;
}

export function similarityOf(
  q: Strided,
  k: Strided,
  options: ReferenceOptions,
  rounding: Rounding,
): SimilarityParts {
  const { round, single } = rounding;
  const D = q.shape[3];
  const given = givenSimilarity(options);
  const plain = given === "dot" || given.kind === "rms";
  const similarity: Compare =
    given === "dot"
      ? (qAt, kAt) => dot(q, qAt, k, kAt, D, single)
      : given.kind === "additive"
        ? additive(q, k, given, rounding)
        : normalized(q, k, given, rounding);
  const temperature = temperatureOf(options, rounding);
  return {
    similarity,
    temperature,
    compare: temperature
      ? (qAt, kAt, head) => round(temperature(head).value * similarity(qAt, kAt, head))
      : similarity,
    defaultScale: plain ? 1 / Math.sqrt(D) : 1,
  };
}

/** The temperature of a head, and its derivative by what the options give for it. */
type Temperature = (head: number) => { readonly value: number; readonly derivative: number };

/** The temperature itself, or min(exp(t), maxTemperature), which is constant at the bound. */
function temperatureOf(
  { temperature, logTemperature, maxTemperature = 100 }: ReferenceOptions,
  { round }: Rounding,
): Temperature | undefined {
  const given = temperature ?? logTemperature;
  if (given === undefined) return undefined;
  const log = temperature === undefined;
  return (head) => {
    const value = round(typeof given === "number" ? given : given[head]);
    if (!log) return { value, derivative: 1 };
    const exp = round(Math.exp(value));
    return exp > maxTemperature
      ? { value: maxTemperature, derivative: 0 }
      : { value: exp, derivative: exp };
  };
}

export type Normalized = Extract<ReferenceSimilarity, { kind: "l2" | "rms" }>;

/**
 * Rows over their norms, column by column, as a user would write it: normalise, weigh, multiply.
 */
function normalized(
  q: Strided,
  k: Strided,
  similarity: Normalized,
  { round, single }: Rounding,
): Compare {
  const { qWeights, kWeights } = similarity;
  const D = q.shape[3];
  const norm = normOf(similarity, { round, single });
  return (qAt, kAt) => {
    const qNorm = norm(q, qAt);
    const kNorm = norm(k, kAt);
    let sum = 0;
    for (let d = 0; d < D; d++) {
      const a = round(round(q.data[qAt + d * q.strides[3]] / qNorm) * round(qWeights?.[d] ?? 1));
      const b = round(round(k.data[kAt + d * k.strides[3]] / kNorm) * round(kWeights?.[d] ?? 1));
      sum = round(sum + round(a * b));
    }
    return sum;
  };
}

/** What a row is divided by: max(|x|, eps), or sqrt(mean x^2 + eps) by the root mean square. */
export function normOf(
  { kind, eps = kind === "l2" ? 1e-12 : 1e-6 }: Normalized,
  { round, single }: Pick<Rounding, "round" | "single">,
) {
  return (row: Strided, from: number) => {
    const D = row.shape[3];
    const squares = dot(row, from, row, from, D, single);
    return kind === "l2"
      ? Math.max(round(Math.sqrt(squares)), eps)
      : round(Math.sqrt(round(round(squares / D) + round(eps))));
  };
}

export type Additive = Extract<ReferenceSimilarity, { kind: "additive" }>;

function additive(q: Strided, k: Strided, similarity: Additive, { round }: Rounding): Compare {
  const { innerBias, innerScale = 1 } = similarity;
  const [, H, , D] = q.shape;
  const scale = round(innerScale);
  const vectors = Array.from({ length: H }, (_, head) =>
    additiveVector(similarity, head, D, round),
  );
  return (qAt, kAt, head) => {
    const { weights } = vectors[head];
    let sum = 0;
    for (let d = 0; d < D; d++) {
      const pair = round(
        scale * round(q.data[qAt + d * q.strides[3]] + k.data[kAt + d * k.strides[3]]),
      );
      const x = innerBias ? round(pair + round(innerBias[columnOf(innerBias, D, head, d)])) : pair;
      sum = round(sum + round(weights[d] * round(Math.tanh(x))));
    }
    return sum;
  };
}

/** Where numbers [D] or [H, D] have the one of a head and a column. */
export const columnOf = (values: ArrayLike<number>, D: number, head: number, d: number) =>
  (values.length === D ? 0 : head * D) + d;

/** The vector of a head: as it is, or with `normalize` gain * vector / |vector|, 0 for one of 0. */
export function additiveVector(
  { vector = 1, normalize = false, gain = 1 }: Additive,
  head: number,
  D: number,
  round: (x: number) => number,
) {
  const row = Float64Array.from({ length: D }, (_, d) =>
    round(typeof vector === "number" ? vector : vector[columnOf(vector, D, head, d)]),
  );
  if (!normalize) return { row, weights: row, length: 1, gain: 1 };
  const length = round(Math.sqrt(row.reduce((sum, x) => round(sum + round(x * x)), 0)));
  const own = round(typeof gain === "number" ? gain : gain[head]);
  const factor = length && round(own / length);
  return { row, weights: row.map((x) => round(factor * x)), length, gain: own };
}
