// The copy kernel of the tables, shaders/tables.wesl: its bindings, the struct that it reads and
// its grid.

import tables from "../../shaders/tables.wesl?raw";
import { link } from "../shader/link.ts";
import type { KernelSource, TensorSpec } from "../types.ts";
import { UniformStruct } from "./uniform.ts";

const WG_SIZE = 64;

/** The uniform. */
export const COPY = new UniformStruct(tables, "Copy");

export const TABLES_MODULES = { "package::tables": tables };

let linked: KernelSource | undefined;

/** The linked kernel. There is only one. */
export function tablesKernel(): KernelSource {
  linked ??= {
    label: "tables",
    ...link("package::tables", TABLES_MODULES),
    bindings: [
      { binding: 0, name: "copy", type: "uniform" },
      { binding: 1, name: "source", type: "read-only-storage" },
      { binding: 2, name: "tables", type: "storage" },
    ],
  };
  return linked;
}

/**
 * The uniform for a tensor of one or two axes, `base` elements into its binding, that goes to word
 * `at`.
 */
export function copyValues({ shape, strides }: Required<TensorSpec>, base: number, at: number) {
  const [rows, columns] = shape.length === 2 ? shape : [1, shape[0]];
  const [stride_row, stride_column] = strides.length === 2 ? strides : [0, strides[0]];
  return { rows, columns, base, stride_row, stride_column, at };
}

export const tablesWorkgroups = (elements: number): number => Math.ceil(elements / WG_SIZE);
