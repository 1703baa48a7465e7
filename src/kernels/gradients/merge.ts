// The kernel of a merge's gradients, shaders/merge_backward.wesl: bindings, uniform and grid. One text
// serves every problem.

import finite from "../../../shaders/lib/finite.wesl?raw";
import mergeRows from "../../../shaders/lib/merge_rows.wesl?raw";
import mergeBackward from "../../../shaders/merge_backward.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { UniformStruct } from "../uniform.ts";

/** Rows of [B, H, M] that a workgroup owns. */
export const MERGE_BACKWARD_ROW_TILE = 4;

/** The uniform. */
export const MERGE_BACKWARD_PARAMS = new UniformStruct(mergeBackward, "MergeBackwardParams");

export const MERGE_BACKWARD_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "o", type: "read-only-storage" },
  { binding: 2, name: "d_o", type: "read-only-storage" },
  { binding: 3, name: "d_lse", type: "read-only-storage" },
  { binding: 4, name: "part", type: "read-only-storage" },
  { binding: 5, name: "part_lse", type: "read-only-storage" },
  { binding: 6, name: "d_part", type: "storage" },
  { binding: 7, name: "d_part_lse", type: "storage" },
  { binding: 8, name: "workspace", type: "storage" },
];

/** The modules, of which `package::merge_backward` is the root. */
export const MERGE_BACKWARD_MODULES: ModuleMap = {
  "package::merge_backward": mergeBackward,
  "package::lib::finite": finite,
  "package::lib::merge_rows": mergeRows,
};

let linked: KernelSource | undefined;

export function mergeBackwardKernel(): KernelSource {
  linked ??= {
    label: "merge backward",
    ...link("package::merge_backward", MERGE_BACKWARD_MODULES),
    bindings: MERGE_BACKWARD_BINDINGS,
  };
  return linked;
}
