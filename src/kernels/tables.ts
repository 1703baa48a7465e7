// The copy kernel of the tables, shaders/tables.wesl: its bindings, the struct that it reads and its grid.

import tables from "../../shaders/tables.wesl?raw";
import { link } from "../shader/link.ts";
import type { KernelSource, TensorSpec } from "../types.ts";

const WG_SIZE = 64;

/** The members of the struct, in order; all u32. A test compares them with the shader. */
export const COPY = ["rows", "columns", "base", "stride_row", "stride_column", "at"] as const;

export const TABLES_MODULES = { "package::tables": tables };

let linked: KernelSource | undefined;

/** The linked kernel: there is one. */
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

/** The struct's bytes for a tensor of one or two axes, `base` elements into its binding, that goes to word `at`. */
export function packCopy({ shape, strides }: Required<TensorSpec>, base: number, at: number): Uint32Array {
  const [rows, columns] = shape.length === 2 ? shape : [1, shape[0]];
  const [stride_row, stride_column] = strides.length === 2 ? strides : [0, strides[0]];
  const copy: Record<(typeof COPY)[number], number> = { rows, columns, base, stride_row, stride_column, at };
  return Uint32Array.from(COPY, (member) => copy[member]);
}

export const tablesWorkgroups = (elements: number): number => Math.ceil(elements / WG_SIZE);
