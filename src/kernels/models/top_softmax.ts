// The kernel that weighs the largest elements of rows, shaders/top_softmax.wesl: what is compiled.

import invocation from "../../../shaders/lib/invocation.wesl?raw";
import topSoftmax from "../../../shaders/top_softmax.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "../rows.ts";

/** Rows of a workgroup, each of an invocation. */
export const ROWS_OF_WORKGROUP = 64;

export const topSoftmaxSpecialisation = (tensors: RowAccesses): RowSpecialisation => ({
  tensors,
  constants: {},
  modules: {
    "package::top_softmax": topSoftmax,
    "package::lib::invocation": invocation,
  },
});
