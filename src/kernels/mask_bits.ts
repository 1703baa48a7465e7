// The kernel that joins masks, shaders/mask_bits.wesl: bindings, uniform and grid. One text serves every pair of masks.

import maskBits from "../../shaders/mask_bits.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";

const WG_SIZE = 64;
/** Keys of a word. */
export const WORD_KEYS = 32;

/** The members of the struct after its two vec4u, in order; all u32. A test compares them with the shader. */
export const MASKS = [
  "base_0",
  "base_1",
  "kind_0",
  "kind_1",
  "ignored_0",
  "ignored_1",
  "heads",
  "rows",
  "row_words",
  "keys",
  "words",
  "grid_x",
] as const;

/** How a mask is stored, as the params number it. */
export const MASK_KINDS = { none: 0, bytes: 1, bits: 2 } as const;

/** Bytes of the struct. */
export const MASKS_BYTES = 4 * (8 + MASKS.length);

export const MASK_BITS_MODULES: ModuleMap = { "package::mask_bits": maskBits };

export const MASK_BITS_BINDINGS: readonly Binding[] = [
  { binding: 0, name: "masks", type: "uniform" },
  { binding: 1, name: "mask_0", type: "read-only-storage" },
  { binding: 2, name: "mask_1", type: "read-only-storage" },
  { binding: 3, name: "bits", type: "storage" },
];

let linked: KernelSource | undefined;

/** The linked kernel: there is one. */
export function maskBitsKernel(): KernelSource {
  linked ??= { label: "mask_bits", ...link("package::mask_bits", MASK_BITS_MODULES), bindings: MASK_BITS_BINDINGS };
  return linked;
}

export const maskBitsWorkgroups = (words: number): number => Math.ceil(words / WG_SIZE);
