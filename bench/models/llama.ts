// The decoders that suite `models` runs: their sizes, their seeded weights, and the tokens that they
// read.

import { writeSafetensors } from "../../src/files/safetensors.ts";
import { bytesSource, type FileSource } from "../../src/models/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { product } from "../peers/arrays.ts";

/** Sizes of a decoder in the way of Llama. */
export interface LlamaSizes {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly feedForward: number;
  readonly vocab: number;
  /** The most tokens of a text. */
  readonly positions: number;
}

/** A decoder of 3.9 million parameters, as small as the smallest that tell stories. */
export const SMALL: LlamaSizes = {
  layers: 4,
  width: 256,
  heads: 8,
  kvHeads: 4,
  headDim: 32,
  feedForward: 688,
  vocab: 2048,
  positions: 512,
};

/** One layer with the heads of Llama 3.2 1B, which has little to do but attention. */
export const ONE_LAYER: LlamaSizes = {
  layers: 1,
  width: 512,
  heads: 32,
  kvHeads: 8,
  headDim: 64,
  feedForward: 256,
  vocab: 64,
  positions: 6400,
};

const TABLE = "model.embed_tokens.weight";
export const EPSILON = 1e-5;
export const THETA = 10_000;

export interface Weight {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}
export type Weights = ReadonlyMap<string, Weight>;

export interface Llama {
  readonly sizes: LlamaSizes;
  /** By the names of Hugging Face's files; matrices are [outputs, inputs]. */
  readonly weights: Weights;
}

/** The shapes of all weights; matrices are [outputs, inputs]. */
function shapesOf(sizes: LlamaSizes): [name: string, shape: readonly number[]][] {
  const { width: W, heads, kvHeads, headDim, feedForward: F, vocab } = sizes;
  const shapes: Record<string, readonly number[]> = { [TABLE]: [vocab, W] };
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `model.layers.${layer}`;
    Object.assign(shapes, {
      [`${at}.input_layernorm.weight`]: [W],
      [`${at}.self_attn.q_proj.weight`]: [heads * headDim, W],
      [`${at}.self_attn.k_proj.weight`]: [kvHeads * headDim, W],
      [`${at}.self_attn.v_proj.weight`]: [kvHeads * headDim, W],
      [`${at}.self_attn.o_proj.weight`]: [W, heads * headDim],
      [`${at}.post_attention_layernorm.weight`]: [W],
      [`${at}.mlp.gate_proj.weight`]: [F, W],
      [`${at}.mlp.up_proj.weight`]: [F, W],
      [`${at}.mlp.down_proj.weight`]: [W, F],
    });
  }
  Object.assign(shapes, { "model.norm.weight": [W], "lm_head.weight": [vocab, W] });
  return Object.entries(shapes);
}

/** A decoder with seeded weights, which keep the size of rows as they are. */
export function llamaOf(sizes: LlamaSizes): Llama {
  const weights = shapesOf(sizes).map(([name, shape], at): [string, Weight] => {
    const deviation = name === TABLE || shape.length === 1 ? 1 : shape[1] ** -0.5;
    return [name, { shape, data: normal(1000 + at, product(shape), deviation) }];
  });
  return { sizes, weights: new Map(weights) };
}

/** The text that a decoder reads. */
export const textOf = ({ vocab }: LlamaSizes, length: number): number[] =>
  integers(7, length, 0, vocab - 1);

/** A decoder as Hugging Face keeps it. */
export function checkpointOf({ sizes, weights }: Llama): FileSource {
  const config = {
    model_type: "llama",
    vocab_size: sizes.vocab,
    hidden_size: sizes.width,
    intermediate_size: sizes.feedForward,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kvHeads,
    head_dim: sizes.headDim,
    max_position_embeddings: sizes.positions,
    rms_norm_eps: EPSILON,
    rope_theta: THETA,
    tie_word_embeddings: false,
  };
  return bytesSource({
    "config.json": new TextEncoder().encode(JSON.stringify(config)),
    "model.safetensors": writeSafetensors(Object.fromEntries(weights)),
  });
}

/** Bytes of keys and values of a token, in all layers. */
export const rowBytes = ({ layers, kvHeads, headDim }: LlamaSizes) =>
  4 * 2 * layers * kvHeads * headDim;

/** Elements of the weights that a step has to read: all, but of the embedding one row. */
function elementsRead(sizes: LlamaSizes): number {
  const all = shapesOf(sizes).reduce((sum, [, shape]) => sum + product(shape), 0);
  return all - (sizes.vocab - 1) * sizes.width;
}

/** Bytes of the weights that a step has to read. */
export const weightBytes = (sizes: LlamaSizes) => 4 * elementsRead(sizes);

/** Operations of a token that sees so many keys. */
export const operations = (sizes: LlamaSizes, keys: number) =>
  2 * (elementsRead(sizes) + 2 * sizes.layers * sizes.heads * sizes.headDim * keys);
