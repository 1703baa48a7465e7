// The kernel of checkGradient, shaders/check_score.wesl.

import check from "../../../shaders/check_score.wesl?raw";
import position from "../../../shaders/lib/position.wesl?raw";
import tanh from "../../../shaders/lib/tanh.wesl?raw";
import capturedGradient from "../../../shaders/slots/captured_gradient.wesl?raw";
import config from "../../../shaders/slots/captures_config.wesl?raw";
import score from "../../../shaders/slots/score.wesl?raw";
import scoreGradient from "../../../shaders/slots/score_gradient.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule, MODULES } from "../../shader/modules.ts";
import type { Binding, KernelSource } from "../../types.ts";
import { captureBindings, type FunctionText } from "../slots.ts";
import { differentiableModules } from "./score_gradient.ts";

/** Samples of a workgroup. */
export const SAMPLES = 64;
/** 32-bit words of a sample, as the shader declares it. */
export const SAMPLE_WORDS = 6;

/**
 * The modules, of which `package::check_score` is the root; with the default function, and its
 * derivatives, if there is no text.
 *
 * @param reads Elements of captures that the text has derivatives by
 */
export const checkScoreModules = (text: FunctionText | undefined, reads: number): ModuleMap => ({
  ...MODULES,
  "package::check_score": check,
  "package::lib::position": position,
  "package::lib::tanh": tanh,
  "package::slots::score": score,
  "package::slots::score_gradient": scoreGradient,
  "package::slots::captured_gradient": capturedGradient,
  ...constantsModule("captures_config", config, { READS: reads }),
  ...differentiableModules(text),
});

export const checkScoreBindings = (text: FunctionText | undefined): Binding[] => [
  { binding: 1, name: "samples", type: "read-only-storage" },
  { binding: 2, name: "results", type: "storage" },
  ...captureBindings("score", text),
];

/** The kernel for a text with derivatives. */
export const checkScoreKernel = (text: FunctionText, reads: number): KernelSource => ({
  label: "check score",
  ...link("package::check_score", checkScoreModules(text, reads)),
  bindings: checkScoreBindings(text),
});
