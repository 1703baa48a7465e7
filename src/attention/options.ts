// What a caller can say of an attention problem, beside its tensors: positions, masks, scores, dropout.

import type { MaskFunction, ScoreFunction } from "../functions/attention_function.ts";
import type { BlockMask } from "../functions/block_mask.ts";
import type { Numbers, Taken } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { MaskOptions, TensorSpec } from "../types.ts";
import type { SimilarityOptions } from "./similarity.ts";

/** Numbers for each batch entry, or a dense tensor of i32 (or u32) that stays on the GPU. */
export type PerBatch = Numbers | Tensor;

/** Numbers for each head, or an f32 tensor that stays on the GPU. */
export type PerHead = Numbers | Tensor;

/** Either of them as it is read: typed arrays have become arrays. */
export type ListOrTensor = readonly number[] | Tensor;

/** {@link ScoreOptions} as they are read. */
export type TakenScores = Taken<ScoreOptions>;

/** T5's bias by relative position (arXiv 1910.10683, section 2.1). */
export interface RelativeBias {
  /** [buckets, H] f32, added to the scores unscaled: a tensor, or numbers in that order. */
  readonly table: PerHead;
  /** Number of buckets. Needed where `table` is numbers; a tensor has it in its shape. */
  readonly buckets?: number;
  /** Keys after the query have buckets of their own, half of them. Default true; false where the mask is causal. */
  readonly bidirectional?: boolean;
  /** Distance from which on all keys share the last bucket. Default 128. */
  readonly maxDistance?: number;
}

/** Dropout of the probabilities by a counter-based generator, which a CPU or a backward pass can compute again. */
export interface Dropout {
  /** Probability that an element is dropped, 0 to 1. Kept ones count 1 / (1 - p) times. */
  readonly p: number;
  /** A whole number from 0 up to 2^53. The same seed drops the same elements. */
  readonly seed: number;
}

/**
 * How scores come about and which of them count, where q.k stands for what the similarity makes of the two:
 *
 * ```
 * s = scale * temperature * q.k -> softcap -> score function -> + bias + relative bias + ALiBi -> masks -> softmax -> dropout
 * ```
 *
 * Scores are f32: a NaN that a query sees, of q, k, v, a bias or anything else, makes its row NaN (output, LSE, row
 * maximum), and so does a score of +Infinity, as a product or a sum beyond f32 is. Finite scores are kept apart down to
 * the lowest f32, and up to 2.3e38 in size where nothing but the scale changes them.
 *
 * A query sees a key if every mask allows it; the masks win over whatever a bias says. Query i of a batch entry stands
 * at position p = i + offset (see `causal` and `queryOffset`), key j at position j.
 */
export interface ScoreOptions extends MaskOptions<PerBatch>, SimilarityOptions {
  /** Queries in use of each entry (FlashAttention's seqused_q); rows past them give 0, and LSE -Infinity. Default all. */
  readonly qLengths?: PerBatch;
  /**
   * Sequences of different lengths one after the other, without padding: entry b owns the rows cuSeqlensQ[b] up to
   * cuSeqlensQ[b + 1] of q and output, and likewise of k and v, whose batch axis is then 1. B + 1 numbers each. Rows of
   * the outputs that no entry owns, such as those past the last one, stay as they were: zeros in a new tensor.
   */
  readonly cuSeqlensQ?: PerBatch;
  /** The same of k and v. */
  readonly cuSeqlensKv?: PerBatch;
  /** Rows of the longest entry, needed where the cumulative lengths are tensors. */
  readonly maxSeqlenQ?: number;
  /** Keys of the longest entry, needed where the cumulative lengths are tensors. */
  readonly maxSeqlenKv?: number;
  /** Sees keys from p - left to p + right, its own position included; -1 is no bound. Default [-1, -1]. */
  readonly window?: readonly [left: number, right: number] | null;
  /** Sees only keys of its own chunk of so many positions: j with floor(j / C) = floor(p / C). Default none. */
  readonly attentionChunk?: number | null;
  /**
   * The first keys of the sequence, which neither window nor chunk hides from later queries, as StreamingLLM keeps them
   * (arXiv 2309.17453). Default 0.
   */
  readonly sinkTokens?: number;
  /**
   * What a query sees, one element for each score, axes [B | 1, H | 1, M | 1, N | 1], leading ones optional: u8, where
   * other than 0 means that the key is seen (as in PyTorch's SDPA), or bits of u32, [..., ceil(N / 32)], the first key
   * in the lowest bit.
   */
  readonly mask?: TensorSpec;
  /**
   * Added to the scores, f32, axes [B | 1, H | 1, M | 1, N | 1], leading ones optional. -Infinity masks the key; a finite
   * value, however negative, does not.
   */
  readonly bias?: TensorSpec;
  /** WGSL that changes the scores. */
  readonly scoreFunction?: ScoreFunction;
  /** WGSL that says what a query sees. */
  readonly maskFunction?: MaskFunction;
  /** Likewise, with the blocks of scores that no query sees known beforehand, and skipped. */
  readonly blockMask?: BlockMask;
  /** s becomes softcap * tanh(s / softcap), as in Gemma 2; a number of f32. Default, and 0, none. */
  readonly softcap?: number | null;
  /** ALiBi (arXiv 2108.12409): slopes [H] or [B, H]; s - slope * |p - j|. `alibiSlopes(H)` gives the usual ones. */
  readonly alibiSlopes?: PerHead;
  /** T5's bias by the distance of query and key, from a learned table. */
  readonly relativeBias?: RelativeBias;
  /**
   * One logit a head [H], as learned by gpt-oss: exp(sink) joins the sum that probabilities are divided by, with no key
   * and no value. Not scaled, not capped. Part of the log-sum-exp. Numbers up to 2e38 in size; of a tensor on the GPU
   * -Infinity is no sink, and +Infinity or NaN makes the rows NaN.
   */
  readonly sinks?: PerHead;
  /** Dropout of the probabilities, which a CPU can replay. Default: none. */
  readonly dropout?: Dropout;
}
