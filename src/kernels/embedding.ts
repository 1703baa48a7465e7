// The kernel that takes rows of a table, shaders/embedding.wesl: what is compiled.

import embedding from "../../shaders/embedding.wesl?raw";
import invocation from "../../shaders/lib/invocation.wesl?raw";
import rowIndex from "../../shaders/lib/row_index.wesl?raw";
import rowVec4s from "../../shaders/lib/row_vec4s.wesl?raw";
import type { Binding } from "../types.ts";
import type { RowAccesses, RowSpecialisation } from "./rows.ts";

/** The binding of a whole number for each row. */
export const INDICES: Binding = { binding: 9, name: "indices", type: "read-only-storage" };

export const embeddingSpecialisation = (tensors: RowAccesses): RowSpecialisation => ({
  tensors,
  constants: {},
  modules: {
    "package::embedding": embedding,
    "package::lib::invocation": invocation,
    "package::lib::row_index": rowIndex,
    "package::lib::row_vec4s": rowVec4s,
  },
  bindings: [INDICES],
});
