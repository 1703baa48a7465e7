// The kernel that joins masks, shaders/mask_bits.wesl: bindings, uniform and grid. One text serves
// every pair of masks.

import maskBits from "../../shaders/mask_bits.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";
import { UniformStruct } from "./uniform.ts";

const WG_SIZE = 64;
/** Keys of a word. */
export const WORD_KEYS = 32;

/** The uniform. */
export const MASKS = new UniformStruct(maskBits, "Masks");

/** The ways in which a mask is stored, as the params number them. */
export const MASK_KINDS = { none: 0, bytes: 1, bits: 2 } as const;

export const MASK_BITS_MODULES: ModuleMap = { "package::mask_bits": maskBits };

export const MASK_BITS_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "masks", type: "uniform" },
  { binding: 1, name: "mask_0", type: "read-only-storage" },
  { binding: 2, name: "mask_1", type: "read-only-storage" },
  { binding: 3, name: "bits", type: "storage" },
];

let linked: KernelSource | undefined;

/** The linked kernel. There is only one. */
export function maskBitsKernel(): KernelSource {
  linked ??= {
    label: "mask_bits",
    ...link("package::mask_bits", MASK_BITS_MODULES),
    bindings: MASK_BITS_BINDINGS,
  };
  return linked;
}

export const maskBitsWorkgroups = (words: number): number => Math.ceil(words / WG_SIZE);
