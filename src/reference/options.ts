// The options of the reference: those of the engine, with plain arrays and JavaScript functions.

import type { Layout, MaskOptions } from "../types.ts";

/**
 * A tensor on the CPU. Strides and offset count elements; the default is dense, last axis fastest.
 */
export interface ReferenceTensor {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
  readonly offset?: number;
}

/**
 * The place of a score. In packed sequences queries and keys are counted from the start of their
 * own entry.
 */
export interface ReferencePosition {
  readonly batch: number;
  readonly head: number;
  readonly qIdx: number;
  readonly kvIdx: number;
  /** Where the query stands among the keys: qIdx + offset. */
  readonly position: number;
}

/** A learned bias per head for each bucket of distances (T5, arXiv 1910.10683). */
export interface ReferenceRelativeBias {
  /** [buckets, H], added to the scores unscaled. */
  readonly table: ReferenceTensor;
  /**
   * Half of the buckets for keys after the query. Default `true`; `false` puts all keys after the
   * query into bucket 0.
   */
  readonly bidirectional?: boolean;
  /** From this distance on, all keys share the last bucket. Default 128. */
  readonly maxDistance?: number;
}

/** The derivative of a score by one element of a captured tensor. */
export interface ReferenceCapturedDerivative {
  /** Name of the captured tensor. */
  readonly name: string;
  /** The element, in row-major order. */
  readonly index: number;
  readonly derivative: number;
}

/** What gradients have to know about a score function. */
export interface ReferenceScoreGradient {
  /** The derivative of the function by s. */
  readonly derivative: (s: number, at: ReferencePosition) => number;
  /** How many elements each captured tensor has whose gradient is asked for, by its name. */
  readonly captures?: Readonly<Record<string, number>>;
  /** The elements of captured tensors that a score reads, with the derivatives by each. */
  readonly captured?: (s: number, at: ReferencePosition) => readonly ReferenceCapturedDerivative[];
}

/** Numbers of all columns [D], or of each head and column [H, D]. */
export type ReferenceColumns = ArrayLike<number>;

/** The similarity that stands for q.k: see `Similarity` of the engine. */
export type ReferenceSimilarity =
  | "dot"
  | "cosine"
  | {
      readonly kind: "l2" | "rms";
      readonly eps?: number;
      readonly qWeights?: ReferenceColumns;
      readonly kWeights?: ReferenceColumns;
    }
  | {
      readonly kind: "additive";
      readonly vector?: number | ReferenceColumns;
      readonly innerBias?: ReferenceColumns;
      readonly innerScale?: number;
      readonly normalize?: boolean;
      readonly gain?: number | ArrayLike<number>;
    };

/**
 * Every score is `scale * q.k -> softcap -> scoreFunction -> + bias + relativeBias + ALiBi ->
 * masks`, then softmax and dropout. No option makes a masked key visible, and values of hidden keys
 * are never read.
 */
export interface ReferenceOptions extends MaskOptions<ArrayLike<number>> {
  /** Axis order of q, k and v. The results are always [B, H, M, ...]. Default `"bhmd"`. */
  readonly layout?: Layout;
  /**
   * Compute only these rows, numbered in [B, H, M], packed in [1, H, totalQ]. Default all of them,
   * in order.
   */
  readonly rows?: ArrayLike<number>;
  /**
   * `"f64"` (default) is the yardstick. `"f32"` rounds every operation to f32, as a plain GPU
   * implementation without fused multiply-adds would; its error is the one that f32 itself has.
   */
  readonly precision?: "f64" | "f32";
  /**
   * Rounds scores, probabilities and the output, as an implementation that keeps them in memory
   * would. With `precision: "f32"` this is the plain evaluation in half precision of
   * FlashAttention's rule. Default: nothing is rounded.
   */
  readonly store?: (x: number) => number;
  /** Used queries of each entry; rows past them are like rows without a key. Default M for all. */
  readonly qLengths?: ArrayLike<number>;
  /** A query at position p sees the keys p - left .. p + right. -1 is unbounded on that side. */
  readonly window?: readonly [left: number, right: number] | null;
  /**
   * A query sees the keys of its own chunk of this many positions, chunk 0 starting at position 0.
   */
  readonly attentionChunk?: number | null;
  /** The first keys, which neither window nor chunk hides from later queries. Default 0. */
  readonly sinkTokens?: number;
  /** [B|1, H|1, M|1, N|1], one number per element: non-zero if the query sees the key. */
  readonly mask?: ReferenceTensor;
  /**
   * [B|1, H|1, M|1, N|1]. Only -Infinity masks a key; a finite value, however negative, does not.
   */
  readonly bias?: ReferenceTensor;
  /** softcap * tanh(s / softcap) bounds the scores. Default none; 0 means none, too. */
  readonly softcap?: number | null;
  /**
   * The similarity that stands for q.k. Default: the dot product. With other similarities than
   * `"rms"` the scale is 1 by default.
   */
  readonly similarity?: ReferenceSimilarity;
  /** Factor of the scores of a head: one number for all heads, or one for each. */
  readonly temperature?: number | ArrayLike<number>;
  /** The temperature as min(exp(logTemperature), maxTemperature), by default at most 100. */
  readonly logTemperature?: number | ArrayLike<number>;
  readonly maxTemperature?: number;
  /** [H] or [B, H]: scores lose slope * |p - j|. */
  readonly alibiSlopes?: ArrayLike<number> | ReferenceTensor;
  readonly relativeBias?: ReferenceRelativeBias;
  /** `[H]`: a logit per head that joins the denominator, and so the LSE, and nothing else. */
  readonly sinks?: ArrayLike<number>;
  /**
   * Packed sequences: entry b owns the queries cuSeqlensQ[b] .. cuSeqlensQ[b + 1] of q
   * [1, H, totalQ, D], and its keys by cuSeqlensKv. Options for each query or key number them
   * within the entry.
   */
  readonly cuSeqlensQ?: ArrayLike<number>;
  readonly cuSeqlensKv?: ArrayLike<number>;
  /**
   * Weights are dropped with probability p, kept weights are multiplied by 1 / (1 - p).
   * `dropoutKeeps` says which are kept.
   */
  readonly dropout?: { readonly p: number; readonly seed: number; readonly step?: number };
  readonly scoreFunction?: (s: number, at: ReferencePosition) => number;
  /** Derivatives of the score function, which only gradients need. */
  readonly scoreGradient?: ReferenceScoreGradient;
  /** True where the query sees the key. */
  readonly maskFunction?: (at: ReferencePosition) => boolean;
}
