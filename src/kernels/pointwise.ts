// The kernel of what is done to every element by itself, shaders/pointwise.wesl: what is compiled,
// and its grid.

import pointwise from "../../shaders/pointwise.wesl?raw";
import activation from "../../shaders/slots/activation.wesl?raw";
import activationGelu from "../../shaders/variants/activation_gelu.wesl?raw";
import activationGeluTanh from "../../shaders/variants/activation_gelu_tanh.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

const WG_SIZE = 64;

const ACTIVATIONS = {
  gelu: { name: "variants/activation_gelu.wesl", text: activationGelu },
  "gelu-tanh": { name: "variants/activation_gelu_tanh.wesl", text: activationGeluTanh },
};

/** What is done to a sum; undefined for nothing. */
export type ActivationModule = keyof typeof ACTIVATIONS;

/** What is compiled of a pointwise operation. */
export const pointwiseSpecialisation = (
  tensors: RowAccesses,
  what?: ActivationModule,
): RowSpecialisation => ({
  tensors,
  variant: what,
  constants: {
    BIAS: tensors.bias !== undefined,
    RESIDUAL: tensors.residual !== undefined,
    WEIGHT: tensors.weight !== undefined,
  },
  modules: {
    "package::pointwise": pointwise,
    "package::slots::activation": what ? ACTIVATIONS[what] : activation,
  },
});

/** Workgroups for so many rows of `width` elements. */
export const pointwiseWorkgroups = (rows: number, width: number): number =>
  Math.ceil((rows * Math.ceil(width / 4)) / WG_SIZE);
