// The small tables of a problem as they lie in memory: lengths and positions of batch entries,
// slopes and sinks of heads, buckets of distances. They share one buffer, because a kernel may have
// only eight bindings of storage. Numbers are written when the plan is made; tables that a caller
// keeps on the GPU are copied there in every run.

import { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { PerBatch } from "../plan/specs.ts";
import type { Table } from "./descriptor.ts";

/**
 * Lays all tables one after the other: gives the words that are known now, the offset of each
 * table, and the tensors to copy in.
 */
export function layTables(tables: readonly Table[]) {
  const words: number[] = [];
  const places: Partial<Params> = {};
  const tensors: { from: string; values: Tensor; at: number }[] = [];
  const bits = new DataView(new ArrayBuffer(4));
  const wordOf = (value: number, dtype: Table["dtype"]) => {
    if (dtype === "i32") return Math.min(value, 2 ** 31 - 1);
    bits.setFloat32(0, value);
    return bits.getInt32(0);
  };
  for (const { at, name, dtype, values } of tables) {
    places[at] = words.length;
    if ("reserved" in values) {
      for (let i = 0; i < values.reserved; i++) words.push(0);
      continue;
    }
    if (values instanceof Tensor) {
      tensors.push({ from: name, values, at: words.length });
      for (let i = 0; i < values.size; i++) words.push(0);
    } else for (const value of values) words.push(wordOf(value, dtype));
  }
  return { words, places, tensors };
}

export const countOf = (values: PerBatch): number =>
  values instanceof Tensor ? values.size : values.length;
