// What options of scores are once they are checked: what the files that make plans read of them.

import type {
  MaskFunction,
  ProbabilityFunction,
  ScoreFunction,
} from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { SimilarityChoice, SlotChoice } from "../kernels/slots.ts";
import type { Operands } from "../plan/operand.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import type { Dropout, ScoreOptions } from "./options.ts";

/** A part of the tables. */
export interface Table {
  /** The member of the params that says where it lies. */
  readonly at: keyof Params & `${string}_at`;
  /** The caller's name for it: an option, and a binding if the values are a tensor. */
  readonly name: string;
  readonly dtype: "i32" | "f32";
  /**
   * Numbers, a tensor to copy them from in every run, or how many words a kernel of the plan will
   * write.
   */
  readonly values: readonly number[] | Tensor | { readonly reserved: number };
  /**
   * Elements from a batch entry or head to the next, where those differ, and the member of the
   * params that says so.
   */
  readonly stride?: readonly [member: keyof Params, elements: number];
}

/** Where the tables lie, as the params say it. */
export type TablePlaces = Partial<Params>;

/** A tensor whose elements have to be copied into the tables in every run. */
export interface TableCopy {
  readonly from: string;
  /** Word of the tables. */
  readonly at: number;
}

/**
 * A checked similarity: the numbers that kernels take from the params, and what their text depends
 * on.
 */
export type ResolvedSimilarity = {
  readonly eps: number;
  readonly innerScale: number;
  readonly maxTemperature: number;
  readonly temperature: "plain" | "log" | undefined;
} & (
  | { readonly kind: "dot" }
  | { readonly kind: SimilarityChoice["kind"]; readonly choice: SimilarityChoice }
);

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
  /**
   * Where entries have lengths or positions of their own; `"packed"`: where they lie one after the
   * other.
   */
  readonly sequence: "batch" | "packed" | undefined;
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
  readonly mask: ResolvedSpec | undefined;
  readonly bias: ResolvedSpec | undefined;
  readonly similarity: ResolvedSimilarity;
  readonly softcap: number | undefined;
  readonly dropout: Dropout | undefined;
  readonly scoreFunction: ScoreFunction | undefined;
  readonly maskFunction: MaskFunction | undefined;
  readonly blockMask: BlockMask | undefined;
  /** Small tables, by the member of the params that says where each lies. */
  readonly tables: readonly Table[];
}

/** Sizes of q and k. */
export interface TensorSizes {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly rowsQ: number;
  readonly rowsKv: number;
  /** Rows of all heads and entries of q, and those of k, wherever they lie. */
  readonly normRows: { readonly q: number; readonly k: number };
}

/** What plans need for the options that few problems have. */
export interface PlanExtension {
  /** Adds the captured tensors by their names, and gives captured numbers as uniforms hold them. */
  capturesOf(
    device: GPUDevice,
    label: string,
    problem: ScoreOptions & { readonly probabilityFunction?: ProbabilityFunction },
    add: (name: string, spec: Tensor, fallback: Tensor) => void,
  ): (readonly [name: string, bytes: ArrayBuffer])[];
  extendedSlots(features: Features): Partial<SlotChoice>;
  extendedParams(features: Features, operands: Operands): Partial<Params>;
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
