// The kernel of biases in memory, shaders/position_bias.wesl: what is compiled.

import positionBias from "../../shaders/position_bias.wesl?raw";
import buckets from "../../shaders/slots/buckets.wesl?raw";
import bucketsStored from "../../shaders/variants/buckets_stored.wesl?raw";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

/**
 * What the text depends on. `byBuckets` says that the source is a table, and not the bias itself.
 */
export const positionBiasSpecialisation = (
  tensors: RowAccesses,
  byBuckets: boolean,
): RowSpecialisation => ({
  tensors,
  constants: { BUCKETS: byBuckets, GATED: tensors.residual !== undefined },
  modules: {
    "package::position_bias": positionBias,
    "package::slots::buckets": byBuckets
      ? { name: "variants/buckets_stored.wesl", text: bucketsStored }
      : buckets,
  },
  ...(byBuckets && { bindings: [{ binding: 9, name: "buckets", type: "read-only-storage" }] }),
});
