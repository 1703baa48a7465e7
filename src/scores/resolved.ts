// What options of scores are once they are checked: what the files that make plans read of them.

import type { AttentionFunction } from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { SimilarityChoice } from "../kernels/slots.ts";
import type { PresentOption, Table } from "./descriptor.ts";

/** Where the tables lie, as the params say it. */
export type TablePlaces = Partial<Params>;

/** A tensor whose elements have to be copied into the tables in every run. */
export interface TableCopy {
  readonly from: string;
  /** Word of the tables. */
  readonly at: number;
}

/** Everything that a problem says beside its tensors, shapes and scale. */
export interface Features {
  /** Batch entries: the batch axis, or the number of sequences that lie one after the other. */
  readonly batch: number;
  /** Rows of the longest entry. */
  readonly seqQ: number;
  readonly seqKv: number;
  /** The most keys that a query may have to look at. */
  readonly mostKeys: number;
  /** Rows of the tensors. */
  readonly totalQ: number;
  readonly totalKv: number;
  /** Queries of entries lie one after the other. */
  readonly packed: boolean;
  /**
   * The last query stands at the last key; otherwise the first one at `offset`, or where a table
   * says.
   */
  readonly alignEnd: boolean;
  readonly offset: number;
  /** Keys before and after its own that a query sees; -1 for all. Causal is 0 after. */
  readonly window: readonly [left: number, right: number];
  /** Keys of a chunk; 0 for none. */
  readonly chunk: number;
  /** First keys that window and chunk do not hide. */
  readonly sinkTokens: number;
  /** What stands in for the dot product; undefined for the dot product itself. */
  readonly similarity: SimilarityChoice | undefined;
  readonly blockMask: BlockMask | undefined;
  /** The options beyond those above that the problem has. */
  readonly options: readonly PresentOption[];
}

/** What plans need for the options that few problems have. */
export interface PlanExtension {
  /** Adds the captured tensors by their names, and gives captured numbers as uniforms hold them. */
  capturesOf(
    device: GPUDevice,
    label: string,
    functions: readonly AttentionFunction[],
    add: (name: string, spec: Tensor, fallback: Tensor) => void,
  ): (readonly [name: string, bytes: ArrayBuffer])[];
  layTables(tables: readonly Table[]): {
    readonly words: number[];
    readonly places: TablePlaces;
    readonly tensors: readonly {
      readonly from: string;
      readonly values: Tensor;
      readonly at: number;
    }[];
  };
}
