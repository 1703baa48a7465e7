// A Transformer encoder that classifies texts by the mean of its rows.

import {
  embedding,
  encoderLayer,
  layerNormLayer,
  linearLayer,
  meanRows,
  type Parameters,
  positionEncoding,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface EncoderClassifierSizes {
  readonly vocab: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly feedForward: number;
  readonly classes: number;
  /** Added to the variance of norms. Default 1e-5. */
  readonly eps?: number;
}

/** What an encoder reads. */
export interface EncoderInputs {
  /** [B, T] i32 */
  readonly ids: Value;
  /** [B] i32: how many of them count. Default all. */
  readonly lengths?: Value | undefined;
  /** Is given the probabilities of each layer, [B, heads, T, T]. */
  readonly watch?: ((weights: Value) => void) | undefined;
}

/** Logits [B, classes]. */
export function encoderClassifier(
  { ids, lengths, watch }: EncoderInputs,
  parameters: Parameters,
  sizes: EncoderClassifierSizes,
): Value {
  const { vocab, width, heads, layers, feedForward, classes, eps = 1e-5 } = sizes;
  const words = embedding(ids, parameters("embedding.weight", [vocab, width], { normal: 1 }));
  let x = positionEncoding(words, { scale: Math.sqrt(width) });
  const settings = {
    heads,
    feedForward,
    epsilon: eps,
    ...(lengths && { kvLengths: lengths }),
    ...(watch && { watch }),
  };
  for (let layer = 0; layer < layers; layer++)
    x = encoderLayer(x, under(parameters, `layers.${layer}`), settings);
  const pooled = meanRows(layerNormLayer(x, under(parameters, "norm"), eps), lengths);
  return linearLayer(pooled, under(parameters, "head"), classes);
}
