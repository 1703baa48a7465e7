// The kernel that takes rows of a table, shaders/embedding.wesl: what is compiled.

import embedding from "../../shaders/embedding.wesl?raw";
import invocation from "../../shaders/lib/invocation.wesl?raw";
import rowIndex from "../../shaders/lib/row_index.wesl?raw";
import rowVec4s from "../../shaders/lib/row_vec4s.wesl?raw";
import type { ModuleSource } from "../shader/link.ts";
import { asReadRows } from "../shader/renames_operands.ts";
import type { Binding } from "../types.ts";
import type { WeightIntegers } from "./matmul.ts";
import { QUANTISED_ROWS } from "./quantised_rows.ts";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

/** The binding of a whole number for each row. */
export const INDICES: Binding = { binding: 9, name: "indices", type: "read-only-storage" };

/** The slot of a source whose rows are integers with scales. */
const integerRows = (bits: WeightIntegers["bits"]): ModuleSource => ({
  ...QUANTISED_ROWS[bits],
  name: `${QUANTISED_ROWS[bits].name} as source`,
  rename: {
    ...asReadRows("source", 1),
    names: { ...asReadRows("source", 1).names, Q_GROUP: "SOURCE_GROUP" },
  },
});

export const embeddingSpecialisation = (
  tensors: RowAccesses,
  quantised?: WeightIntegers,
): RowSpecialisation => ({
  tensors,
  constants: quantised ? { SOURCE_GROUP: quantised.group } : {},
  variant: quantised && `int${quantised.bits}`,
  modules: {
    "package::embedding": embedding,
    "package::lib::invocation": invocation,
    "package::lib::row_index": rowIndex,
    "package::lib::row_vec4s": rowVec4s,
    ...(quantised && { "package::slots::row_source": integerRows(quantised.bits) }),
  },
  bindings: [INDICES],
});
