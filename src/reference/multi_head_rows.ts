// The rows of a multi-head layer: its projections, and the probabilities of all keys, those that the
// layer adds included.

import { dropoutFactor } from "./dropout.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { project } from "./projection.ts";
import { roundingOf } from "./rounding.ts";
import type { Row } from "./rows.ts";
import { scoresOf } from "./scores.ts";
import { softmax } from "./softmax.ts";
import { at, type Strided } from "./tensors.ts";

/** A linear layer: [out, in] and [out]. */
export interface ReferenceLinear {
  readonly weight: ReferenceTensor;
  readonly bias?: ReferenceTensor;
}

export interface ReferenceMultiHead {
  readonly query: ReferenceLinear;
  readonly key: ReferenceLinear;
  readonly value: ReferenceLinear;
  /** Default: none; the output is that of the heads. */
  readonly output?: ReferenceLinear;
  /** [Hkv * D] and [Hkv * Dv]: a learned key and value that every query sees. */
  readonly biasK?: ReferenceTensor;
  readonly biasV?: ReferenceTensor;
}

/** Options of attention, but for those about layouts and packed sequences. */
export interface ReferenceMultiHeadOptions
  extends Omit<ReferenceOptions, "layout" | "rows" | "cuSeqlensQ" | "cuSeqlensKv"> {
  readonly heads: number;
  readonly kvHeads?: number;
  /** Every query sees a key and a value of zeros. */
  readonly zeroAttention?: boolean;
  /**
   * What is done to q, k, v and the output of the heads when they are stored: a rounding. Default
   * nothing.
   */
  readonly stored?: (value: number) => number;
}

/** What the layer is applied to: [B, M, width], and twice [B, N, width]. */
export type ReferenceMultiHeadInputs = Readonly<Record<"query" | "key" | "value", ReferenceTensor>>;

/** One query of one head, with the probabilities of its keys. */
export interface MultiHeadRow extends Row {
  /** [N'], before dropout; overwritten by the next row. */
  readonly p: Float64Array;
  readonly lse: number;
  readonly kvHead: number;
  /** scale * q.biasK, before the softcap; 0 without biasK. */
  readonly added: number;
}

/** A layer's q, k and v in heads, and its rows. */
export function multiHeadRows(
  inputs: ReferenceMultiHeadInputs,
  layer: ReferenceMultiHead,
  options: ReferenceMultiHeadOptions,
) {
  const {
    heads: H,
    kvHeads: Hkv = H,
    zeroAttention = false,
    stored = (x: number) => x,
    ...attention
  } = options;
  const { precision, softcap, sinks, dropout } = attention;
  const { round } = roundingOf(precision);
  const linear = (x: ReferenceTensor, { weight, bias }: ReferenceLinear, count: number) => {
    const [batch, rows] = x.shape;
    const width = weight.shape[0] / count;
    const data = project(x, weight, bias, { ...(precision && { precision }) }).map(stored);
    const strides = [rows * count * width, width, count * width, 1];
    return { data, shape: [batch, count, rows, width], strides, offset: 0 };
  };
  const q: Strided = linear(inputs.query, layer.query, H);
  const k: Strided = linear(inputs.key, layer.key, Hkv);
  const v: Strided = linear(inputs.value, layer.value, Hkv);
  const [B, , M, D] = q.shape;
  const N = k.shape[2];
  const Dv = v.shape[3];
  const { biasK, biasV } = layer;
  const scale = attention.scale ?? 1 / Math.sqrt(D);
  const keys = N + Number(biasK !== undefined) + Number(zeroAttention);

  const problem = scoresOf(q, k, attention);
  const factor = dropoutFactor(dropout, round);
  const factorOfAdded = dropoutFactor(
    dropout && { ...dropout, seed: (dropout.seed + 1) % 2 ** 53 },
    round,
  );
  const scores = new Float64Array(keys);
  const p = new Float64Array(keys);

  /** The row of a number in [B, H, M]; none if its entry doesn't use it. */
  function find(number: number): MultiHeadRow | undefined {
    const row = problem.rows.find(number);
    if (!row) return undefined;
    const kvHead = Math.floor((row.head * Hkv) / H);
    scores.fill(Number.NEGATIVE_INFINITY);
    problem.write(row, "scores", scores);
    let added = 0;
    if (biasK) {
      const from = at(q, row.batch, row.head, row.qRow);
      for (let d = 0; d < D; d++)
        added = round(added + round(q.data[from + d] * element(biasK, kvHead * D + d)));
      added = round(added * scale);
      scores[N] = softcap ? round(softcap * round(Math.tanh(round(added / softcap)))) : added;
    }
    if (zeroAttention) scores[keys - 1] = 0;
    const sink = sinks?.[row.head] ?? Number.NEGATIVE_INFINITY;
    const { sum, lse } = softmax(scores, p, [0, keys], sink, round);
    for (let j = 0; j < keys; j++) p[j] = round(p[j] / sum);
    return { ...row, p, lse, kvHead, added };
  }
  return {
    q,
    v,
    problem,
    round,
    scale,
    /** The options of attention. */
    attention,
    sizes: { B, H, M, N, D, Dv, keys },
    find,
    /** What dropout makes of a weight. */
    factor: ({ number }: Row, j: number) => (j < N ? factor(number, j) : factorOfAdded(number, 0)),
    /** The value of a key. That of zeros, and a key without weight, which may be any, have none. */
    value: ({ batch, kvHead, p }: MultiHeadRow, j: number): ((d: number) => number) | undefined => {
      if (p[j] === 0 || (zeroAttention && j === keys - 1)) return undefined;
      if (j >= N) return (d) => element(biasV as ReferenceTensor, kvHead * Dv + d);
      const from = at(v, batch, kvHead, j);
      return (d) => v.data[from + d];
    },
  };
}

/** An element of a tensor of one axis. */
export const element = (tensor: ReferenceTensor, index: number) =>
  tensor.data[(tensor.offset ?? 0) + index * (tensor.strides?.[0] ?? 1)];
