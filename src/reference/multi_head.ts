// Multi-head attention with its projections on the CPU. The layer is measured against it. Keys that
// the layer adds are more keys of the same softmax here.

import { dropoutKeeps } from "./dropout.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { project } from "./projection.ts";
import { roundingOf } from "./rounding.ts";
import { softmax } from "./softmax.ts";
import { attentionScores } from "./weights.ts";

/** A linear layer: [out, in] and [out]. */
export interface ReferenceLinear {
  readonly weight: ReferenceTensor;
  readonly bias?: ReferenceTensor;
}

export interface ReferenceMultiHead {
  readonly query: ReferenceLinear;
  readonly key: ReferenceLinear;
  readonly value: ReferenceLinear;
  /** Default: none; then the output is that of the heads. */
  readonly output?: ReferenceLinear;
  /** [Hkv * D] and [Hkv * Dv]: a learned key and value that every query sees. */
  readonly biasK?: ReferenceTensor;
  readonly biasV?: ReferenceTensor;
}

/** Options of attention, without those for layouts and packed sequences. */
export interface ReferenceMultiHeadOptions
  extends Omit<ReferenceOptions, "layout" | "rows" | "cuSeqlensQ" | "cuSeqlensKv"> {
  readonly heads: number;
  readonly kvHeads?: number;
  /** Every query sees a key and a value of zeros. */
  readonly zeroAttention?: boolean;
  /**
   * Rounds q, k, v and the output of the heads as memory between kernels does. Default: nothing is
   * rounded.
   */
  readonly stored?: (value: number) => number;
}

export interface ReferenceMultiHeadResult {
  /** [B, M, output width] */
  readonly output: Float64Array;
  /** [B, H, M] */
  readonly lse: Float64Array;
  /**
   * `[B, H, M, N']`: probabilities before dropout, of the keys, the learned one and the one of zeros.
   */
  readonly weights: Float64Array;
}

/**
 * concat_h(softmax(scale * q_h k_g^T + mask) v_g) Wo^T + bo with q = query Wq^T + bq and so on, g =
 * floor(h * Hkv / H). Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.2. The
 * learned key and the key of zeros are scaled and capped like all others, and no mask, bias,
 * function or position applies to them.
 *
 * @param query [B, M, query width]
 * @param key [B, N, key width]
 * @param value [B, N, value width]
 */
export function multiHeadAttention(
  query: ReferenceTensor,
  key: ReferenceTensor,
  value: ReferenceTensor,
  layer: ReferenceMultiHead,
  options: ReferenceMultiHeadOptions,
): ReferenceMultiHeadResult {
  const {
    heads: H,
    kvHeads: Hkv = H,
    zeroAttention = false,
    stored = (x: number) => x,
    ...attention
  } = options;
  const { precision, softcap, sinks, qLengths, dropout } = attention;
  const { round } = roundingOf(precision);
  const linear = (x: ReferenceTensor, { weight, bias }: ReferenceLinear, count: number) => {
    const [batch, rows] = x.shape;
    const width = weight.shape[0] / count;
    const data = project(x, weight, bias, { ...(precision && { precision }) }).map(stored);
    const strides = [rows * count * width, width, count * width, 1];
    return { data, shape: [batch, count, rows, width], strides };
  };
  const q = linear(query, layer.query, H);
  const k = linear(key, layer.key, Hkv);
  const v = linear(value, layer.value, Hkv);
  const [B, , M, D] = q.shape;
  const N = k.shape[2];
  const Dv = v.shape[3];
  const { biasK, biasV } = layer;
  const scale = attention.scale ?? 1 / Math.sqrt(D);
  const keys = N + Number(biasK !== undefined) + Number(zeroAttention);

  const scores = attentionScores(q, k, { ...attention, stage: "scores" });
  const keeps = dropout && dropoutKeeps(dropout.seed, dropout.p);
  const keepsAdded = dropout && dropoutKeeps((dropout.seed + 1) % 2 ** 53, dropout.p);
  const factor = dropout ? round(1 / round(1 - dropout.p)) : 1;
  const element = (tensor: ReferenceTensor, index: number) =>
    tensor.data[(tensor.offset ?? 0) + index * (tensor.strides?.[0] ?? 1)];

  const joined = new Float64Array(B * M * H * Dv);
  const lse = new Float64Array(B * H * M).fill(Number.NEGATIVE_INFINITY);
  const weights = new Float64Array(B * H * M * keys);
  const row = new Float64Array(keys);
  const p = new Float64Array(keys);
  for (let index = 0; index < B * H * M; index++) {
    const b = Math.floor(index / (H * M));
    const h = Math.floor(index / M) % H;
    const i = index % M;
    if (qLengths && i >= qLengths[b]) continue;
    const g = Math.floor((h * Hkv) / H);
    row.set(scores.subarray(index * N, (index + 1) * N));
    if (biasK) {
      let s = 0;
      for (let d = 0; d < D; d++) {
        const at = b * q.strides[0] + h * q.strides[1] + i * q.strides[2] + d;
        s = round(s + round(q.data[at] * element(biasK, g * D + d)));
      }
      s = round(s * scale);
      row[N] = softcap ? round(softcap * round(Math.tanh(round(s / softcap)))) : s;
    }
    if (zeroAttention) row[keys - 1] = 0;
    const sink = sinks?.[h] ?? Number.NEGATIVE_INFINITY;
    const { sum, lse: total } = softmax(row, p, [0, keys], sink, round);
    lse[index] = total;
    for (let j = 0; j < keys; j++) {
      p[j] = round(p[j] / sum);
      weights[index * keys + j] = p[j];
      const kept = j < N ? keeps?.(index, j) : keepsAdded?.(index, 0);
      // The key of zeros has no value, and a key that is not seen may have any.
      if (kept === false || p[j] === 0 || (zeroAttention && j === keys - 1)) continue;
      const weight = round(p[j] * factor);
      for (let d = 0; d < Dv; d++) {
        const at = b * v.strides[0] + g * v.strides[1] + j * v.strides[2] + d;
        const x = j < N ? v.data[at] : element(biasV as ReferenceTensor, g * Dv + d);
        const o = ((b * M + i) * H + h) * Dv + d;
        joined[o] = round(joined[o] + round(weight * x));
      }
    }
  }
  const heads = { data: joined.map(stored), shape: [B, M, H * Dv] };
  const { output: last } = layer;
  const output = last
    ? project(heads, last.weight, last.bias, { ...(precision && { precision }) })
    : heads.data;
  return { output, lse, weights };
}
