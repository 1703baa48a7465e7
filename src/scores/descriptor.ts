// What an option of scores is made of, for whatever reads problems: the types that all descriptors
// share.

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
  /** Rows of all heads and entries of q, and those of k, wherever they lie. */
  readonly normRows: { readonly q: number; readonly k: number };
}

/** Scores as somebody asks for them. */
export interface GivenScores {
  readonly label: string;
  readonly options: TakenScores;
  readonly tensors: TensorSizes;
  /** The cache that the keys are in. */
  readonly source: CachedKeys | undefined;
}

/** A small table of a problem. All of them share one buffer. */
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
}

/** Lengths and positions of batch entries, once they are checked. */
export interface ResolvedEntries {
  /**
   * Entries differ in lengths or positions, and are not those of a cache; `"packed"`: they lie one
   * after the other.
   */
  readonly kind: "batch" | "packed" | undefined;
  /** Queries of entries lie one after the other. */
  readonly packed: boolean;
  readonly sizes: Sizes;
  readonly tables: readonly Table[];
}

/** A problem as a descriptor sees it. */
export interface DescribedProblem extends GivenScores {
  readonly sizes: Sizes;
  readonly entries: ResolvedEntries;
  /**
   * Position of the first query, unless the last one stands at the last key (`alignEnd`) or tables
   * say where each entry begins.
   */
  readonly offset: number;
  readonly alignEnd: boolean;
}

/**
 * What an option leaves of plain attention.
 *
 * - `"all"`: every kernel knows the option.
 * - `"scores"`: scores are still products with a scale and a temperature, masked by their places
 *   only, but not every kernel knows what happens around them.
 * - `"nothing"`: scores come about in another way.
 */
export type Keeps = "all" | "scores" | "nothing";

/** What a plan needs for an option that its problem has. */
export interface OptionParts {
  readonly keeps: Keeps;
  /** Scores are bounded, however large the scale is. */
  readonly bounds?: true;
  /** What the kernels' slots are filled by. */
  readonly slots?: Partial<SlotChoice>;
  readonly tables?: readonly Table[];
  /** The members of the uniform that are the option's own, beside the places of its tables. */
  readonly params?: (operands: Operands) => Partial<Params>;
  /** A tensor that the kernels bind, by our name of it. */
  readonly operand?: {
    readonly name: string;
    readonly spec: ResolvedSpec;
    readonly fallback: Tensor | undefined;
  };
  /** A function that the kernels call, with what it captures. */
  readonly calls?: AttentionFunction;
  /** What tuning calls it. Default: the names of its tables, or its own. */
  readonly word?: string;
}

/** An option that a problem has. */
export interface PresentOption extends OptionParts {
  readonly name: string;
}

/**
 * A descriptor checks what a problem says of an option, and gives what plans need for it: undefined
 * if the problem does not have it. Throws FoveaError that names the option.
 */
export type Descriptor = (problem: DescribedProblem) => OptionParts | undefined;
