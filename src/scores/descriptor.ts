// The types that the descriptors of all options of scores share.

import type { AttentionFunction } from "../functions/attention_function.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import type { Operands } from "../plan/operand.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import type { CachedKeys } from "./cached_keys.ts";
import type { TakenScores } from "./options.ts";

/** Sizes of the scores: those of the largest batch entry. */
export interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly seqKv: number;
}

/** Sizes of q and k. */
export interface TensorSizes {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly rowsQ: number;
  readonly rowsKv: number;
  /** Rows of all heads and entries of q, and of k. */
  readonly normRows: { readonly q: number; readonly k: number };
}

/** A problem of scores as a caller gives it. */
export interface GivenScores {
  readonly label: string;
  readonly options: TakenScores;
  readonly tensors: TensorSizes;
  /** The cache that the keys are in. */
  readonly cache: CachedKeys | undefined;
}

/** A small table of a problem. All of them share one buffer. */
export interface Table {
  /** The member of the params that says where the table lies. */
  readonly at: keyof Params & `${string}_at`;
  /** The caller's name of the table: an option, and a binding if the values are a tensor. */
  readonly name: string;
  readonly dtype: "i32" | "f32";
  /**
   * Numbers, a tensor to copy them from in every run, or how many words a kernel of the plan will
   * write.
   */
  readonly values: readonly number[] | Tensor | { readonly reserved: number };
}

/** Checked lengths and positions of batch entries. */
export interface ResolvedEntries {
  /**
   * Set if entries differ in lengths or positions and are not those of a cache. `"packed"` says
   * that they lie one after the other.
   */
  readonly kind: "batch" | "packed" | undefined;
  /** Whether the queries of entries lie one after the other. */
  readonly packed: boolean;
  readonly sizes: Sizes;
  readonly tables: readonly Table[];
}

/** A problem as a descriptor sees it. */
export interface DescribedProblem extends GivenScores {
  readonly sizes: Sizes;
  readonly entries: ResolvedEntries;
  /**
   * Position of the first query. It doesn't count if the last query stands at the last key
   * (`alignEnd`), or if tables give the positions of entries.
   */
  readonly offset: number;
  readonly alignEnd: boolean;
}

/**
 * How much of plain attention an option leaves as it is.
 *
 * - `"all"`: every kernel knows the option.
 * - `"scores"`: scores are still products with a scale and a temperature, masked by positions only,
 *   but not every kernel has the option.
 * - `"nothing"`: scores are computed in another way.
 */
export type Keeps = "all" | "scores" | "nothing";

/** What a plan needs for an option that its problem has. */
export interface OptionParts {
  readonly keeps: Keeps;
  /** Set if the option bounds the scores, however large the scale is. */
  readonly bounds?: true;
  /** What the option adds to the choice of the kernels' slots. */
  readonly slots?: Partial<SlotChoice>;
  readonly tables?: readonly Table[];
  /** The members of the uniform that belong to the option, beside the places of its tables. */
  readonly params?: (operands: Operands) => Partial<Params>;
  /** A tensor that the kernels bind, under the plan's name. */
  readonly operand?: {
    readonly name: string;
    readonly spec: ResolvedSpec;
    readonly fallback: Tensor | undefined;
  };
  /** A function that the kernels call, with its captures. */
  readonly calls?: AttentionFunction;
  /**
   * The option's name in tuning. Default: the names of its tables, or of the option if it has none.
   */
  readonly word?: string;
}

/** An option that a problem has. */
export interface PresentOption extends OptionParts {
  readonly name: string;
}

/**
 * A descriptor checks an option of a problem, and gives what plans need for it, or undefined if the
 * problem does not have it. Throws FoveaError that names the option.
 */
export type Descriptor = (problem: DescribedProblem) => OptionParts | undefined;
