// The kernel that finds the norms of the rows of q and k, shaders/row_norms.wesl: specialisation
// and grid.

import rowNorms from "../../shaders/row_norms.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import { KernelCache } from "./kernel_cache.ts";
import { slotModules } from "./slot_modules.ts";
import { type SlotChoice, slotConstants } from "./slots.ts";

/** Rows of a workgroup. */
const ROW_TILE = 8;

export interface RowNormsSpecialisation extends SlotChoice {
  readonly headDim: number;
}

/** The modules of a specialisation, of which `package::row_norms` is the root. */
export function rowNormsModules({ headDim, ...slots }: RowNormsSpecialisation): ModuleMap {
  const config = configModule({ HEAD_DIM: headDim, ...slotConstants(slots) });
  return { ...MODULES, "package::row_norms": rowNorms, ...config, ...slotModules(slots) };
}

export const ROW_NORMS_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 1, name: "q", type: "read-only-storage" },
  { binding: 2, name: "k", type: "read-only-storage" },
  { binding: 4, name: "tables", type: "storage" },
];

/** Kernels by the norm, and by how q and k are read. */
const kernels = new KernelCache<RowNormsSpecialisation>();

export function rowNormsKernel(
  headDim: number,
  { q, k, cache, similarity }: SlotChoice,
): KernelSource {
  const rms = similarity?.kind === "normalized" && similarity.rms;
  const norm = { kind: "normalized", rms, qWeights: false, kWeights: false } as const;
  const spec: RowNormsSpecialisation = {
    headDim,
    q,
    k,
    v: "dense",
    o: "dense",
    ...(cache && { cache }),
    similarity: norm,
  };
  return kernels.get(spec, () => {
    const text = link("package::row_norms", rowNormsModules(spec));
    return { label: "row_norms", ...text, bindings: ROW_NORMS_BINDINGS };
  });
}

/** Workgroups for so many rows of q and k together. */
export const rowNormsWorkgroups = (rows: number): number => Math.ceil(rows / ROW_TILE);
