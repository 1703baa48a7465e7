// Checked options of scores, as the files that make plans read them.

import type { AttentionFunction } from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { SimilarityChoice } from "../kernels/slots.ts";
import type { PresentOption, Table } from "./descriptor.ts";

/** The members of the params that say where tables lie. */
export type TablePlaces = Partial<Params>;

/** A tensor whose elements have to be copied into the tables in every run. */
export interface TableCopy {
  readonly from: string;
  /** The word of the tables that the copy starts at. */
  readonly at: number;
}

/** The checked options of a problem's scores, without its tensors, shapes and scale. */
export interface ResolvedOptions {
  /** Batch entries: the batch axis, or the number of sequences that lie one after the other. */
  readonly batch: number;
  /** Rows of the longest entry. */
  readonly seqQ: number;
  readonly seqKv: number;
  /** The most keys that a query may have to look at. */
  readonly mostKeys: number;
  /** Rows of q and k in memory, for all entries if they lie one after the other. */
  readonly totalQ: number;
  readonly totalKv: number;
  /** Whether the queries of entries lie one after the other. */
  readonly packed: boolean;
  /**
   * Whether the last query stands at the last key. Otherwise the first one stands at `offset`, or
   * at the position in a table.
   */
  readonly alignEnd: boolean;
  readonly offset: number;
  /**
   * How many keys before and after its own position a query sees; -1 for all. A causal mask is 0
   * after.
   */
  readonly window: readonly [left: number, right: number];
  /** Keys of a chunk; 0 for none. */
  readonly chunk: number;
  /** How many of the first keys are hidden by neither window nor chunk. */
  readonly sinkTokens: number;
  /** The similarity that stands in for the dot product; undefined for the dot product itself. */
  readonly similarity: SimilarityChoice | undefined;
  readonly blockMask: BlockMask | undefined;
  /** The options that few problems have and this one has. */
  readonly options: readonly PresentOption[];
}

/** What plans need for options that few problems have. */
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
