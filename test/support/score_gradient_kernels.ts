// The kernels that add up gradients of scores, in the variants that the tests look at.

import type { BackwardSpecialisation } from "../../src/kernels/gradients/backward.ts";
import { BACKWARD_TILES, type BackwardTile } from "../../src/kernels/gradients/backward_tiles.ts";
import {
  SUM_OF,
  type SumOf,
  scoreSumsKernel,
  scoreSumsModules,
  scoreTotalsKernel,
  sinkSumsKernel,
  sinkSumsModules,
  TOTALS_MODULES,
} from "../../src/kernels/gradients/scores.ts";
import { PLAIN, type SlotChoice } from "../../src/kernels/slots.ts";
import type { KernelVariant } from "./kernels.ts";

const SLOTS: Readonly<Record<SumOf, SlotChoice>> = {
  scores: { ...PLAIN, bias: true },
  distances: { ...PLAIN, alibi: true, tables: true },
  products: { ...PLAIN, temperature: "plain", softcap: true, tables: true },
  buckets: { ...PLAIN, relativeBias: true, tables: true, dropout: "seeded" },
};
const SINKS: SlotChoice = { ...PLAIN, sinks: true, tables: true, sequence: "batch" };

/** The specialisation of a kernel of a sum. */
const specialisation = (sum: SumOf, tile: BackwardTile): BackwardSpecialisation => ({
  ...SLOTS[sum],
  kernel: "queries",
  headDim: 40,
  vDim: 24,
  tile,
  dOutput: "dense",
  dV: "dense",
  dLse: false,
});

export const SCORE_GRADIENT_VARIANTS: readonly KernelVariant[] = [
  ...(Object.keys(SUM_OF) as SumOf[]).flatMap((sum) =>
    BACKWARD_TILES.filter(({ form }) => form === "tiles").map((tile) => ({
      name: `backward scores, ${sum} ${tile.name}`,
      root: "package::backward_scores",
      modules: scoreSumsModules(specialisation(sum, tile), sum),
      bindings: scoreSumsKernel(specialisation(sum, tile), sum).bindings,
    })),
  ),
  {
    name: "backward sinks",
    root: "package::backward_sinks",
    modules: sinkSumsModules(SINKS),
    bindings: sinkSumsKernel(SINKS).bindings,
  },
  {
    name: "backward totals",
    root: "package::backward_totals",
    modules: TOTALS_MODULES,
    bindings: scoreTotalsKernel().bindings,
  },
];
