// The kernel of the cross-entropy of rows, shaders/cross_entropy.wesl: what is compiled.

import crossEntropy from "../../../shaders/cross_entropy.wesl?raw";
import rowEntries from "../../../shaders/lib/row_entries.wesl?raw";
import rowIndex from "../../../shaders/lib/row_index.wesl?raw";
import rowLanesModule from "../../../shaders/lib/row_lanes.wesl?raw";
import rowSums from "../../../shaders/lib/row_sums.wesl?raw";
import rowTargets from "../../../shaders/lib/row_targets.wesl?raw";
import rowTotals from "../../../shaders/lib/row_totals.wesl?raw";
import classWeight from "../../../shaders/slots/class_weight.wesl?raw";
import logitGradients from "../../../shaders/slots/logit_gradients.wesl?raw";
import rowLoss from "../../../shaders/slots/row_loss.wesl?raw";
import classWeightStored from "../../../shaders/variants/class_weight_stored.wesl?raw";
import logitGradientsStored from "../../../shaders/variants/logit_gradients_stored.wesl?raw";
import rowLossStored from "../../../shaders/variants/row_loss_stored.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import type { Binding } from "../../types.ts";
import { INDICES } from "../embedding.ts";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";

export interface CrossEntropyChoice {
  /** Lanes that share a row. */
  readonly lanes: number;
  /** Whether rows lie side by side in memory. */
  readonly rowsAdjacent: boolean;
  /** Whether targets have a share of every class. */
  readonly smoothed: boolean;
  /** Whether classes have weights. */
  readonly weighted: boolean;
  /** Whether the losses of rows are written. */
  readonly loss: boolean;
}

/** The module of what classes weigh. */
export const classWeightModules = (weighted: boolean): ModuleMap => ({
  "package::slots::class_weight": weighted
    ? { name: "variants/class_weight_stored.wesl", text: classWeightStored }
    : classWeight,
});

/** The binding of the weights of classes. */
export const CLASS_WEIGHTS: Binding = {
  binding: 11,
  name: "weights_of_classes",
  type: "read-only-storage",
};

/** @param tensors Gradients are written if there is an `o`. */
export const crossEntropySpecialisation = (
  tensors: Partial<RowAccesses>,
  { lanes, rowsAdjacent, smoothed, weighted, loss }: CrossEntropyChoice,
): RowSpecialisation => ({
  tensors,
  variant: `${loss ? "loss" : ""}${weighted ? " of weighted classes" : ""}`,
  constants: { LANES: lanes, ROWS_ADJACENT: rowsAdjacent, SMOOTHED: smoothed },
  modules: {
    "package::cross_entropy": crossEntropy,
    "package::lib::row_entries": rowEntries,
    "package::lib::row_index": rowIndex,
    "package::lib::row_lanes": rowLanesModule,
    "package::lib::row_sums": rowSums,
    "package::lib::row_targets": rowTargets,
    "package::lib::row_totals": rowTotals,
    ...classWeightModules(weighted),
    "package::slots::logit_gradients": tensors.o
      ? { name: "variants/logit_gradients_stored.wesl", text: logitGradientsStored }
      : logitGradients,
    "package::slots::row_loss": loss
      ? { name: "variants/row_loss_stored.wesl", text: rowLossStored }
      : rowLoss,
  },
  bindings: [
    INDICES,
    ...(loss ? [{ binding: 10, name: "losses", type: "storage" } as const] : []),
    ...(weighted ? [CLASS_WEIGHTS] : []),
    ...(tensors.o ? [{ binding: 12, name: "divisors", type: "read-only-storage" } as const] : []),
  ],
});
