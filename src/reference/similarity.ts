// The similarities that a query and a key are compared by.

import { dot } from "./inner.ts";
import type { ReferenceOptions, ReferenceSimilarity } from "./options.ts";
import type { Rounding } from "./rounding.ts";
import type { Strided } from "./tensors.ts";

/** Compares the row of q that starts at `qAt` with that of k at `kAt`. */
type Compare = (qAt: number, kAt: number, head: number) => number;

/** The similarity with its temperature, and the scale that goes with it. */
export function similarityOf(
  q: Strided,
  k: Strided,
  options: ReferenceOptions,
  rounding: Rounding,
): { compare: Compare; defaultScale: number } {
  const { round, single } = rounding;
  const D = q.shape[3];
  const { similarity: asked = "dot" } = options;
  const given = asked === "cosine" ? ({ kind: "l2" } as const) : asked;
  const plain = given === "dot" || given.kind === "rms";
  const compare: Compare =
    given === "dot"
      ? (qAt, kAt) => dot(q, qAt, k, kAt, D, single)
      : given.kind === "additive"
        ? additive(q, k, given, rounding)
        : normalized(q, k, given, rounding);
  const factor = temperatureOf(options, rounding);
  return {
    compare: factor ? (qAt, kAt, head) => round(factor(head) * compare(qAt, kAt, head)) : compare,
    defaultScale: plain ? 1 / Math.sqrt(D) : 1,
  };
}

function temperatureOf(
  { temperature, logTemperature, maxTemperature = 100 }: ReferenceOptions,
  { round }: Rounding,
) {
  const given = temperature ?? logTemperature;
  if (given === undefined) return undefined;
  const log = temperature === undefined;
  return (head: number) => {
    const value = round(typeof given === "number" ? given : given[head]);
    return log ? Math.min(round(Math.exp(value)), maxTemperature) : value;
  };
}

type Normalized = Extract<ReferenceSimilarity, { kind: "l2" | "rms" }>;

/**
 * Rows over their norms, column by column, as a user would write it: normalise, weigh, multiply.
 */
function normalized(
  q: Strided,
  k: Strided,
  similarity: Normalized,
  { round, single }: Rounding,
): Compare {
  const { kind, eps = kind === "l2" ? 1e-12 : 1e-6, qWeights, kWeights } = similarity;
  const D = q.shape[3];
  const norm = (row: Strided, from: number) => {
    const squares = dot(row, from, row, from, D, single);
    return kind === "l2"
      ? Math.max(round(Math.sqrt(squares)), eps)
      : round(Math.sqrt(round(round(squares / D) + round(eps))));
  };
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

type Additive = Extract<ReferenceSimilarity, { kind: "additive" }>;

function additive(q: Strided, k: Strided, similarity: Additive, { round }: Rounding): Compare {
  const { vector = 1, innerBias, innerScale = 1, normalize = false, gain = 1 } = similarity;
  const [, H, , D] = q.shape;
  const scale = round(innerScale);
  const column = (values: ArrayLike<number>, head: number, d: number) =>
    round(values[(values.length === D ? 0 : head * D) + d]);
  const vectors = Array.from({ length: H }, (_, head) => {
    const row = Float64Array.from({ length: D }, (_, d) =>
      typeof vector === "number" ? round(vector) : column(vector, head, d),
    );
    if (!normalize) return row;
    const length = round(Math.sqrt(row.reduce((sum, x) => round(sum + round(x * x)), 0)));
    const factor = length && round(round(typeof gain === "number" ? gain : gain[head]) / length);
    return row.map((x) => round(factor * x));
  });
  return (qAt, kAt, head) => {
    const weights = vectors[head];
    let sum = 0;
    for (let d = 0; d < D; d++) {
      const pair = round(
        scale * round(q.data[qAt + d * q.strides[3]] + k.data[kAt + d * k.strides[3]]),
      );
      const x = innerBias ? round(pair + column(innerBias, head, d)) : pair;
      sum = round(sum + round(weights[d] * round(Math.tanh(x))));
    }
    return sum;
  };
}
