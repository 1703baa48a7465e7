// A small GPT: a decoder of Transformer blocks with norms first, whose head is its embedding.

import {
  activate,
  add,
  attendPacked,
  embedding,
  layerNormLayer,
  linear,
  linearLayer,
  type Parameters,
  positionEncoding,
  under,
  type Value,
} from "../../../src/training/index.ts";

export interface GptSizes {
  readonly vocab: number;
  readonly positions: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly feedForward: number;
  /** Added to the variance of norms. Default 1e-5. */
  readonly eps?: number;
  /** `"tanh"` for its approximation. Default `"none"`. */
  readonly gelu?: "none" | "tanh";
}

/** First elements as GPT-2 has them: all matrices alike, and biases 0. */
const likeGpt2 =
  (parameters: Parameters): Parameters =>
  (name, shape, initial) => {
    const isMatrix = shape.length === 2;
    const isBias = name.endsWith("bias");
    const drawn = isMatrix ? { normal: 0.02 } : isBias ? { constant: 0 } : initial;
    return parameters(name, shape, drawn);
  };

/**
 * Logits [B, T, vocab] of the token after each of ids [B, T].
 *
 * @param watch Is given the probabilities of each layer, [B, heads, T, T]
 */
export function gpt(
  ids: Value,
  given: Parameters,
  sizes: GptSizes,
  watch?: (weights: Value) => void,
): Value {
  const { vocab, positions, width, heads, layers, feedForward, eps, gelu } = sizes;
  const parameters = likeGpt2(given);
  const wte = parameters("wte.weight", [vocab, width]);
  const wpe = parameters("wpe.weight", [positions, width]);
  const activation = gelu === "tanh" ? "gelu-tanh" : "gelu";
  let x = positionEncoding(embedding(ids, wte), { table: wpe });
  for (let layer = 0; layer < layers; layer++) {
    const of = (name: string) => under(parameters, `blocks.${layer}.${name}`);
    const qkv = linearLayer(layerNormLayer(x, of("ln_1"), eps), of("qkv"), 3 * width);
    const attended = attendPacked(qkv, heads, { causal: true, ...(watch && { watch }) });
    x = add(x, linearLayer(attended, of("proj"), width));
    const inner = linearLayer(layerNormLayer(x, of("ln_2"), eps), of("fc"), feedForward);
    x = add(x, linearLayer(activate(inner, activation), of("out"), width));
  }
  return linear(layerNormLayer(x, under(parameters, "ln_f"), eps), wte);
}
