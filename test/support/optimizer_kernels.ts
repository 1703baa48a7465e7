// The kernels of optimisers, for the tests that look at every kernel.

import {
  type OptimizerKernel,
  optimizerParts,
  RULE_STATE,
} from "../../src/kernels/training/optimizer.ts";
import type { KernelVariant } from "./kernels.ts";

const KERNELS: readonly OptimizerKernel[] = [
  ...(Object.keys(RULE_STATE) as (keyof typeof RULE_STATE)[]),
  "accumulate",
  "advance",
  "muon",
  "norm",
  "norm_total",
  "polynomial",
];

export const OPTIMIZER_VARIANTS: readonly KernelVariant[] = KERNELS.map((kernel) => ({
  name: `optimizer ${kernel}`,
  ...optimizerParts(kernel),
}));
