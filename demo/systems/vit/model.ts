// A small Vision Transformer: patches and a class token, whose row classifies the picture.

import {
  broadcast,
  byInputs,
  concatenate,
  encoderLayer,
  layerNormLayer,
  linearLayer,
  type Parameters,
  patchEmbedding,
  positionEncoding,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface VitSizes {
  readonly size: number;
  readonly channels: number;
  readonly patch: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly feedForward: number;
  readonly classes: number;
  /** Added to the variance of norms. Default 1e-5. */
  readonly eps?: number;
}

/**
 * Logits [B, classes] of pictures [B, channels, size, size].
 *
 * @param watch Is given the probabilities of each layer, [B, heads, 1 + patches, 1 + patches]
 */
export function vit(
  images: Value,
  parameters: Parameters,
  sizes: VitSizes,
  watch?: (weights: Value) => void,
): Value {
  const { size, channels, patch, width, heads, layers, feedForward, classes, eps } = sizes;
  const [B] = images.shape;
  const rows = (size / patch) ** 2 + 1;
  const token = parameters("class_token", [1, 1, width]);
  const positions = parameters("positions", [1, rows, width], { normal: 0.02 });
  const initial = byInputs(channels * patch * patch);
  const weight = parameters("patches.weight", [width, channels, patch, patch], initial);
  const embedded = patchEmbedding(images, weight, parameters("patches.bias", [width], initial));
  let x = positionEncoding(concatenate([broadcast(token, [B, 1, width]), embedded], 1), {
    table: positions.reshape(rows, width),
  });
  const settings = {
    heads,
    feedForward,
    ...(eps !== undefined && { epsilon: eps }),
    ...(watch && { watch }),
  };
  for (let layer = 0; layer < layers; layer++)
    x = encoderLayer(x, under(parameters, `layers.${layer}`), settings);
  const first = layerNormLayer(x, under(parameters, "norm"), eps).slice(1, 0, 1);
  return linearLayer(first.reshape(B, width), under(parameters, "head"), classes);
}
