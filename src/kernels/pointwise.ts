// The kernel of operations on every element by itself, shaders/pointwise.wesl: what is compiled,
// and its grid.

import pointwise from "../../shaders/pointwise.wesl?raw";
import activation from "../../shaders/slots/activation.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

const WG_SIZE = 64;

/** The modules of a function that is applied to a sum, and its name. */
export interface ActivationModules {
  readonly name: string;
  readonly modules: ModuleMap;
}

/** What the text of a pointwise operation depends on. */
export const pointwiseSpecialisation = (
  tensors: RowAccesses,
  what?: ActivationModules,
): RowSpecialisation => ({
  tensors,
  variant: what?.name,
  constants: {
    BIAS: tensors.bias !== undefined,
    RESIDUAL: tensors.residual !== undefined,
    WEIGHT: tensors.weight !== undefined,
  },
  modules: {
    "package::pointwise": pointwise,
    "package::slots::activation": activation,
    ...what?.modules,
  },
});

/** Workgroups for so many rows of `width` elements. */
export const pointwiseWorkgroups = (rows: number, width: number): number =>
  Math.ceil((rows * Math.ceil(width / 4)) / WG_SIZE);
