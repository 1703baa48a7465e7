// The kernels of gradients of captured values, in the variants that the tests look at.

import { BACKWARD_TILES } from "../../src/kernels/gradients/backward_tiles.ts";
import {
  CAPTURED_SUMS_MODULES,
  type CapturesSpecialisation,
  capturedSumsKernel,
  capturesKernel,
  capturesModules,
} from "../../src/kernels/gradients/captures.ts";
import { checkScoreBindings, checkScoreModules } from "../../src/kernels/gradients/check_score.ts";
import { PLAIN } from "../../src/kernels/slots.ts";
import type { KernelVariant } from "./kernels.ts";

const SPECIALISATIONS = BACKWARD_TILES.filter(({ form }) => form === "tiles").map(
  (tile): CapturesSpecialisation => ({
    ...PLAIN,
    softcap: true,
    kernel: "queries",
    headDim: 40,
    vDim: 24,
    tile,
    dOutput: "dense",
    dV: "dense",
    dLse: false,
    reads: 3,
  }),
);

export const CAPTURE_VARIANTS: readonly KernelVariant[] = [
  ...SPECIALISATIONS.map((spec) => ({
    name: `backward captures ${spec.tile.name}`,
    root: "package::backward_captures",
    modules: capturesModules(spec),
    bindings: capturesKernel(spec).bindings,
  })),
  {
    name: "captured sums",
    root: "package::captured_sums",
    modules: CAPTURED_SUMS_MODULES,
    bindings: capturedSumsKernel().bindings,
  },
  {
    name: "check score",
    root: "package::check_score",
    modules: checkScoreModules(undefined, 2),
    bindings: checkScoreBindings(undefined),
  },
];
