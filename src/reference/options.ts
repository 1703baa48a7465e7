// What a caller of the reference may say: the options of the engine, with plain arrays and JavaScript functions.

import type { Layout, MaskOptions } from "../types.ts";

/** A tensor on the CPU. Strides and offset count elements; the default is dense, last axis fastest. */
export interface ReferenceTensor {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
  readonly offset?: number;
}

export interface ReferenceOptions extends MaskOptions<ArrayLike<number>> {
  /** Axis order of q, k and v. The results are always [B, H, M, ...]. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Compute only these rows, numbered in [B, H, M]. Default all of them, in order. */
  readonly rows?: ArrayLike<number>;
  /**
   * `"f64"` (default) is the yardstick. `"f32"` rounds every operation to f32, as a plain GPU implementation without
   * fused multiply-adds would: the error that nobody can be blamed for.
   */
  readonly precision?: "f64" | "f32";
}
