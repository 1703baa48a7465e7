// The kernels of the gradients of captured values, shaders/backward_captures.wesl and what goes
// before and after it.

import captures from "../../../shaders/backward_captures.wesl?raw";
import captured from "../../../shaders/captured_sums.wesl?raw";
import sums from "../../../shaders/lib/captured_sums.wesl?raw";
import gradient from "../../../shaders/lib/gradient.wesl?raw";
import capturedGradient from "../../../shaders/slots/captured_gradient.wesl?raw";
import config from "../../../shaders/slots/captures_config.wesl?raw";
import { link, type ModuleMap } from "../../shader/link.ts";
import { constantsModule, MODULES } from "../../shader/modules.ts";
import type { KernelSource } from "../../types.ts";
import { KernelCache } from "../kernel_cache.ts";
import { scoreProductModules } from "./additive.ts";
import { type BackwardSpecialisation, backwardBindings, backwardModules } from "./backward.ts";
import { differentiableModules } from "./score_gradient.ts";

export interface CapturesSpecialisation extends BackwardSpecialisation {
  readonly kernel: "queries";
  /** Elements with a gradient that a score reads. */
  readonly reads: number;
}

/** The modules of a specialisation, of which `package::backward_captures` is the root. */
export function capturesModules({ reads, ...spec }: CapturesSpecialisation): ModuleMap {
  return {
    ...backwardModules(spec),
    ...scoreProductModules(spec.similarity),
    "package::backward_captures": captures,
    "package::lib::captured_sums": sums,
    "package::slots::captured_gradient": capturedGradient,
    ...constantsModule("captures_config", config, { READS: reads }),
    ...differentiableModules(spec.score),
  };
}

const kernels = new KernelCache<CapturesSpecialisation>();

/** The kernel that finds the largest terms, and then adds them up. */
export const capturesKernel = (spec: CapturesSpecialisation): KernelSource =>
  kernels.get(spec, () => ({
    label: `backward captures ${spec.tile.name}`,
    ...link("package::backward_captures", capturesModules(spec)),
    bindings: backwardBindings(spec).map((one) =>
      one.name === "o" ? { ...one, name: "sums" } : one,
    ),
  }));

/** Words of the sums of a captured value with so many elements. */
export const sumWords = (elements: number) => 1 + 3 * elements;
/** Elements of a workgroup of the kernel that clears and ends the sums. */
export const SUM_ELEMENTS = 64;
/** The stages of the kernels, as the shaders number them. */
export const STAGE = { clear: 0, largest: 1, sum: 2, finish: 3 } as const;

/** The modules of the kernel below. */
export const CAPTURED_SUMS_MODULES: ModuleMap = {
  ...MODULES,
  "package::captured_sums": captured,
  "package::lib::captured_sums": sums,
  "package::lib::gradient": gradient,
};

const sumKernels = new KernelCache<object>();

/** The kernel that clears the sums of a captured value, or makes its gradient of them. */
export const capturedSumsKernel = (): KernelSource =>
  sumKernels.get({}, () => ({
    label: "captured sums",
    ...link("package::captured_sums", CAPTURED_SUMS_MODULES),
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      { binding: 1, name: "sums", type: "storage" },
      { binding: 6, name: "o", type: "storage" },
      { binding: 15, name: "gradient", type: "uniform" },
    ],
  }));
