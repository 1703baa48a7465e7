// The kernel of operations on every element by itself, shaders/pointwise.wesl: what is compiled,
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

/** The function that is applied to a sum, if any. */
export type ActivationModule = keyof typeof ACTIVATIONS;

/** What the text of a pointwise operation depends on. */
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
