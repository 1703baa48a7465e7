// Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, Phi-3: what their configs say.

import type { Config } from "../config.ts";
import type { Definition } from "../definition.ts";
import { type DecoderTraits, decoderOf } from "./decoder.ts";
import { type Rope, ropeOf } from "./rope.ts";
import { activationOf } from "./rows.ts";

/** What a family does otherwise than Llama, from its config. */
type Difference = (config: Config, traits: DecoderTraits) => Partial<DecoderTraits>;

/** Keys that queries see in layers that slide, or undefined. */
const windowIn = (config: Config, name = "sliding_window") => {
  config.ignore(name);
  return config.has(name) ? config.whole(name) : undefined;
};

/** Which layers slide: those that `layer_types` calls so, or by a rule of the family. */
function slidingIn(
  config: Config,
  layers: number,
  rule: (layer: number) => boolean,
): (layer: number) => boolean {
  config.ignore("layer_types");
  if (!config.has("layer_types")) return rule;
  const types = config.texts("layer_types");
  if (types.length !== layers) config.only("layer_types", `${layers} of them`);
  return (layer) => types[layer] === "sliding_attention";
}

/** The windows of Qwen's layers: from `max_window_layers` on, if windows are used at all. */
const qwenWindows: Difference = (config, { layers }) => {
  const window = windowIn(config);
  const isUsed = config.flag("use_sliding_window", false);
  const first = config.whole("max_window_layers", layers, 0);
  const slides = slidingIn(config, layers, (layer) => layer >= first);
  return {
    windowOf: (layer) => (isUsed && slides(layer) ? window : undefined),
  };
};

const gemma = (config: Config, { width }: DecoderTraits): Partial<DecoderTraits> => {
  const scale = config.number("query_pre_attn_scalar", 256) ** -0.5;
  const cap = (name: string) => {
    config.ignore(name);
    return config.has(name) ? config.number(name) : undefined;
  };
  config.ignore("hidden_act", "hidden_activation");
  return {
    activation: activationOf(
      config,
      config.has("hidden_activation") ? "hidden_activation" : "hidden_act",
      "gelu_pytorch_tanh",
    ),
    plusOne: true,
    postNorms: true,
    embeddingScale: Math.sqrt(width),
    scale,
    scoresCap: cap("attn_logit_softcapping"),
    logitsCap: cap("final_logit_softcapping"),
  };
};

const FAMILIES: Readonly<Record<string, { readonly tied: boolean; readonly differ: Difference }>> =
  {
    llama: { tied: false, differ: () => ({}) },
    mistral: {
      tied: false,
      differ: (config) => {
        const window = windowIn(config);
        return { windowOf: () => window };
      },
    },
    qwen2: {
      tied: false,
      differ: (config, traits) => ({
        ...qwenWindows(config, traits),
        biases: { qkv: true, output: false, mlp: false },
      }),
    },
    qwen3: {
      tied: false,
      differ: (config, traits) => ({ ...qwenWindows(config, traits), qkNorm: true }),
    },
    gemma2: {
      tied: true,
      differ: (config, traits) => {
        const window = windowIn(config);
        const slides = slidingIn(config, traits.layers, (layer) => layer % 2 === 0);
        return {
          ...gemma(config, traits),
          windowOf: (layer) => (slides(layer) ? window : undefined),
        };
      },
    },
    gemma3_text: {
      tied: true,
      differ: (config, traits) => {
        const window = windowIn(config);
        const every = config.whole("sliding_window_pattern", 6);
        const slides = slidingIn(config, traits.layers, (layer) => (layer + 1) % every !== 0);
        const { headDim, mostRows } = traits;
        const base = config.number("rope_local_base_freq", 10_000);
        const perType = config.inner("rope_parameters");
        const sizes = { headDim, base, mostPositions: mostRows };
        const local = ropeOf(perType?.inner("sliding_attention"), sizes);
        const full = perType
          ? ropeOf(perType.inner("full_attention"), { ...sizes, base: 1_000_000 })
          : traits.ropeOf(0);
        perType?.end();
        return {
          ...gemma(config, traits),
          qkNorm: true,
          windowOf: (layer) => (slides(layer) ? window : undefined),
          ropeOf: (layer) => (slides(layer) ? local : full),
        };
      },
    },
    phi3: {
      tied: false,
      differ: (config) => {
        const window = windowIn(config);
        config.ignore("original_max_position_embeddings");
        return { fused: true, windowOf: () => window };
      },
    },
  };

export const LLAMA_TYPES = Object.keys(FAMILIES);

/** A decoder of one of these families from its config. */
export function llama(family: string, config: Config): Definition {
  const { tied, differ } = FAMILIES[family];
  const isGemma = family.startsWith("gemma");
  const heads = config.whole("num_attention_heads");
  const width = config.whole("hidden_size");
  const headDim = config.whole("head_dim", isGemma ? 256 : width / heads);
  const mostRows = config.whole("max_position_embeddings");
  const attentionBias = config.flag("attention_bias", false);
  const mlpBias = config.flag("mlp_bias", false);
  const plain: DecoderTraits = {
    family,
    vocab: config.whole("vocab_size"),
    width,
    heads,
    kvHeads: config.whole("num_key_value_heads", heads),
    headDim,
    feedForward: config.whole("intermediate_size"),
    layers: config.whole("num_hidden_layers"),
    mostRows,
    ends: config.wholes("eos_token_id"),
    epsilon: config.number("rms_norm_eps", 1e-6),
    activation: isGemma ? "gelu-tanh" : activationOf(config, "hidden_act", "silu"),
    tied: config.flag("tie_word_embeddings", tied),
    biases: { qkv: attentionBias, output: attentionBias, mlp: mlpBias },
    plusOne: false,
    qkNorm: false,
    postNorms: false,
    fused: false,
    embeddingScale: 1,
    scale: headDim ** -0.5,
    ropeOf: ropesOf(family, config, headDim, mostRows),
    windowOf: () => undefined,
  };
  const traits = { ...plain, ...differ(config, plain) };
  config.end();
  return decoderOf(traits);
}

/** The rotary embedding that all layers share. */
function ropesOf(
  family: string,
  config: Config,
  headDim: number,
  mostPositions: number,
): (layer: number) => Rope {
  const base = config.number("rope_theta", family === "gemma3_text" ? 1_000_000 : 10_000);
  const share = config.number("partial_rotary_factor", 1);
  config.ignore("rope_theta", "partial_rotary_factor", "rope_scaling", "rope_parameters");
  const original = "original_max_position_embeddings";
  const originalPositions = config.has(original) ? config.whole(original) : undefined;
  const sizes = { headDim, base, share, mostPositions, originalPositions };
  // Gemma 3 has rope_parameters for each kind of layer, which it reads itself.
  const given =
    config.inner("rope_scaling") ??
    (family === "gemma3_text" ? undefined : config.inner("rope_parameters"));
  const rope = ropeOf(given, sizes);
  return () => rope;
}
