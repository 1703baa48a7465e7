// The gradients of what a query and a key are compared by.

import { accumulate, dot } from "../inner.ts";
import type { Scores } from "../scores.ts";
import { type Additive, additiveVector, columnOf, type Normalized, normOf } from "../similarity.ts";
import type { Strided } from "../tensors.ts";
import type { ReferenceScoreGradients } from "./score_gradients.ts";

/** A row of q and one of k, and the gradients of both. */
export interface Pair {
  readonly head: number;
  /** Where the rows start. */
  readonly qAt: number;
  readonly kAt: number;
  readonly dQuery: Float64Array;
  readonly dKey: Float64Array;
}

/** Adds what the gradient g of a similarity makes of its pair, and of what the similarity holds. */
type SimilarityBackward = (g: number, pair: Pair) => void;

/** @param into where the gradients of the similarity's weights are added */
export function similarityBackward(
  { query, key, rounding }: Pick<Scores, "query" | "key" | "rounding">,
  given: "dot" | Normalized | Additive,
  into: ReferenceScoreGradients,
): SimilarityBackward {
  if (given === "dot") return dotBackward(query, key, rounding.single);
  const rows = { q: query, k: key, rounding };
  if (given.kind === "additive") return additiveBackward(rows, given, into);
  return normalizedBackward(rows, given, into);
}

/** Rows of q and k, and how results of operations on them are rounded. */
interface Rows extends Pick<Scores, "rounding"> {
  readonly q: Strided;
  readonly k: Strided;
}

/** s = q.k: dq = g k, dk = g q. */
function dotBackward(q: Strided, k: Strided, single: boolean): SimilarityBackward {
  return (g, { qAt, kAt, dQuery, dKey }) => {
    accumulate(dQuery, g, k, kAt, single);
    accumulate(dKey, g, q, qAt, single);
  };
}

/**
 * s = sum_d a_d b_d with a = weights * u, u = q / norm(q), and b likewise of k:
 *
 *     dweights = g b u,   du = g b weights,   dq = (du - c (u.du) u) / norm(q)
 *
 * c is 1 for |q|, 1 / D for the root mean square, and 0 where eps stands for |q| and the norm is
 * constant.
 */
function normalizedBackward(
  { q, k, rounding }: Rows,
  similarity: Normalized,
  { dQWeights, dKWeights }: ReferenceScoreGradients,
): SimilarityBackward {
  const { kind, qWeights, kWeights } = similarity;
  const D = q.shape[3];
  const { round, single } = rounding;
  const norm = normOf(similarity, rounding);
  /** A row of a tensor, divided by its norm and weighed. */
  const side = (tensor: Strided, from: number, weights: ArrayLike<number> | undefined) => {
    const length = norm(tensor, from);
    const bounded =
      kind === "l2" && round(Math.sqrt(dot(tensor, from, tensor, from, D, single))) < length;
    const unit = Float64Array.from({ length: D }, (_, d) =>
      round(tensor.data[from + d * tensor.strides[3]] / length),
    );
    const weighed = unit.map((u, d) => round(u * (weights?.[d] ?? 1)));
    return { length, unit, weighed, weights, c: kind === "rms" ? 1 / D : bounded ? 0 : 1 };
  };
  type Side = ReturnType<typeof side>;
  /** @param gradient of what the side's weighed row is */
  const add = (one: Side, gradient: Float64Array, into: Float64Array, dWeights: Float64Array) => {
    const dUnit = gradient.map((x, d) => round(x * (one.weights?.[d] ?? 1)));
    const along = one.unit.reduce((sum, u, d) => round(sum + round(u * dUnit[d])), 0);
    for (let d = 0; d < D; d++) {
      if (one.weights) dWeights[d] = round(dWeights[d] + round(gradient[d] * one.unit[d]));
      const rest = round(dUnit[d] - round(round(one.c * along) * one.unit[d]));
      into[d] = round(into[d] + round(rest / one.length));
    }
  };
  return (g, { qAt, kAt, dQuery, dKey }) => {
    const a = side(q, qAt, qWeights);
    const b = side(k, kAt, kWeights);
    const dA = b.weighed.map((x) => round(g * x));
    const dB = a.weighed.map((x) => round(g * x));
    add(a, dA, dQuery, dQWeights);
    add(b, dB, dKey, dKWeights);
  };
}

/**
 * s = sum_d w_d tanh(x_d), x = innerScale (q + k) + innerBias:
 *
 *     dw_d = g tanh(x_d),   dx_d = g w_d (1 - tanh^2(x_d)),   dq = dk = innerScale dx
 *
 * With w = gain n, n = vector / |vector|: dgain = n.dw, dvector = gain (dw - (n.dw) n) / |vector|.
 */
function additiveBackward(
  { q, k, rounding }: Rows,
  similarity: Additive,
  into: ReferenceScoreGradients,
): SimilarityBackward {
  const { vector, innerBias, innerScale = 1, normalize = false } = similarity;
  const { dVector, dInnerBias, dInnerScale, dGain } = into;
  const { round } = rounding;
  const [, H, , D] = q.shape;
  const vectors = Array.from({ length: H }, (_, head) =>
    additiveVector(similarity, head, D, round),
  );
  const add = (sums: Float64Array, index: number, x: number) => {
    sums[index] = round(sums[index] + x);
  };
  /** Adds to the gradients of the vector and its gain, which may be those of all heads. */
  const addVector = (head: number, dWeights: Float64Array) => {
    const { row, length, gain } = vectors[head];
    let dRow = dWeights;
    if (normalize) {
      if (length === 0) return; // its direction, and with it the gradient, isn't defined
      const unit = row.map((x) => round(x / length));
      const along = unit.reduce((sum, n, d) => round(sum + round(n * dWeights[d])), 0);
      if (dGain.length) add(dGain, dGain.length === 1 ? 0 : head, along);
      dRow = dWeights.map((x, d) =>
        round(round(gain * round(x - round(along * unit[d]))) / length),
      );
    }
    if (vector === undefined) return;
    for (let d = 0; d < D; d++)
      add(dVector, typeof vector === "number" ? 0 : columnOf(vector, D, head, d), dRow[d]);
  };
  return (g, { head, qAt, kAt, dQuery, dKey }) => {
    const { weights } = vectors[head];
    const dWeights = new Float64Array(D);
    for (let d = 0; d < D; d++) {
      const pair = round(q.data[qAt + d * q.strides[3]] + k.data[kAt + d * k.strides[3]]);
      const inner = innerBias ? columnOf(innerBias, D, head, d) : 0;
      const x = round(round(innerScale * pair) + round(innerBias?.[inner] ?? 0));
      const t = round(Math.tanh(x));
      const dX = round(round(g * weights[d]) * round(1 - round(t * t)));
      dWeights[d] = round(g * t);
      if (innerBias) add(dInnerBias, inner, dX);
      if (dInnerScale.length) add(dInnerScale, 0, round(dX * pair));
      add(dQuery, d, round(innerScale * dX));
      add(dKey, d, round(innerScale * dX));
    }
    addVector(head, dWeights);
  };
}
