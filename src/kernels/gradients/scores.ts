// The kernels that add up gradients of scores for what the options hold:
// shaders/backward_scores.wesl, backward_sinks.wesl, and backward_totals.wesl after both.

import scores from "../../../shaders/backward_scores.wesl?raw";
import sinks from "../../../shaders/backward_sinks.wesl?raw";
import totals from "../../../shaders/backward_totals.wesl?raw";
import gradient from "../../../shaders/lib/gradient.wesl?raw";
import gradientUnits from "../../../shaders/lib/gradient_units.wesl?raw";
import scoreJoins from "../../../shaders/lib/score_joins.wesl?raw";
import scoreSums from "../../../shaders/lib/score_sums.wesl?raw";
import { link } from "../../shader/link.ts";
import { configModule, MODULES } from "../../shader/modules.ts";
import type { KernelSource } from "../../types.ts";
import { KernelCache } from "../kernel_cache.ts";
import { slotModules } from "../slot_modules.ts";
import { type SlotChoice, slotBindings, slotConstants } from "../slots.ts";
import { scoreProductModules } from "./additive.ts";
import { type BackwardSpecialisation, backwardModules } from "./backward.ts";

/** What is added up, as lib/score_sums.wesl numbers it. */
export const SUM_OF = { scores: 0, distances: 1, products: 2, buckets: 3 } as const;
export type SumOf = keyof typeof SUM_OF;

/** Buckets of a workgroup, and rows of a tile of the kernel of sinks. */
export const SUM_LANES = 64;
/** Elements of a workgroup of the last kernel. */
export const TOTAL_LANES = 64;

const WORKSPACE = { binding: 14, name: "workspace", type: "storage" } as const;
const GRADIENT_UNIFORM = { binding: 15, name: "gradient", type: "uniform" } as const;

/** The modules of a kernel that adds up gradients of scores; `backward_scores` is the root. */
export const scoreSumsModules = (spec: BackwardSpecialisation, sum: SumOf) => ({
  ...backwardModules({ ...spec, sumOf: SUM_OF[sum] }),
  ...scoreProductModules(spec.similarity),
  "package::backward_scores": scores,
  "package::lib::score_joins": scoreJoins,
  "package::lib::score_sums": scoreSums,
});

const sumKernels = new KernelCache<{ spec: BackwardSpecialisation; sum: SumOf }>();

/** The kernel that adds up gradients of scores, with the modules of the kernel of queries. */
export function scoreSumsKernel(spec: BackwardSpecialisation, sum: SumOf): KernelSource {
  return sumKernels.get({ spec, sum }, () => ({
    label: `backward ${sum} ${spec.tile.name}`,
    ...link("package::backward_scores", scoreSumsModules(spec, sum)),
    bindings: [
      ...slotBindings({ ...spec, lse: false, rowMax: false }).filter(({ name }) => name !== "o"),
      { binding: 13, name: "d_output", type: "read-only-storage" as const },
      WORKSPACE,
      GRADIENT_UNIFORM,
    ].sort((a, b) => a.binding - b.binding),
  }));
}

/** The modules of the kernel of sinks; `backward_sinks` is the root. */
export const sinkSumsModules = (slots: SlotChoice) => ({
  ...MODULES,
  ...slotModules(slots),
  ...configModule(slotConstants(slots)),
  "package::backward_sinks": sinks,
  "package::lib::gradient": gradient,
  "package::lib::gradient_units": gradientUnits,
});

const sinkKernels = new KernelCache<SlotChoice>();

export function sinkSumsKernel(slots: SlotChoice): KernelSource {
  return sinkKernels.get(slots, () => ({
    label: "backward sinks",
    ...link("package::backward_sinks", sinkSumsModules(slots)),
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      { binding: 4, name: "tables", type: "read-only-storage" },
      WORKSPACE,
      GRADIENT_UNIFORM,
    ],
  }));
}

/** The modules of the kernel that adds up shares; `backward_totals` is the root. */
export const TOTALS_MODULES = { ...MODULES, "package::backward_totals": totals };

let totalsKernel: KernelSource | undefined;

/** The kernel that adds up the shares of each element. */
export function scoreTotalsKernel(): KernelSource {
  totalsKernel ??= {
    label: "backward totals",
    ...link("package::backward_totals", TOTALS_MODULES),
    bindings: [
      { binding: 0, name: "params", type: "uniform" },
      { binding: 1, name: "shares", type: "read-only-storage" },
      { binding: 6, name: "o", type: "storage" },
    ],
  };
  return totalsKernel;
}
