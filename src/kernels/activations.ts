// The functions that may be applied to sums, by their modules.

import finite from "../../shaders/lib/finite.wesl?raw";
import sigmoid from "../../shaders/lib/sigmoid.wesl?raw";
import gelu from "../../shaders/variants/activation_gelu.wesl?raw";
import geluTanh from "../../shaders/variants/activation_gelu_tanh.wesl?raw";
import relu from "../../shaders/variants/activation_relu.wesl?raw";
import activationSigmoid from "../../shaders/variants/activation_sigmoid.wesl?raw";
import silu from "../../shaders/variants/activation_silu.wesl?raw";
import tanh from "../../shaders/variants/activation_tanh.wesl?raw";
import type { ActivationModules } from "./pointwise.ts";

const TEXTS = {
  gelu,
  "gelu-tanh": geluTanh,
  relu,
  sigmoid: activationSigmoid,
  silu,
  tanh,
};

export type ActivationName = keyof typeof TEXTS;

/** The modules of a function. */
export const activationModules = (name: ActivationName): ActivationModules => ({
  name,
  modules: {
    "package::lib::finite": finite,
    "package::lib::sigmoid": sigmoid,
    "package::slots::activation": {
      name: `variants/activation_${name.replace("-", "_")}.wesl`,
      text: TEXTS[name],
    },
  },
});
