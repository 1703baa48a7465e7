// The kernel that makes integers of weights, shaders/quantise.wesl: what is compiled.

import invocation from "../../../shaders/lib/invocation.wesl?raw";
import quantiseRows from "../../../shaders/lib/quantise.wesl?raw";
import quantise from "../../../shaders/quantise.wesl?raw";
import type { Access } from "../access.ts";
import type { WeightIntegers } from "../matmul.ts";
import type { RowSpecialisation } from "../rows.ts";

export const quantiseSpecialisation = (
  source: Access,
  { bits, group }: WeightIntegers,
): RowSpecialisation => ({
  tensors: { source },
  constants: { INTEGER_BITS: bits, SOURCE_GROUP: group },
  modules: {
    "package::quantise": quantise,
    "package::lib::invocation": invocation,
    "package::lib::quantise": quantiseRows,
  },
  bindings: [{ binding: 10, name: "words", type: "storage" }],
});
