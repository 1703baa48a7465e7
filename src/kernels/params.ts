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
  ["causal", "u32"],
  ["align_end", "u32"],
  ["q_offset", "i32"],
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
  ["kv_lengths_base", "u32"],
  ["query_offsets_base", "u32"],
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
