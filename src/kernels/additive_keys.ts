// The kernel that takes the exponentials of the keys of additive attention,
// shaders/additive_keys.wesl: specialisation, grid, and the binding and module of kernels that read
// its result.

import additiveKeys from "../../shaders/additive_keys.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import { configModule, MODULES } from "../shader/modules.ts";
import type { Binding, KernelSource } from "../types.ts";
import { KernelCache } from "./kernel_cache.ts";
import { ADDITIVE_ROWS, slotModules } from "./slot_modules.ts";
import { PLAIN, type SlotChoice, slotConstants } from "./slots.ts";

/** Rows of a workgroup. */
const ROW_TILE = 64;

export interface AdditiveKeysSpecialisation extends Pick<SlotChoice, "k"> {
  readonly headDim: number;
}

/** The modules of a specialisation, of which `package::additive_keys` is the root. */
export function additiveKeysModules({ headDim, k }: AdditiveKeysSpecialisation): ModuleMap {
  const slots: SlotChoice = { ...PLAIN, k };
  const config = configModule({ HEAD_DIM: headDim, ...slotConstants(slots) });
  const own = {
    "package::additive_keys": additiveKeys,
    "package::slots::similarity": ADDITIVE_ROWS,
  };
  return { ...MODULES, ...config, ...slotModules(slots), ...own };
}

export const ADDITIVE_KEYS_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "params", type: "uniform" },
  { binding: 2, name: "k", type: "read-only-storage" },
  { binding: 8, name: "workspace", type: "storage" },
];

/** The binding of the exponentials in the kernel that reads them. */
export const STORED_KEYS_BINDING: Binding = {
  binding: 8,
  name: "workspace",
  type: "read-only-storage",
};

const kernels = new KernelCache<AdditiveKeysSpecialisation>();

export function additiveKeysKernel(headDim: number, { k }: SlotChoice): KernelSource {
  const spec = { headDim, k };
  return kernels.get(spec, () => {
    const text = link("package::additive_keys", additiveKeysModules(spec));
    return { label: "additive_keys", ...text, bindings: ADDITIVE_KEYS_BINDINGS };
  });
}

/** Numbers that the kernel writes for so many rows. */
export const additiveKeysFloats = (rows: number, headDim: number): number =>
  rows * 4 * Math.ceil(headDim / 4);

/** Workgroups for so many rows. */
export const additiveKeysWorkgroups = (rows: number): number => Math.ceil(rows / ROW_TILE);

/** Operations of a workgroup. */
export const additiveKeysFlops = (headDim: number): number => 16 * ROW_TILE * headDim;
