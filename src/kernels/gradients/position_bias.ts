// The kernels of the gradients of a position bias: sums over rows for a bias and its gates, and
// shaders/bias_diagonals_backward.wesl and bias_table_backward.wesl for a table. What is compiled.

import biasDiagonals from "../../../shaders/bias_diagonals_backward.wesl?raw";
import biasTable from "../../../shaders/bias_table_backward.wesl?raw";
import biasGates from "../../../shaders/lib/bias_gates.wesl?raw";
import distanceBucket from "../../../shaders/slots/distance_bucket.wesl?raw";
import distanceBucketStored from "../../../shaders/variants/distance_bucket_stored.wesl?raw";
import rowTermsBias from "../../../shaders/variants/row_terms_bias.wesl?raw";
import type { ModuleMap } from "../../shader/link.ts";
import { type RowSumsChoice, rowSumsSpecialisation } from "./row_sums.ts";
import type { GradientAccesses, RowGradientSpecialisation } from "./rows.ts";

/** What can be summed over rows, as shaders/variants/row_terms_bias.wesl numbers it. */
export const BIAS_TERMS = { dBias: 0, dUpdate: 1, dReset: 2, dScale: 3 } as const;

const BUCKETS = { binding: 10, name: "buckets", type: "read-only-storage" } as const;
const bucketModule = (stored: boolean): ModuleMap => ({
  "package::slots::distance_bucket": stored
    ? { name: "variants/distance_bucket_stored.wesl", text: distanceBucketStored }
    : distanceBucket,
});

/** The kernel of the sums for a bias and its gates. `byBuckets`: the bias comes from a table. */
export const biasSumsSpecialisation = (
  tensors: GradientAccesses,
  choice: RowSumsChoice,
  byBuckets: boolean,
): RowGradientSpecialisation =>
  rowSumsSpecialisation(tensors, choice, {
    constants: { BUCKETS: byBuckets, GATED: tensors.residual !== undefined },
    modules: {
      ...bucketModule(byBuckets),
      "package::lib::bias_gates": biasGates,
      "package::slots::row_terms": { name: "variants/row_terms_bias.wesl", text: rowTermsBias },
    },
    bindings: byBuckets ? [BUCKETS] : [],
    variant: "bias",
  });

/** The kernel of the sums over diagonals. */
export const biasDiagonalsSpecialisation = (
  tensors: GradientAccesses,
): RowGradientSpecialisation => ({
  tensors,
  constants: { GATED: tensors.residual !== undefined },
  modules: {
    "package::bias_diagonals_backward": biasDiagonals,
    "package::lib::bias_gates": biasGates,
  },
  bindings: [{ binding: 9, name: "diagonals", type: "storage" }],
});

/** The kernel that adds the diagonals of each bucket. */
export const biasTableSpecialisation = (o: GradientAccesses["o"]): RowGradientSpecialisation => ({
  tensors: { o },
  constants: {},
  modules: { "package::bias_table_backward": biasTable, ...bucketModule(true) },
  bindings: [{ binding: 9, name: "diagonals", type: "read-only-storage" }, BUCKETS],
});
