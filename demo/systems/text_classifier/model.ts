// An LSTM over a text, attention over its outputs, and a linear layer that classifies their sum.

import {
  attentionWeights,
  embedding,
  linearLayer,
  lstmLayer,
  type Parameters,
  softmaxPool,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface TextClassifierSizes {
  readonly vocab: number;
  readonly embedding: number;
  readonly hidden: number;
  readonly classes: number;
  readonly bidirectional: boolean;
}

/** Logits [B, classes] of ids [B, T], of which `lengths` [B] count, and the weights [B, T]. */
export function textClassifier(
  { ids, lengths }: { readonly ids: Value; readonly lengths: Value | undefined },
  parameters: Parameters,
  sizes: TextClassifierSizes,
): { readonly logits: Value; readonly weights: Value } {
  const [B, T] = ids.shape;
  const { vocab, hidden, classes, bidirectional } = sizes;
  const words = embedding(
    ids,
    parameters("embedding.weight", [vocab, sizes.embedding], { normal: 1 }),
  );
  const { output } = lstmLayer(words, under(parameters, "lstm"), {
    hidden,
    bidirectional,
    lengths,
  });
  const scores = linearLayer(output, under(parameters, "attention"), 1).reshape(B, T);
  const { pooled, query, keys, settings } = softmaxPool(output, scores, lengths);
  return {
    logits: linearLayer(pooled, under(parameters, "decoder"), classes),
    weights: attentionWeights(query, keys, settings).reshape(B, T),
  };
}
