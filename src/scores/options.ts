// The options of an attention problem beside its tensors: positions, masks, scores, dropout.

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
 * Rows of q and k are normalised before their product (QK-norm):
 *
 * ```
 * q.k = sum_d qWeights_d q_d kWeights_d k_d / (|q| |k|)
 * |x| = max(sqrt(sum x_d^2), eps)  for "l2",   sqrt(mean x_d^2 + eps)  for "rms"
 * ```
 *
 * Rows may have any norm that f32 can hold, up to a head dim of 65,536; a row of zeros has the
 * score 0. NaN and infinities in a row are NaN in its scores.
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
   * `normalize=True`). A vector of zeros stays zeros. Elements may be as large as 1e38 / D, because
   * they are summed before they are divided.
   */
  readonly normalize?: boolean;
  /** The gain with `normalize`: a number, or one for each head [H]. Default 1. */
  readonly gain?: number | PerHead;
}

/** The similarity that stands for q.k in the scores. `"cosine"` is `{ kind: "l2" }`. */
export type Similarity = "dot" | "cosine" | NormalizedSimilarity | AdditiveSimilarity;

/** Options that say what stands for q.k in the scores, and their temperature. */
export interface SimilarityOptions {
  /** How a query and a key are compared. Default `"dot"`, their dot product. */
  readonly similarity?: Similarity;
  /**
   * Learned factor of the scores of each head [H], beside the scale; or a number for all. Default
   * 1.
   */
  readonly temperature?: number | PerHead;
  /**
   * The natural logarithm of the temperature, as Swin Transformer V2 learns it: the factor is
   * min(exp(logTemperature), maxTemperature).
   */
  readonly logTemperature?: number | PerHead;
  /** The largest factor with `logTemperature`. At most 2^64, like a temperature. Default 100. */
  readonly maxTemperature?: number;
}

/** {@link ScoreOptions} as they are read. */
export type TakenScores = Taken<ScoreOptions>;

/**
 * Dropout of the probabilities by a counter-based generator, which a CPU or a backward pass can
 * compute again.
 */
export interface Dropout {
  /**
   * Probability that an element is dropped, 0 to 1. Kept elements are multiplied by 1 / (1 - p).
   */
  readonly p: number;
  /** A whole number from 0 up to 2^53. The same seed and step drop the same elements. */
  readonly seed: number;
  /**
   * The number of the run, so that a plan that is replayed drops other elements each time: a whole
   * number from 0 up to 2^32 - 1, or a u32 or i32 tensor of one element, [] or [1], which stays on
   * the GPU. The key of the generator is seed + step 2^32. Default 0.
   */
  readonly step?: number | Tensor;
}

/**
 * How scores are computed and which of them count. Here q.k is the similarity of the two:
 *
 * ```
 * s = scale * temperature * q.k -> softcap -> score function -> + bias + relative bias + ALiBi
 *     -> masks -> softmax -> dropout
 * ```
 *
 * Scores are f32: a NaN that a query sees, of q, k, v, a bias or anything else, makes its row NaN
 * (output, LSE, row maximum). A score of +Infinity does so too, which a product or a sum beyond f32
 * is. Finite scores are kept apart down to the lowest f32, and up to a magnitude of 2.3e38 if only
 * the scale changes them.
 *
 * A query sees a key if every mask allows it; no bias makes a masked key visible. Query i of a
 * batch entry stands at position p = i + offset (see `causal` and `queryOffset`), key j at position
 * j.
 */
export interface ScoreOptions extends MaskOptions<PerBatch>, SimilarityOptions {
  /**
   * How many queries of each entry are used (FlashAttention's seqused_q); rows past them give 0,
   * and LSE -Infinity. Default all.
   */
  readonly qLengths?: PerBatch;
  /**
   * Sequences of different lengths one after the other, without padding: entry b owns the rows
   * cuSeqlensQ[b] up to cuSeqlensQ[b + 1] of q and output, and rows of k and v by `cuSeqlensKv`.
   * The batch axis of all of them is then 1. B + 1 numbers each. Rows of the outputs that no entry
   * owns, such as those past the last one, stay as they were: zeros in a new tensor.
   */
  readonly cuSeqlensQ?: PerBatch;
  /** Like `cuSeqlensQ`, for the rows of k and v. */
  readonly cuSeqlensKv?: PerBatch;
  /** Rows of the longest entry, needed if the cumulative lengths are tensors. */
  readonly maxSeqlenQ?: number;
  /** Keys of the longest entry, needed if the cumulative lengths are tensors. */
  readonly maxSeqlenKv?: number;
  /**
   * A query sees keys from p - left to p + right, its own position included; -1 means no bound.
   * Default [-1, -1].
   */
  readonly window?: readonly [left: number, right: number] | null;
  /**
   * A query sees only keys of its own chunk of so many positions: j with floor(j / C) = floor(p /
   * C). Default none.
   */
  readonly attentionChunk?: number | null;
  /**
   * The first keys of the sequence, which neither window nor chunk hides from later queries, as
   * StreamingLLM keeps them (arXiv 2309.17453). Default 0.
   */
  readonly sinkTokens?: number;
  /**
   * Which keys a query sees: one element for each score, with axes [B | 1, H | 1, M | 1, N | 1], of
   * which leading ones are optional. Either u8, for which other numbers than 0 mean that the key is
   * seen (as in PyTorch's SDPA), or bits of u32, [..., ceil(N / 32)], with the first key in the
   * lowest bit.
   */
  readonly mask?: TensorSpec;
  /**
   * Added to the scores: f32, with axes [B | 1, H | 1, M | 1, N | 1], of which leading ones are
   * optional. -Infinity masks the key; a finite value, however negative, does not.
   */
  readonly bias?: TensorSpec;
  /** WGSL that changes the scores. */
  readonly scoreFunction?: ScoreFunction;
  /** WGSL that says which keys a query sees. */
  readonly maskFunction?: MaskFunction;
  /**
   * A mask whose empty blocks of scores are known beforehand and skipped; it has its own mask
   * function.
   */
  readonly blockMask?: BlockMask;
  /**
   * s becomes softcap * tanh(s / softcap), as in Gemma 2; a number of f32. Default none; 0 means
   * none, too.
   */
  readonly softcap?: number | null;
  /**
   * Slopes [H] or [B, H] of ALiBi (arXiv 2108.12409): s becomes s - slope * |p - j|.
   * `alibiSlopes(H)` gives the usual ones.
   */
  readonly alibiSlopes?: PerHead;
  /** T5's bias by the distance of query and key, from a learned table. */
  readonly relativeBias?: RelativeBias;
  /**
   * One logit for each head [H], as gpt-oss learns them: exp(sink) joins the sum that probabilities
   * are divided by, with no key and no value. It is neither scaled nor capped, and it is part of
   * the log-sum-exp. Numbers have a magnitude up to 2e38. In a tensor on the GPU, -Infinity means
   * no sink, and +Infinity or NaN makes the rows NaN.
   */
  readonly sinks?: PerHead;
  /** Dropout of the probabilities, which a CPU can replay. Default: none. */
  readonly dropout?: Dropout;
}
