// The kernel of gradients of operations on every element by itself, shaders/pointwise_backward.wesl:
// what is compiled. Its grid is that of the forward kernel.

import pointwiseBackward from "../../../shaders/pointwise_backward.wesl?raw";
import activation from "../../../shaders/slots/activation.wesl?raw";
import slope from "../../../shaders/slots/activation_slope.wesl?raw";
import geluSlope from "../../../shaders/variants/activation_slope_gelu.wesl?raw";
import geluTanhSlope from "../../../shaders/variants/activation_slope_gelu_tanh.wesl?raw";
import reluSlope from "../../../shaders/variants/activation_slope_relu.wesl?raw";
import sigmoidSlope from "../../../shaders/variants/activation_slope_sigmoid.wesl?raw";
import siluSlope from "../../../shaders/variants/activation_slope_silu.wesl?raw";
import tanhSlope from "../../../shaders/variants/activation_slope_tanh.wesl?raw";
import { type ActivationName, activationModules } from "../activations.ts";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";

const SLOPES: Readonly<Record<ActivationName, string>> = {
  gelu: geluSlope,
  "gelu-tanh": geluTanhSlope,
  relu: reluSlope,
  sigmoid: sigmoidSlope,
  silu: siluSlope,
  tanh: tanhSlope,
};

/** What the text depends on. */
export const pointwiseBackwardSpecialisation = (
  tensors: RowAccesses,
  what?: ActivationName,
): RowSpecialisation => ({
  tensors,
  variant: what,
  constants: {
    BIAS: tensors.bias !== undefined,
    RESIDUAL: tensors.residual !== undefined,
    WEIGHT: tensors.weight !== undefined,
    TOTAL: tensors.total !== undefined,
  },
  modules: {
    "package::pointwise_backward": pointwiseBackward,
    "package::slots::activation": activation,
    "package::slots::activation_slope": slope,
    ...(what && {
      ...activationModules(what).modules,
      "package::slots::activation_slope": {
        name: `variants/activation_slope_${what.replace("-", "_")}.wesl`,
        text: SLOPES[what],
      },
    }),
  },
});
