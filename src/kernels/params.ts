// The uniform of the attention kernels: its members are those of the struct in shaders/lib/params.wesl.

import shader from "../../shaders/lib/params.wesl?raw";

/** Names and types of the members, in order. */
export const PARAMS = [...shader.matchAll(/^ *(\w+): ([fiu]32),/gm)].map(([, name, type]) => {
  return { name: name as keyof Params, type };
});

type Member =
  | "seq_q"
  | "seq_kv"
  | "n_heads"
  | "group_size"
  | "q_tiles"
  | "v_splits"
  | "kv_splits"
  | "grid_x"
  | "first_workgroup"
  | "end_workgroup"
  | "total_q"
  | "total_kv"
  | "rows_per_batch"
  | "align_end"
  | "q_offset"
  | "window_left"
  | "window_right"
  | "chunk"
  | "sink_tokens"
  | "scale"
  | "scale_log2"
  | "q_base"
  | "q_stride_b"
  | "q_stride_h"
  | "q_stride_m"
  | "q_stride_d"
  | "k_base"
  | "k_stride_b"
  | "k_stride_h"
  | "k_stride_n"
  | "k_stride_d"
  | "v_base"
  | "v_stride_b"
  | "v_stride_h"
  | "v_stride_n"
  | "v_stride_d"
  | "o_base"
  | "o_stride_b"
  | "o_stride_h"
  | "o_stride_m"
  | "o_stride_d"
  | "lse_base"
  | "lse_stride_b"
  | "lse_stride_h"
  | "lse_stride_m"
  | "row_max_base"
  | "row_max_stride_b"
  | "row_max_stride_h"
  | "row_max_stride_m"
  | "bias_base"
  | "bias_stride_b"
  | "bias_stride_h"
  | "bias_stride_m"
  | "bias_stride_n"
  | "mask_base"
  | "mask_stride_b"
  | "mask_stride_h"
  | "mask_stride_m"
  | "mask_stride_n"
  | "block_q"
  | "block_kv"
  | "blocks_stride_b"
  | "blocks_stride_h"
  | "blocks_stride_m"
  | "q_lengths_at"
  | "kv_lengths_at"
  | "q_offsets_at"
  | "cu_q_at"
  | "cu_kv_at"
  | "slopes_at"
  | "slopes_stride_b"
  | "sinks_at"
  | "relative_reach"
  | "relative_buckets_at"
  | "relative_values_at"
  | "softcap"
  | "seed_low"
  | "seed_high"
  | "keep_below"
  | "keep_factor"
  | "chosen_heads"
  | "chosen_rows"
  | "heads_at"
  | "rows_at"
  | "grid_heads"
  | "stage"
  | "best_keys"
  | "inner"
  | "angle_rows"
  | "cos_base"
  | "cos_stride"
  | "sin_base"
  | "sin_stride"
  | "angle_factor"
  | "sin_sign"
  | "positions_base"
  | "positions_stride_s"
  | "positions_stride_b"
  | "positions_stride_m"
  | "positions_step"
  | "temperature_at"
  | "vector_at"
  | "vector_stride_h"
  | "inner_bias_at"
  | "inner_bias_stride_h"
  | "gain_at"
  | "q_weights_at"
  | "k_weights_at"
  | "q_norms_at"
  | "k_norms_at"
  | "q_outer"
  | "k_outer"
  | "k_rows"
  | "norm_eps"
  | "inner_scale"
  | "max_temperature";

export type Params = Record<Member, number>;

/** Bytes of the struct: a uniform's size is a multiple of 16. */
export const PARAMS_BYTES = Math.ceil((PARAMS.length * 4) / 16) * 16;

/**
 * Writes a Params struct into `bytes` at `offset`, 0 for what is left out. Every member is a 4-byte scalar, so members
 * follow each other.
 */
export function packParams(params: Partial<Params>, bytes: ArrayBuffer, offset: number): void {
  const view = new DataView(bytes, offset, PARAMS_BYTES);
  for (const [index, { name, type }] of PARAMS.entries()) {
    const value = params[name] ?? 0;
    if (type === "f32") view.setFloat32(index * 4, value, true);
    else if (type === "i32") view.setInt32(index * 4, value, true);
    else view.setUint32(index * 4, value, true);
  }
}
