// The kernel that finds the largest element of rows, shaders/row_argmax.wesl: what is compiled.

import finite from "../../../shaders/lib/finite.wesl?raw";
import rowLanesModule from "../../../shaders/lib/row_lanes.wesl?raw";
import rowArgmax from "../../../shaders/row_argmax.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";

export const argmaxSpecialisation = (
  tensors: Partial<RowAccesses>,
  { lanes, rowsAdjacent }: { readonly lanes: number; readonly rowsAdjacent: boolean },
): RowSpecialisation => ({
  tensors,
  constants: { LANES: lanes, ROWS_ADJACENT: rowsAdjacent },
  modules: {
    "package::row_argmax": rowArgmax,
    "package::lib::finite": finite,
    "package::lib::row_lanes": rowLanesModule,
  },
  bindings: [{ binding: 10, name: "largest", type: "storage" }],
});
