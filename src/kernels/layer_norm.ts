// The kernel that normalises rows, shaders/layer_norm.wesl: what is compiled.

import layerNorm from "../../shaders/layer_norm.wesl?raw";
import magnitude from "../../shaders/lib/magnitude.wesl?raw";
import rowLanesModule from "../../shaders/lib/row_lanes.wesl?raw";
import rowSums from "../../shaders/lib/row_sums.wesl?raw";
import rowStatistics from "../../shaders/slots/row_statistics.wesl?raw";
import rowStatisticsStored from "../../shaders/variants/row_statistics_stored.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

export interface LayerNormChoice {
  /** Lanes that share a row, and lanes of a workgroup. */
  readonly lanes: number;
  readonly workgroup: number;
  /** Whether rows lie side by side in memory. */
  readonly rowsAdjacent: boolean;
  /** Whether the mean is subtracted. */
  readonly centred: boolean;
}

export function layerNormSpecialisation(
  tensors: RowAccesses,
  { lanes, workgroup, rowsAdjacent, centred }: LayerNormChoice,
): RowSpecialisation {
  const statistics = tensors.statistics !== undefined;
  return {
    tensors,
    constants: {
      LANES: lanes,
      WORKGROUP: workgroup,
      ROWS_ADJACENT: rowsAdjacent,
      CENTRED: centred,
      RESIDUAL: tensors.residual !== undefined,
      SHIFT: tensors.shift !== undefined,
      WEIGHT: tensors.weight !== undefined,
      BIAS: tensors.bias !== undefined,
      TOTAL: tensors.total !== undefined,
      STATISTICS: statistics,
    },
    modules: {
      "package::layer_norm": layerNorm,
      "package::lib::magnitude": magnitude,
      "package::lib::row_lanes": rowLanesModule,
      "package::lib::row_sums": rowSums,
      "package::slots::row_statistics": statistics
        ? { name: "variants/row_statistics_stored.wesl", text: rowStatisticsStored }
        : rowStatistics,
    },
  };
}
