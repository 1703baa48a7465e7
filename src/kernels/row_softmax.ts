// The kernel of the softmax of rows, shaders/row_softmax.wesl: what is compiled.

import rowEntries from "../../shaders/lib/row_entries.wesl?raw";
import rowLanesModule from "../../shaders/lib/row_lanes.wesl?raw";
import rowTotals from "../../shaders/lib/row_totals.wesl?raw";
import rowSoftmax from "../../shaders/row_softmax.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

export interface SoftmaxChoice {
  /** Lanes that share a row. */
  readonly lanes: number;
  /** Whether rows lie side by side in memory. */
  readonly rowsAdjacent: boolean;
  readonly logarithm: boolean;
}

export const softmaxSpecialisation = (
  tensors: RowAccesses,
  { lanes, rowsAdjacent, logarithm }: SoftmaxChoice,
): RowSpecialisation => ({
  tensors,
  constants: { LANES: lanes, ROWS_ADJACENT: rowsAdjacent, LOGARITHM: logarithm },
  modules: {
    "package::row_softmax": rowSoftmax,
    "package::lib::row_entries": rowEntries,
    "package::lib::row_lanes": rowLanesModule,
    "package::lib::row_totals": rowTotals,
  },
});
