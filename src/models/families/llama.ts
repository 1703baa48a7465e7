// Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, Phi-3: what their configs say.

import { Config } from "../config.ts";
import type { Definition } from "../definition.ts";
import { type DecoderTraits, decoderOf } from "./decoder.ts";
import { gptOss } from "./gpt_oss.ts";
import { type Rope, ropeOf } from "./rope.ts";
import { activationOf } from "./rows.ts";
import { slidingIn, windowIn } from "./windows.ts";

/** What a family does otherwise than Llama, from its config. */
type Difference = (
  config: Config,
  traits: DecoderTraits,
  names: ReadonlySet<string>,
) => Partial<DecoderTraits>;

/** A family: what its configs mean where they say nothing, and what it does otherwise. */
interface Family {
  /** Whether the head is the embedding. */
  readonly tied: boolean;
  /** Default hidden_size / num_attention_heads. */
  readonly headDim?: number;
  /** The base of the rotary embedding. Default 10,000. */
  readonly base?: number;
  /** Default 1e-6. */
  readonly epsilon?: number;
  /** Default false. */
  readonly attentionBias?: boolean;
  /** The scaling of the rotary embedding. Default none. */
  readonly rope?: object;
  readonly differ: Difference;
}

/** Which layers have a rotary embedding: all but every fourth one, or as the config lists them. */
function turnedLayers(config: Config, layers: number): (layer: number) => boolean {
  const every = config.whole("no_rope_layer_interval", 4);
  config.ignore("no_rope_layers");
  if (!config.has("no_rope_layers")) return (layer) => (layer + 1) % every !== 0;
  // The name says the contrary of what it lists: 1 is a layer with a rotary embedding.
  const listed = config.numbers("no_rope_layers");
  if (listed.length < layers) config.only("no_rope_layers", `${layers} of them`);
  return (layer) => listed[layer] !== 0;
}

/** The windows of Qwen's layers: from `max_window_layers` on, if windows are used at all. */
const qwenWindows = (config: Config, { layers }: DecoderTraits): Partial<DecoderTraits> => {
  const window = windowIn(config);
  const isUsed = config.flag("use_sliding_window", false);
  const first = config.whole("max_window_layers", layers, 0);
  const slides = slidingIn(config, layers, (layer) => layer >= first);
  return {
    windowOf: (layer) => (isUsed && slides(layer) ? window : undefined),
  };
};

const gemma = (
  config: Config,
  { width }: DecoderTraits,
  caps: { readonly scores?: number; readonly logits?: number } = {},
): Partial<DecoderTraits> => {
  const scale = config.number("query_pre_attn_scalar", 256) ** -0.5;
  const cap = (name: string, given?: number) =>
    config.isNull(name) ? undefined : config.optional(name, given);
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
    scoresCap: cap("attn_logit_softcapping", caps.scores),
    logitsCap: cap("final_logit_softcapping", caps.logits),
  };
};

const FAMILIES: Readonly<Record<string, Family>> = {
  llama: { tied: false, differ: () => ({}) },
  mistral: {
    tied: false,
    differ: (config) => {
      const window = windowIn(config, 4096);
      return { windowOf: () => window };
    },
  },
  smollm3: {
    tied: true,
    base: 2_000_000,
    differ: (config, { layers }) => {
      const hasRope = turnedLayers(config, layers);
      const window = windowIn(config);
      const isUsed = config.flag("use_sliding_window", false);
      const slides = slidingIn(config, layers, (layer) => !hasRope(layer));
      config.ignore("max_window_layers");
      return { hasRope, windowOf: (layer) => (isUsed && slides(layer) ? window : undefined) };
    },
  },
  gpt_oss: {
    tied: false,
    headDim: 64,
    base: 150_000,
    epsilon: 1e-5,
    attentionBias: true,
    rope: {
      rope_type: "yarn",
      factor: 32,
      truncate: false,
      original_max_position_embeddings: 4096,
    },
    differ: gptOss,
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
    headDim: 128,
    differ: (config, traits) => ({ ...qwenWindows(config, traits), qkNorm: true }),
  },
  gemma2: {
    tied: true,
    headDim: 256,
    differ: (config, traits) => {
      const window = windowIn(config, 4096);
      const slides = slidingIn(config, traits.layers, (layer) => layer % 2 === 0);
      return {
        ...gemma(config, traits, { scores: 50, logits: 30 }),
        windowOf: (layer) => (slides(layer) ? window : undefined),
      };
    },
  },
  gemma3_text: {
    tied: true,
    headDim: 256,
    base: 1_000_000,
    differ: (config, traits) => {
      const window = windowIn(config, 4096);
      const every = config.whole(
        "sliding_window_pattern",
        config.whole("_sliding_window_pattern", 6),
      );
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
    epsilon: 1e-5,
    differ: (config) => {
      const window = windowIn(config);
      config.ignore("original_max_position_embeddings");
      return { fused: true, windowOf: () => window };
    },
  },
};

export const LLAMA_TYPES = Object.keys(FAMILIES);

/** A decoder of one of these families from its config. */
export function llama(family: string, config: Config, names: ReadonlySet<string>): Definition {
  const {
    tied,
    headDim: ownDim,
    epsilon = 1e-6,
    attentionBias: hasBias,
    differ,
  } = FAMILIES[family];
  const isGemma = family.startsWith("gemma");
  const heads = config.whole("num_attention_heads");
  const width = config.whole("hidden_size");
  const headDim = config.whole("head_dim", ownDim ?? width / heads);
  const mostRows = config.whole("max_position_embeddings");
  const attentionBias = config.flag("attention_bias", hasBias ?? false);
  const mlpBias = config.flag("mlp_bias", false);
  // SmolLM says that it is a Llama, whose halves turn and not neighbours.
  config.ignore("is_llama_config");
  config.only("rope_interleaved", false);
  config.only("use_mrope", false);
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
    epsilon: config.number("rms_norm_eps", epsilon),
    activation: isGemma ? "gelu-tanh" : activationOf(config, "hidden_act", "silu"),
    tied: config.flag("tie_word_embeddings", tied),
    biases: { qkv: attentionBias, output: attentionBias, mlp: mlpBias },
    plusOne: false,
    qkNorm: false,
    postNorms: false,
    fused: false,
    embeddingScale: 1,
    scale: headDim ** -0.5,
    sinks: false,
    hasRope: () => true,
    ropeOf: ropesOf(family, config, headDim, mostRows),
    windowOf: () => undefined,
  };
  const traits = { ...plain, ...differ(config, plain, names) };
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
  const { base: own = 10_000, rope: scaling } = FAMILIES[family];
  const base = config.number("rope_theta", own);
  const share = config.number("partial_rotary_factor", 1);
  config.ignore("rope_theta", "partial_rotary_factor", "rope_scaling", "rope_parameters");
  const original = "original_max_position_embeddings";
  const originalPositions = config.has(original) ? config.whole(original) : undefined;
  const sizes = { headDim, base, share, mostPositions, originalPositions };
  // Gemma 3 has rope_parameters for each kind of layer, which it reads itself.
  const given =
    config.inner("rope_scaling") ??
    (family === "gemma3_text" ? undefined : config.inner("rope_parameters")) ??
    (scaling && new Config(scaling));
  const rope = ropeOf(given, sizes);
  return () => rope;
}
