// What a caller can say of an attention problem, beside its tensors: positions, masks, scores,
// dropout.

import type { MaskFunction, ScoreFunction } from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import type { Numbers, Taken } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { PerBatch, PerHead } from "../plan/specs.ts";
import type { RelativeBias } from "../positions/buckets.ts";
import type { MaskOptions, TensorSpec } from "../types.ts";

/**
 * Numbers for each column of a row, [D], or for each head and column, [H, D]: an array, or an f32
 * tensor.
 */
export type PerColumn = Numbers | Tensor;

/**
 * Rows that are normalised before they meet (QK-norm):
 *
 * ```
 * q.k = sum_d qWeights_d q_d kWeights_d k_d / (|q| |k|)
 * |x| = max(sqrt(sum x_d^2), eps)  for "l2",   sqrt(mean x_d^2 + eps)  for "rms"
 * ```
 *
 * Rows may be of any length that f32 has numbers for, up to a head dim of 65,536; a row of zeros
 * has the score 0. NaN and infinities in a row are NaN in its scores.
 *
 * Sources: Query-Key Normalization (arXiv 2010.04245), Swin Transformer V2 (arXiv 2111.09883),
 * RMSNorm (arXiv 1910.07467).
 */
export interface NormalizedSimilarity {
  readonly kind: "l2" | "rms";
  /** A positive number. Default 1e-12 for `"l2"`, 1e-6 for `"rms"`. */
  readonly eps?: number;
  /** Learned factors of the normalised columns, [D]. Default 1. */
  readonly qWeights?: PerColumn;
  readonly kWeights?: PerColumn;
}

/**
 * Additive attention (Bahdanau, arXiv 1409.0473), of rows that are projected already:
 *
 * ```
 * q.k = sum_d vector_d tanh(innerScale * (q_d + k_d) + innerBias_d)
 * ```
 *
 * tanh is computed to 2e-7, absolute.
 *
 * Keras' `AdditiveAttention` is `vector: scale`. Keras' `Attention` with `score_mode="concat"` is
 * `{ vector: concatWeight, innerScale: scale }`, each a number.
 */
export interface AdditiveSimilarity {
  readonly kind: "additive";
  /** [D] for all heads, [H, D], or one number for all columns. Default 1. */
  readonly vector?: number | PerColumn;
  /** [D] or [H, D]. Default none. */
  readonly innerBias?: PerColumn;
  /** Factor of q + k. Default 1. */
  readonly innerScale?: number;
  /**
   * The vector in use is gain * vector / |vector| for each head (arXiv 1602.07868; TensorFlow's
   * `normalize=True`). A vector of zeros stays one. Elements may be as large as 1e38 / D, for they
   * are summed before they are divided.
   */
  readonly normalize?: boolean;
  /** Goes with `normalize`: a number, or one a head [H]. Default 1. */
  readonly gain?: number | PerHead;
}

/** What stands for q.k in the scores. `"cosine"` is `{ kind: "l2" }`. */
export type Similarity = "dot" | "cosine" | NormalizedSimilarity | AdditiveSimilarity;

/** Options that say what stands for q.k in the scores, and their temperature. */
export interface SimilarityOptions {
  /** What a query and a key are compared by. Default `"dot"`, their dot product. */
  readonly similarity?: Similarity;
  /**
   * Learned factor of the scores of each head [H], beside the scale; or a number for all. Default
   * 1.
   */
  readonly temperature?: number | PerHead;
  /**
   * The same as its natural logarithm, as Swin Transformer V2 learns it: min(exp(logTemperature),
   * maxTemperature).
   */
  readonly logTemperature?: number | PerHead;
  /** Goes with `logTemperature`; up to 2^64, as is a temperature. Default 100. */
  readonly maxTemperature?: number;
}

/** {@link ScoreOptions} as they are read. */
export type TakenScores = Taken<ScoreOptions>;

/**
 * Dropout of the probabilities by a counter-based generator, which a CPU or a backward pass can
 * compute again.
 */
export interface Dropout {
  /** Probability that an element is dropped, 0 to 1. Kept ones count 1 / (1 - p) times. */
  readonly p: number;
  /** A whole number from 0 up to 2^53. The same seed drops the same elements. */
  readonly seed: number;
}

/**
 * How scores come about and which of them count, where q.k stands for what the similarity makes of
 * the two:
 *
 * ```
 * s = scale * temperature * q.k -> softcap -> score function -> + bias + relative bias + ALiBi
 *     -> masks -> softmax -> dropout
 * ```
 *
 * Scores are f32: a NaN that a query sees, of q, k, v, a bias or anything else, makes its row NaN
 * (output, LSE, row maximum), and so does a score of +Infinity, as a product or a sum beyond f32
 * is. Finite scores are kept apart down to the lowest f32, and up to 2.3e38 in size where nothing
 * but the scale changes them.
 *
 * A query sees a key if every mask allows it; the masks win over whatever a bias says. Query i of a
 * batch entry stands at position p = i + offset (see `causal` and `queryOffset`), key j at position
 * j.
 */
export interface ScoreOptions extends MaskOptions<PerBatch>, SimilarityOptions {
  /**
   * Queries in use of each entry (FlashAttention's seqused_q); rows past them give 0, and LSE
   * -Infinity. Default all.
   */
  readonly qLengths?: PerBatch;
  /**
   * Sequences of different lengths one after the other, without padding: entry b owns the rows
   * cuSeqlensQ[b] up to cuSeqlensQ[b + 1] of q and output, and likewise of k and v, whose batch
   * axis is then 1. B + 1 numbers each. Rows of the outputs that no entry owns, such as those past
   * the last one, stay as they were: zeros in a new tensor.
   */
  readonly cuSeqlensQ?: PerBatch;
  /** The same of k and v. */
  readonly cuSeqlensKv?: PerBatch;
  /** Rows of the longest entry, needed where the cumulative lengths are tensors. */
  readonly maxSeqlenQ?: number;
  /** Keys of the longest entry, needed where the cumulative lengths are tensors. */
  readonly maxSeqlenKv?: number;
  /**
   * Sees keys from p - left to p + right, its own position included; -1 is no bound. Default [-1,
   * -1].
   */
  readonly window?: readonly [left: number, right: number] | null;
  /**
   * Sees only keys of its own chunk of so many positions: j with floor(j / C) = floor(p / C).
   * Default none.
   */
  readonly attentionChunk?: number | null;
  /**
   * The first keys of the sequence, which neither window nor chunk hides from later queries, as
   * StreamingLLM keeps them (arXiv 2309.17453). Default 0.
   */
  readonly sinkTokens?: number;
  /**
   * What a query sees, one element for each score, axes [B | 1, H | 1, M | 1, N | 1], leading ones
   * optional: u8, where other than 0 means that the key is seen (as in PyTorch's SDPA), or bits of
   * u32, [..., ceil(N / 32)], the first key in the lowest bit.
   */
  readonly mask?: TensorSpec;
  /**
   * Added to the scores, f32, axes [B | 1, H | 1, M | 1, N | 1], leading ones optional. -Infinity
   * masks the key; a finite value, however negative, does not.
   */
  readonly bias?: TensorSpec;
  /** WGSL that changes the scores. */
  readonly scoreFunction?: ScoreFunction;
  /** WGSL that says what a query sees. */
  readonly maskFunction?: MaskFunction;
  /** Likewise, with the blocks of scores that no query sees known beforehand, and skipped. */
  readonly blockMask?: BlockMask;
  /**
   * s becomes softcap * tanh(s / softcap), as in Gemma 2; a number of f32. Default, and 0, none.
   */
  readonly softcap?: number | null;
  /**
   * ALiBi (arXiv 2108.12409): slopes [H] or [B, H]; s - slope * |p - j|. `alibiSlopes(H)` gives the
   * usual ones.
   */
  readonly alibiSlopes?: PerHead;
  /** T5's bias by the distance of query and key, from a learned table. */
  readonly relativeBias?: RelativeBias;
  /**
   * One logit a head [H], as learned by gpt-oss: exp(sink) joins the sum that probabilities are
   * divided by, with no key and no value. Not scaled, not capped. Part of the log-sum-exp. Numbers
   * up to 2e38 in size; of a tensor on the GPU -Infinity is no sink, and +Infinity or NaN makes the
   * rows NaN.
   */
  readonly sinks?: PerHead;
  /** Dropout of the probabilities, which a CPU can replay. Default: none. */
  readonly dropout?: Dropout;
}
