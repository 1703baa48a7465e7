// The merge kernel, shaders/merge.wesl: bindings, uniform and grid. One text serves every problem.

import merge from "../../shaders/merge.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";

/** Partials that one dispatch folds into the result. */
export const MERGE_FOLD = 2;
/** Rows of [B, H, M] that a workgroup owns. */
export const MERGE_ROW_TILE = 4;

/** The uniform, field by field as in shaders/merge.wesl: vec4u first, then u32. A test compares the two. */
export const MERGE_PARAMS = [
  ["o_strides", "vec4u"],
  ["lse_strides", "vec4u"],
  ["o_0_strides", "vec4u"],
  ["lse_0_strides", "vec4u"],
  ["o_1_strides", "vec4u"],
  ["lse_1_strides", "vec4u"],
  ["o_base", "u32"],
  ["lse_base", "u32"],
  ["o_0_base", "u32"],
  ["lse_0_base", "u32"],
  ["o_1_base", "u32"],
  ["lse_1_base", "u32"],
  ["n_heads", "u32"],
  ["seq_q", "u32"],
  ["v_dim", "u32"],
  ["rows", "u32"],
  ["grid_x", "u32"],
  ["partials", "u32"],
  ["first", "u32"],
  ["last", "u32"],
  ["empty", "u32"],
] as const;

export type MergeParams = {
  readonly [Field in (typeof MERGE_PARAMS)[number] as Field[0]]: Field[1] extends "vec4u" ? readonly number[] : number;
};

/** Bytes of the struct: a uniform's size is a multiple of 16. */
export const MERGE_PARAMS_BYTES = 160;

/** The fields with their places in bytes. Every vec4u stands before the first u32, so they follow each other. */
export function mergeParamMembers() {
  let end = 0;
  return MERGE_PARAMS.map(([name, type]) => {
    const offset = end;
    end += type === "vec4u" ? 16 : 4;
    return { name, type, offset };
  });
}

/** Writes a MergeParams struct into `bytes` at `start`. */
export function packMergeParams(params: MergeParams, bytes: ArrayBuffer, start: number): void {
  const view = new DataView(bytes, start, MERGE_PARAMS_BYTES);
  for (const { name, offset } of mergeParamMembers()) {
    for (const [word, value] of [params[name]].flat().entries()) view.setUint32(offset + 4 * word, value, true);
  }
}

export const MERGE_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "o_0", type: "read-only-storage" },
  { binding: 2, name: "lse_0", type: "read-only-storage" },
  { binding: 3, name: "o_1", type: "read-only-storage" },
  { binding: 4, name: "lse_1", type: "read-only-storage" },
  { binding: 5, name: "o", type: "storage" },
  { binding: 6, name: "lse", type: "storage" },
  { binding: 7, name: "workspace", type: "storage" },
];

/** The modules, of which `package::merge` is the root. */
export const MERGE_MODULES: ModuleMap = { "package::merge": merge };

let linked: KernelSource | undefined;

export function mergeKernel(): KernelSource {
  linked ??= { label: "merge", ...link("package::merge", MERGE_MODULES), bindings: MERGE_BINDINGS };
  return linked;
}
