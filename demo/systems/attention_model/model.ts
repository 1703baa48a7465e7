// The attention model of the first text: a weight for each word by a linear layer, their weighted
// sum, and a decoder.

import {
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

/** Logits [B, vocab] of the word after ids [B, T]. */
export function attentionModel(
  ids: Value,
  parameters: Parameters,
  { vocab, hidden, softmax }: AttentionModelSizes,
): Value {
  const [B, T] = ids.shape;
  const words = embedding(ids, parameters("encoder.weight", [vocab, hidden]));
  const scores = linearLayer(words, under(parameters, "attention"), 1);
  const sum = softmax
    ? softmaxPool(words, scores.reshape(B, T)).pooled
    : matmul(scores.reshape(B, 1, T), words).reshape(B, hidden);
  return linearLayer(sum, under(parameters, "decoder"), vocab);
}
