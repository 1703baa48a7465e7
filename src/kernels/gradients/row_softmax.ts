// The kernel of the gradient of the softmax of rows, shaders/row_softmax_backward.wesl: what is
// compiled.

import rowEntries from "../../../shaders/lib/row_entries.wesl?raw";
import rowSoftmaxBackward from "../../../shaders/row_softmax_backward.wesl?raw";
import type { SoftmaxChoice } from "../row_softmax.ts";
import type { GradientAccesses, RowGradientSpecialisation } from "./rows.ts";

export const softmaxBackwardSpecialisation = (
  tensors: GradientAccesses,
  { lanes, rowsAdjacent, logarithm }: SoftmaxChoice,
): RowGradientSpecialisation => ({
  tensors,
  constants: { LANES: lanes, ROWS_ADJACENT: rowsAdjacent, LOGARITHM: logarithm },
  modules: {
    "package::row_softmax_backward": rowSoftmaxBackward,
    "package::lib::row_entries": rowEntries,
  },
});
