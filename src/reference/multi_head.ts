// Multi-head attention with its projections on the CPU. The layer is measured against it. Keys that
// the layer adds are more keys of the same softmax here.

import {
  multiHeadRows,
  type ReferenceMultiHead,
  type ReferenceMultiHeadOptions,
} from "./multi_head_rows.ts";
import type { ReferenceTensor } from "./options.ts";
import { project } from "./projection.ts";

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
  const { precision, stored = (x: number) => x } = options;
  const rows = multiHeadRows({ query, key, value }, layer, options);
  const { round } = rows;
  const { B, H, M, Dv, keys } = rows.sizes;
  const joined = new Float64Array(B * M * H * Dv);
  const lse = new Float64Array(B * H * M).fill(Number.NEGATIVE_INFINITY);
  const weights = new Float64Array(B * H * M * keys);
  for (let index = 0; index < B * H * M; index++) {
    const row = rows.find(index);
    if (!row) continue;
    lse[index] = row.lse;
    weights.set(row.p, index * keys);
    const out = ((row.batch * M + row.query) * H + row.head) * Dv;
    for (let j = 0; j < keys; j++) {
      const factor = rows.factor(row, j);
      const valueAt = rows.value(row, j);
      if (factor === 0 || !valueAt) continue;
      const weight = round(row.p[j] * factor);
      for (let d = 0; d < Dv; d++)
        joined[out + d] = round(joined[out + d] + round(weight * valueAt(d)));
    }
  }
  const heads = { data: joined.map(stored), shape: [B, M, H * Dv] };
  const { output: last } = layer;
  const output = last
    ? project(heads, last.weight, last.bias, { ...(precision && { precision }) })
    : heads.data;
  return { output, lse, weights };
}
