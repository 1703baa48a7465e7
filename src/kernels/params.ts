// The uniform of the attention kernels, field by field as in shaders/lib/params.wesl. A test compares the two.

export const PARAMS = [
  ["seq_q", "u32"],
  ["seq_kv", "u32"],
  ["n_heads", "u32"],
  ["group_size", "u32"],
  ["q_tiles", "u32"],
  ["v_splits", "u32"],
  ["grid_x", "u32"],
  ["first_workgroup", "u32"],
  ["end_workgroup", "u32"],
  ["total_q", "u32"],
  ["total_kv", "u32"],
  ["rows_per_batch", "u32"],
  ["align_end", "u32"],
  ["q_offset", "i32"],
  ["window_left", "i32"],
  ["window_right", "i32"],
  ["chunk", "i32"],
  ["scale", "f32"],
  ["scale_log2", "f32"],
  ["q_base", "u32"],
  ["q_stride_b", "u32"],
  ["q_stride_h", "u32"],
  ["q_stride_m", "u32"],
  ["q_stride_d", "u32"],
  ["k_base", "u32"],
  ["k_stride_b", "u32"],
  ["k_stride_h", "u32"],
  ["k_stride_n", "u32"],
  ["k_stride_d", "u32"],
  ["v_base", "u32"],
  ["v_stride_b", "u32"],
  ["v_stride_h", "u32"],
  ["v_stride_n", "u32"],
  ["v_stride_d", "u32"],
  ["o_base", "u32"],
  ["o_stride_b", "u32"],
  ["o_stride_h", "u32"],
  ["o_stride_m", "u32"],
  ["o_stride_d", "u32"],
  ["lse_base", "u32"],
  ["lse_stride_b", "u32"],
  ["lse_stride_h", "u32"],
  ["lse_stride_m", "u32"],
  ["row_max_base", "u32"],
  ["row_max_stride_b", "u32"],
  ["row_max_stride_h", "u32"],
  ["row_max_stride_m", "u32"],
  ["bias_base", "u32"],
  ["bias_stride_b", "u32"],
  ["bias_stride_h", "u32"],
  ["bias_stride_m", "u32"],
  ["bias_stride_n", "u32"],
  ["mask_base", "u32"],
  ["mask_stride_b", "u32"],
  ["mask_stride_h", "u32"],
  ["mask_stride_m", "u32"],
  ["mask_stride_n", "u32"],
  ["block_q", "u32"],
  ["block_kv", "u32"],
  ["blocks_stride_b", "u32"],
  ["blocks_stride_h", "u32"],
  ["blocks_stride_m", "u32"],
  ["q_lengths_at", "u32"],
  ["kv_lengths_at", "u32"],
  ["q_offsets_at", "u32"],
  ["cu_q_at", "u32"],
  ["cu_kv_at", "u32"],
  ["slopes_at", "u32"],
  ["slopes_stride_b", "u32"],
  ["sinks_at", "u32"],
  ["relative_reach", "u32"],
  ["relative_buckets_at", "u32"],
  ["relative_values_at", "u32"],
  ["softcap", "f32"],
  ["seed_low", "u32"],
  ["seed_high", "u32"],
  ["keep_below", "u32"],
  ["keep_factor", "f32"],
] as const;

export type Params = { -readonly [Name in (typeof PARAMS)[number][0]]: number };

/** Bytes of the struct: a uniform's size is a multiple of 16. */
export const PARAMS_BYTES = Math.ceil((PARAMS.length * 4) / 16) * 16;

/** Writes a Params struct into `bytes` at `offset`. Every member is a 4-byte scalar, so members follow each other. */
export function packParams(params: Params, bytes: ArrayBuffer, offset: number): void {
  const view = new DataView(bytes, offset, PARAMS_BYTES);
  PARAMS.forEach(([name, type], index) => {
    if (type === "f32") view.setFloat32(index * 4, params[name], true);
    else if (type === "i32") view.setInt32(index * 4, params[name], true);
    else view.setUint32(index * 4, params[name], true);
  });
}
