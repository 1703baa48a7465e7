// The merge kernel, shaders/merge.wesl: bindings, uniform and grid. One text serves every problem.

import mergeRows from "../../shaders/lib/merge_rows.wesl?raw";
import merge from "../../shaders/merge.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";
import { UniformStruct } from "./uniform.ts";

/** Partials that one dispatch folds into the result. */
export const MERGE_FOLD = 2;
/** Rows of [B, H, M] that a workgroup owns. */
export const MERGE_ROW_TILE = 4;

/** The uniform. */
export const MERGE_PARAMS = new UniformStruct(merge, "MergeParams");

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
export const MERGE_MODULES: ModuleMap = {
  "package::merge": merge,
  "package::lib::merge_rows": mergeRows,
};

let linked: KernelSource | undefined;

export function mergeKernel(): KernelSource {
  linked ??= { label: "merge", ...link("package::merge", MERGE_MODULES), bindings: MERGE_BINDINGS };
  return linked;
}
