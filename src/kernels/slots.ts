// The slots of the attention kernels: which module fills each for a problem, and the bindings that it brings.

import kvStrided from "../../shaders/variants/kv_strided.wesl?raw";
import lseStored from "../../shaders/variants/lse_stored.wesl?raw";
import outputStrided from "../../shaders/variants/output_strided.wesl?raw";
import queryStrided from "../../shaders/variants/query_strided.wesl?raw";
import sequenceBatch from "../../shaders/variants/sequence_batch.wesl?raw";
import type { ModuleMap } from "../shader/link.ts";
import type { Binding } from "../types.ts";

/** What the slots of a kernel depend on. Lengths and strides are not among it. */
export interface SlotChoice {
  /** Rows of q, of k and v, and of the output are sequences of aligned vec4s. */
  readonly denseQ: boolean;
  readonly denseKv: boolean;
  readonly denseO: boolean;
  /** Key lengths or query offsets differ between batch entries and are read from buffers. */
  readonly perBatch: boolean;
  /** The log-sum-exp is written. */
  readonly lse: boolean;
}

/** Modules that replace defaults. */
export function slotModules({ denseQ, denseKv, denseO, perBatch, lse }: SlotChoice): ModuleMap {
  return {
    ...(!denseQ && { "package::slots::query": { name: "variants/query_strided.wesl", text: queryStrided } }),
    ...(!denseKv && { "package::slots::kv": { name: "variants/kv_strided.wesl", text: kvStrided } }),
    ...(!denseO && { "package::slots::output": { name: "variants/output_strided.wesl", text: outputStrided } }),
    ...(perBatch && { "package::slots::sequence": { name: "variants/sequence_batch.wesl", text: sequenceBatch } }),
    ...(lse && { "package::slots::lse": { name: "variants/lse_stored.wesl", text: lseStored } }),
  };
}

/** The bindings of a kernel that reads q, k and v and writes o. */
export function slotBindings({ perBatch, lse }: SlotChoice): Binding[] {
  const bindings: Binding[] = [
    { binding: 0, name: "params", type: "uniform" },
    { binding: 1, name: "q", type: "read-only-storage" },
    { binding: 2, name: "k", type: "read-only-storage" },
    { binding: 3, name: "v", type: "read-only-storage" },
  ];
  if (perBatch) {
    bindings.push({ binding: 4, name: "kv_lengths", type: "read-only-storage" });
    bindings.push({ binding: 5, name: "query_offsets", type: "read-only-storage" });
  }
  bindings.push({ binding: 6, name: "o", type: "storage" });
  if (lse) bindings.push({ binding: 7, name: "lse", type: "storage" });
  return bindings;
}
