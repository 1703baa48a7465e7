// The kernels of gradients through similarities, in the variants that the tests look at.

import { UNIT_VECTOR_BINDINGS, unitVectorModules } from "../../src/kernels/gradients/additive.ts";
import {
  type BackwardSpecialisation,
  backwardBindings,
  backwardModules,
  backwardRoot,
} from "../../src/kernels/gradients/backward.ts";
import { BACKWARD_TILES } from "../../src/kernels/gradients/backward_tiles.ts";
import { scoreSumsKernel, scoreSumsModules } from "../../src/kernels/gradients/scores.ts";
import {
  NORMALIZED_BINDINGS,
  normalizedModules,
  SUMS_BINDINGS,
  sumsModules,
} from "../../src/kernels/gradients/similarity.ts";
import { PLAIN, type SlotChoice } from "../../src/kernels/slots.ts";
import type { KernelVariant } from "./kernels.ts";

const specialisation = (
  slots: Pick<SlotChoice, "similarity">,
  kernel: "queries" | "keys" | "pairs",
  tile = BACKWARD_TILES[BACKWARD_TILES.length - 1],
): BackwardSpecialisation => ({
  ...PLAIN,
  ...slots,
  tables: true,
  kernel,
  headDim: 40,
  vDim: 24,
  tile,
  dOutput: "dense",
  dV: "dense",
  dLse: false,
});

const variant = (name: string, spec: BackwardSpecialisation): KernelVariant => ({
  name,
  root: backwardRoot(spec),
  modules: backwardModules(spec),
  bindings: backwardBindings(spec),
});

const NORMALIZED = {
  similarity: { kind: "normalized", rms: false, qWeights: true, kWeights: true },
} as const;
const ADDITIVE = { similarity: { kind: "additive", innerBias: true, unitVector: true } } as const;
const KEPT = { vector: true, bias: true, scale: true };

export const SIMILARITY_GRADIENT_VARIANTS: readonly KernelVariant[] = [
  ...BACKWARD_TILES.filter(({ form }) => form === "tiles").flatMap((tile) =>
    (["queries", "keys"] as const).map((kernel) =>
      variant(
        `backward of normalised ${kernel} ${tile.name}`,
        specialisation(NORMALIZED, kernel, tile),
      ),
    ),
  ),
  variant("backward of additive queries", specialisation(ADDITIVE, "queries")),
  variant("backward of additive keys", specialisation(ADDITIVE, "keys")),
  variant("backward of additive queries, kept", {
    ...specialisation(ADDITIVE, "queries"),
    kept: KEPT,
  }),
  variant("backward of additive pairs, of few queries", {
    ...specialisation(ADDITIVE, "pairs"),
    few: true,
  }),
  ...(["queries", "keys"] as const).map((kernel) =>
    variant(`backward of additive ${kernel}, few`, {
      ...specialisation(ADDITIVE, kernel),
      few: true,
      ...(kernel === "queries" && { kept: KEPT }),
    }),
  ),
  {
    name: "backward scores of additive attention",
    root: "package::backward_scores",
    modules: scoreSumsModules(specialisation(ADDITIVE, "queries"), "products"),
    bindings: scoreSumsKernel(specialisation(ADDITIVE, "queries"), "products").bindings,
  },
  ...[true, false].map((rms) => ({
    name: `backward normalized ${rms ? "RMS" : "l2"}`,
    root: "package::backward_normalized",
    modules: normalizedModules({
      headDim: 40,
      x: rms ? "dense" : "bf16-packed",
      dX: rms ? "dense" : "f16-packed-strided",
      rms,
      weights: rms,
      keep: rms,
    }),
    bindings: NORMALIZED_BINDINGS,
  })),
  {
    name: "backward sums",
    root: "package::backward_sums",
    modules: sumsModules({ dim: 40, rows: "dense", sums: "strided" }),
    bindings: SUMS_BINDINGS,
  },
  {
    name: "backward unit_vector",
    root: "package::backward_unit_vector",
    modules: unitVectorModules(40),
    bindings: UNIT_VECTOR_BINDINGS,
  },
];
