// The kernel that sums losses, shaders/loss_sums.wesl: what is compiled, and how the work is shared.

import carriedSum from "../../../shaders/lib/carried_sum.wesl?raw";
import finite from "../../../shaders/lib/finite.wesl?raw";
import lossTermsModule from "../../../shaders/lib/loss_terms.wesl?raw";
import rowCounts from "../../../shaders/lib/row_counts.wesl?raw";
import rowIndex from "../../../shaders/lib/row_index.wesl?raw";
import rowLanesModule from "../../../shaders/lib/row_lanes.wesl?raw";
import workgroupSum from "../../../shaders/lib/workgroup_sum.wesl?raw";
import lossSums from "../../../shaders/loss_sums.wesl?raw";
import lossTerms from "../../../shaders/slots/loss_terms.wesl?raw";
import lossTermsCounts from "../../../shaders/variants/loss_terms_counts.wesl?raw";
import lossTermsHits from "../../../shaders/variants/loss_terms_hits.wesl?raw";
import lossTermsPartial from "../../../shaders/variants/loss_terms_partial.wesl?raw";
import lossTermsRows from "../../../shaders/variants/loss_terms_rows.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import type { Binding } from "../../types.ts";
import { INDICES } from "../embedding.ts";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";
import { CLASS_WEIGHTS, classWeightModules } from "./cross_entropy.ts";
import { type ElementLoss, elementLossConstants, elementLossModules } from "./element_losses.ts";

/** What is summed: losses of elements or rows, what rows count, hits, or sums of workgroups. */
export type LossTerms =
  | { readonly of: "elements"; readonly kind: ElementLoss; readonly tensors: Partial<RowAccesses> }
  | { readonly of: "rows" | "counts"; readonly weighted: boolean }
  | { readonly of: "hits" }
  | { readonly of: "partial" };

export interface LossSumChoice {
  /** Whether losses are summed, and what they count. */
  readonly loss: boolean;
  readonly counted: boolean;
  /** Whether both sums are the result, as whole numbers. */
  readonly counts?: boolean;
  /** Whether the sum is complete after the kernel. */
  readonly whole: boolean;
}

const read = (binding: number, name: string): Binding => ({
  binding,
  name,
  type: "read-only-storage",
});

/** The modules, constants and bindings of the terms. */
function termsOf(terms: LossTerms): Pick<RowSpecialisation, "modules" | "constants" | "bindings"> {
  const slot = (name: string, text: string): ModuleMap => ({
    "package::slots::loss_terms": { name: `variants/${name}.wesl`, text },
  });
  if (terms.of === "elements") {
    return {
      modules: {
        ...elementLossModules(terms.kind),
        "package::lib::row_lanes": rowLanesModule,
        "package::slots::loss_terms": lossTerms,
      },
      constants: elementLossConstants(terms.tensors),
    };
  }
  if (terms.of === "partial") {
    const modules = slot("loss_terms_partial", lossTermsPartial);
    return { modules, constants: {}, bindings: [read(10, "partials")] };
  }
  const indices = { "package::lib::row_index": rowIndex };
  if (terms.of === "hits") {
    const modules = { ...indices, ...slot("loss_terms_hits", lossTermsHits) };
    return { modules, constants: {}, bindings: [INDICES, read(10, "predicted")] };
  }
  const counts = {
    ...indices,
    "package::lib::row_counts": rowCounts,
    ...classWeightModules(terms.weighted),
  };
  const weights = terms.weighted ? [CLASS_WEIGHTS] : [];
  if (terms.of === "counts") {
    const modules = { ...counts, ...slot("loss_terms_counts", lossTermsCounts) };
    return { modules, constants: {}, bindings: [INDICES, ...weights] };
  }
  const modules = { ...counts, ...slot("loss_terms_rows", lossTermsRows) };
  return { modules, constants: {}, bindings: [INDICES, read(10, "row_losses"), ...weights] };
}

export function lossSumsSpecialisation(
  terms: LossTerms,
  { loss, counted, counts = false, whole }: LossSumChoice,
): RowSpecialisation {
  const { modules, constants, bindings = [] } = termsOf(terms);
  const weighted = "weighted" in terms && terms.weighted ? ", weighted" : "";
  return {
    tensors: terms.of === "elements" ? terms.tensors : {},
    variant: `${terms.of}${terms.of === "elements" ? ` ${terms.kind}` : ""}${weighted}`,
    constants: { ...constants, LOSS: loss, COUNTED: counted, COUNTS: counts, WHOLE: whole },
    modules: {
      "package::loss_sums": lossSums,
      "package::lib::carried_sum": carriedSum,
      "package::lib::finite": finite,
      "package::lib::loss_terms": lossTermsModule,
      "package::lib::workgroup_sum": workgroupSum,
      ...modules,
    },
    bindings: [...bindings, { binding: 13, name: "sums", type: "storage" }],
  };
}

/** Lanes of a workgroup. */
const SUM_LANES = 256;
/** Items that a lane adds before other workgroups share the sum. */
const LANE_ITEMS = 8;
/** Numbers of the sums of one workgroup. */
export const PARTIAL_NUMBERS = 16;

/**
 * Workgroups that share a sum of so many items. They are 256 at most, so that one more workgroup
 * adds what they have found with an item a lane.
 */
export const sumWorkgroups = (items: number): number =>
  Math.min(SUM_LANES, Math.max(1, Math.ceil(items / (SUM_LANES * LANE_ITEMS))));
