// The kernel of checkGradient, shaders/check_score.wesl.

import check from "../../../shaders/check_score.wesl?raw";
import position from "../../../shaders/lib/position.wesl?raw";
import tanh from "../../../shaders/lib/tanh.wesl?raw";
import config from "../../../shaders/slots/captures_config.wesl?raw";
import { link } from "../../shader/link.ts";
import { constantsModule, MODULES } from "../../shader/modules.ts";
import type { KernelSource } from "../../types.ts";
import { functionModules } from "../slot_modules.ts";
import { captureBindings, type FunctionText } from "../slots.ts";
import { derivativeModules } from "./score_gradient.ts";

/** Samples of a workgroup. */
export const SAMPLES = 64;
/** 32-bit words of a sample, as the shader declares it. */
export const SAMPLE_WORDS = 6;

/** The kernel for a text with derivatives, by `reads` elements of captures beside the score. */
export function checkScoreKernel(text: FunctionText, reads: number): KernelSource {
  const linked = link("package::check_score", {
    ...MODULES,
    "package::check_score": check,
    "package::lib::position": position,
    "package::lib::tanh": tanh,
    ...constantsModule("captures_config", config, { READS: reads }),
    ...functionModules("score", text),
    ...derivativeModules(text),
  });
  return {
    label: "check score",
    ...linked,
    bindings: [
      { binding: 1, name: "samples", type: "read-only-storage" },
      { binding: 2, name: "results", type: "storage" },
      ...captureBindings("score", text),
    ],
  };
}
