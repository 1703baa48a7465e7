// The kernel that finds the blocks of a mask function, shaders/block_mask.wesl: its bindings and
// the struct it reads.

import blockMask from "../../shaders/block_mask.wesl?raw";
import position from "../../shaders/lib/position.wesl?raw";
import mask from "../../shaders/slots/mask.wesl?raw";
import { link, type ModuleMap } from "../shader/link.ts";
import type { Binding, KernelSource } from "../types.ts";
import { functionModules } from "./slot_modules.ts";
import { captureBindings, type FunctionText } from "./slots.ts";
import { UniformStruct } from "./uniform.ts";

/** The uniform. */
export const BLOCKS = new UniformStruct(blockMask, "Blocks");

/**
 * The modules, of which `package::block_mask` is the root; with the default mask if there is no
 * function.
 */
export function blockMaskModules(text?: FunctionText): ModuleMap {
  const defaults = { "package::lib::position": position, "package::slots::mask": mask };
  return { ...defaults, "package::block_mask": blockMask, ...functionModules("mask", text) };
}

export function blockMaskBindings(text?: FunctionText): Binding[] {
  return [
    { binding: 0, name: "shape", type: "uniform" },
    { binding: 1, name: "blocks", type: "storage" },
    ...captureBindings("mask", text),
  ];
}

export function blockMaskKernel(text: FunctionText): KernelSource {
  const linked = link("package::block_mask", blockMaskModules(text));
  return { label: "block_mask", ...linked, bindings: blockMaskBindings(text) };
}
