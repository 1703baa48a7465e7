// The vocabulary: shapes, dtypes, layouts, and what a kernel is. No code that runs.

/** Element types of a tensor. */
export type Dtype = "f32" | "f16" | "bf16" | "u32" | "i32" | "u8";

/** Element types of attention's inputs and outputs. */
export type FloatDtype = "f32" | "f16" | "bf16";

/**
 * The order of the axes of a 4-D tensor: B batch, H heads, M (queries) or N (keys) sequence, D head
 * dim. A layout says how shapes and strides are read; nothing is ever copied to get from one to the
 * other.
 */
export type Layout = "bhmd" | "bmhd";

/** Where the elements of a tensor lie in its buffer. Strides and offset count elements. */
export interface TensorSpec {
  readonly shape: readonly number[];
  /** Elements from one index to the next along each axis. Default: dense, last axis fastest. */
  readonly strides?: readonly number[];
  /** Elements before the first one. Default 0. */
  readonly offset?: number;
  /** Default `"f32"`. */
  readonly dtype?: Dtype;
}

/**
 * Where a causal mask puts the queries among the keys. A query at position p sees the keys 0..p.
 *
 * ```
 * M = 2 queries, N = 5 keys      "bottom-right"        "top-left"
 *                                 x x x x .             x . . . .
 *                                 x x x x x             x x . . .
 * ```
 */
export type CausalAlignment = "bottom-right" | "top-left";

/** The mask and the scale: what softmax(scale * Q K^T + mask) V leaves open. */
export interface MaskOptions<PerBatch> {
  /**
   * Query i stands at position p = i + offset and sees the keys 0..p. `true` means
   * `"bottom-right"`: the last query stands at the last key (offset = key length - M, for each
   * batch entry by its own key length; the FlashAttention rule). `"top-left"` is offset 0. Default
   * `false`: every query sees every key.
   */
  readonly causal?: boolean | CausalAlignment | null;
  /**
   * Position of the first query, for all batch entries or one each; may be negative. Replaces the
   * alignment.
   */
  readonly queryOffset?: number | PerBatch;
  /**
   * Keys of each batch entry, counted from the first; the rest is padding and is never read.
   * Default N for all.
   */
  readonly kvLengths?: PerBatch;
  /**
   * Factor of the scores, a number of f32. Default 1 / sqrt(D); of cosine and additive similarity
   * 1. Beyond 2^64 it goes with attention of plain scores, a softcap or normalised rows only.
   */
  readonly scale?: number;
}

/** One binding of a kernel, in group 0. */
export interface Binding {
  readonly binding: number;
  readonly name: string;
  readonly type: "uniform" | "read-only-storage" | "storage";
  /** The binding is a uniform whose offset each dispatch chooses, as it does for binding 0. */
  readonly dynamic?: true;
}

/** A linked kernel. It depends on a problem's constants and not on its lengths. */
export interface KernelSource {
  /** Kernel and variant, for labels and tables: `forward 64x32`. */
  readonly label: string;
  readonly code: string;
  /**
   * Tells where line `line` (from 1) of the code was written. Columns are as written unless the
   * line was rewritten.
   */
  locate(line: number): { module: string; line: number; rewritten?: boolean };
  readonly bindings: readonly Binding[];
}
