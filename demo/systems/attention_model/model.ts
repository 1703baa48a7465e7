// The attention model of the first text: a weight for each word by a linear layer, their weighted
// sum, and a decoder.

import {
  attentionWeights,
  embedding,
  linearLayer,
  matmul,
  type Parameters,
  softmaxPool,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface AttentionModelSizes {
  readonly vocab: number;
  readonly hidden: number;
  /** Weights are a softmax over the words; otherwise they are what the layer gives, as in the text. */
  readonly softmax: boolean;
}

/** Logits [B, vocab] of the word after ids [B, T], and the weights [B, T] of the words. */
export function attentionModel(
  ids: Value,
  parameters: Parameters,
  { vocab, hidden, softmax }: AttentionModelSizes,
): { readonly logits: Value; readonly weights: Value } {
  const [B, T] = ids.shape;
  const words = embedding(ids, parameters("encoder.weight", [vocab, hidden], { normal: 1 }));
  const scores = linearLayer(words, under(parameters, "attention"), 1).reshape(B, T);
  const decoded = (sum: Value) => linearLayer(sum, under(parameters, "decoder"), vocab);
  if (!softmax) {
    const sum = matmul(scores.reshape(B, 1, T), words).reshape(B, hidden);
    return { logits: decoded(sum), weights: scores };
  }
  const { pooled, query, keys, settings } = softmaxPool(words, scores);
  const weights = attentionWeights(query, keys, settings).reshape(B, T);
  return { logits: decoded(pooled), weights };
}
