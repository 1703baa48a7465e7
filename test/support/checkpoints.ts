// Small checkpoints with seeded weights.

import { writeSafetensors } from "../../src/files/safetensors.ts";
import type { FileSource } from "../../src/models/index.ts";
import { bytesSource } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { DecoderConfig, Tensors } from "./reference_decoder.ts";

/** Sizes that no vec4 divides where that is possible, and what all small configs say. */
const SMALL = {
  vocab_size: 31,
  hidden_size: 20,
  intermediate_size: 27,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: false,
} as const;

/** A config of a family, of small sizes. */
export const smallConfig = (
  model_type: string,
  others: Readonly<Record<string, unknown>> = {},
): DecoderConfig => ({ model_type, ...SMALL, ...others });

/** Weights for a config, by the names of Hugging Face's files. */
export function smallWeights(config: DecoderConfig, seed = 1): Tensors {
  const { model_type: type, hidden_size: W, head_dim: D, intermediate_size: F } = config;
  const [q, kv] = [config.num_attention_heads, config.num_key_value_heads].map((n) => n * D);
  const shapes: Record<string, readonly number[]> = {
    "model.embed_tokens.weight": [config.vocab_size, W],
    "model.norm.weight": [W],
  };
  if (!config.tie_word_embeddings) shapes["lm_head.weight"] = [config.vocab_size, W];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const add = (name: string, ...shape: readonly number[]) => {
      shapes[`model.layers.${layer}.${name}`] = shape;
    };
    for (const name of normsOf(type)) add(`${name}.weight`, W);
    if (type === "phi3") {
      add("self_attn.qkv_proj.weight", q + 2 * kv, W);
      add("mlp.gate_up_proj.weight", 2 * F, W);
    } else {
      for (const [name, width] of [
        ["q", q],
        ["k", kv],
        ["v", kv],
      ] as const) {
        add(`self_attn.${name}_proj.weight`, width, W);
        if (type === "qwen2" || type === "gpt_oss") add(`self_attn.${name}_proj.bias`, width);
      }
    }
    add("self_attn.o_proj.weight", W, q);
    if (type === "gpt_oss") {
      const count = config.num_local_experts as number;
      add("self_attn.o_proj.bias", W);
      add("self_attn.sinks", config.num_attention_heads);
      add("mlp.router.weight", count, W);
      add("mlp.router.bias", count);
      add("mlp.experts.gate_up_proj", count, W, 2 * F);
      add("mlp.experts.gate_up_proj_bias", count, 2 * F);
      add("mlp.experts.down_proj", count, F, W);
      add("mlp.experts.down_proj_bias", count, W);
    } else {
      if (type !== "phi3") {
        add("mlp.gate_proj.weight", F, W);
        add("mlp.up_proj.weight", F, W);
      }
      add("mlp.down_proj.weight", W, F);
    }
    if (type === "qwen3" || type === "gemma3_text")
      for (const name of ["q", "k"]) add(`self_attn.${name}_norm.weight`, D);
  }
  const made = Object.entries(shapes).map(([name, shape], at) => {
    const size = shape.reduce((product, one) => product * one, 1);
    return [name, { shape, data: normal(seed * 1000 + at, size, 0.4) }] as const;
  });
  return Object.fromEntries(made);
}

const normsOf = (type: string): readonly string[] => [
  "input_layernorm",
  "post_attention_layernorm",
  ...(type.startsWith("gemma") ? ["pre_feedforward_layernorm", "post_feedforward_layernorm"] : []),
];

/** The files of a checkpoint. */
export function filesOf(config: object, tensors: Tensors): Record<string, Uint8Array> {
  const stored = Object.entries(tensors).map(([name, { shape, data }]) => {
    return [name, { shape, data: Float32Array.from(data as ArrayLike<number>) }] as const;
  });
  return {
    "config.json": new TextEncoder().encode(JSON.stringify(config)),
    "model.safetensors": writeSafetensors(Object.fromEntries(stored)),
  };
}

/** A checkpoint in memory. */
export const checkpointOf = (config: object, tensors: Tensors): FileSource =>
  bytesSource(filesOf(config, tensors), "a small model");

/** Tensors of these shapes with seeded elements. */
export const drawnTensors = (
  shapes: Readonly<Record<string, readonly number[]>>,
  seed: number,
  deviation = 0.4,
): Tensors =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, shape], at) => {
      const size = shape.reduce((product, one) => product * one, 1);
      return [name, { shape, data: normal(seed * 1000 + at, size, deviation) }];
    }),
  );
