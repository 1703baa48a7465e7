// Configs as transformers writes them, in versions 4 and 5: all of their options are known.

import { describe, expect, it } from "vitest";
import { Config } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/families/index.ts";

const read = (config: object) => familyOf(new Config(config), new Set());

/** What both versions write of each model. */
const COMMON = {
  architectures: ["X"],
  dtype: "float32",
  torch_dtype: "float32",
  transformers_version: "5.18.0",
  use_cache: true,
  initializer_range: 0.02,
  bos_token_id: 1,
  eos_token_id: [2, 3],
  pad_token_id: null,
};

/** What version 5 writes of each model that can be part of others. */
const STACK = {
  add_cross_attention: false,
  cross_attention_hidden_size: null,
  is_decoder: false,
  tie_word_embeddings: true,
};

/** What may be left of older versions. */
const OLD = {
  _name_or_path: "x",
  _attn_implementation_autoset: true,
  attn_implementation: null,
  bad_words_ids: null,
  begin_suppress_tokens: null,
  chunk_size_feed_forward: 0,
  decoder_start_token_id: null,
  diversity_penalty: 0,
  do_sample: false,
  early_stopping: false,
  encoder_no_repeat_ngram_size: 0,
  exponential_decay_length_penalty: null,
  finetuning_task: null,
  forced_bos_token_id: null,
  forced_eos_token_id: null,
  id2label: { 0: "LABEL_0", 1: "LABEL_1" },
  label2id: { LABEL_0: 0, LABEL_1: 1 },
  length_penalty: 1,
  max_length: 20,
  min_length: 0,
  no_repeat_ngram_size: 0,
  num_beam_groups: 1,
  num_beams: 1,
  num_return_sequences: 1,
  output_attentions: false,
  output_hidden_states: false,
  output_scores: false,
  prefix: null,
  problem_type: null,
  pruned_heads: {},
  remove_invalid_values: false,
  repetition_penalty: 1,
  return_dict: true,
  return_dict_in_generate: false,
  sep_token_id: null,
  suppress_tokens: null,
  task_specific_params: null,
  temperature: 1,
  tf_legacy_loss: false,
  tie_encoder_decoder: false,
  tokenizer_class: null,
  top_k: 50,
  top_p: 1,
  torchscript: false,
  typical_p: 1,
  use_bfloat16: false,
};

const LLAMA = {
  ...COMMON,
  vocab_size: 32,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 4,
  hidden_act: "silu",
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  attention_dropout: 0,
  tie_word_embeddings: false,
};
const ROPE = { rope_theta: 10_000, rope_type: "default" };
const FULL = ["full_attention", "full_attention"];
const TURNS = ["sliding_attention", "full_attention"];
const QWEN = { use_sliding_window: false, sliding_window: null, max_window_layers: 28 };
const GEMMA = {
  attention_bias: false,
  attn_logit_softcapping: null,
  cache_implementation: "hybrid",
  final_logit_softcapping: null,
  hidden_activation: "gelu_pytorch_tanh",
  query_pre_attn_scalar: 4,
  sliding_window: 8,
};
const GPT_OSS = {
  attention_bias: true,
  layer_types: TURNS,
  num_experts_per_tok: 2,
  num_local_experts: 4,
  output_router_logits: false,
  router_aux_loss_coef: 0.9,
  sliding_window: 8,
  swiglu_limit: 7,
};
const YARN = {
  beta_fast: 32,
  beta_slow: 1,
  factor: 32,
  original_max_position_embeddings: 4096,
  rope_type: "yarn",
  truncate: false,
};
const LONGROPE = { short_factor: [1, 1], long_factor: [2, 3] };
const PHI3 = {
  embd_pdrop: 0,
  original_max_position_embeddings: 32,
  resid_pdrop: 0,
  sliding_window: null,
};
const BERT = {
  ...COMMON,
  attention_probs_dropout_prob: 0.1,
  classifier_dropout: null,
  hidden_act: "gelu",
  hidden_dropout_prob: 0.1,
  hidden_size: 16,
  intermediate_size: 24,
  layer_norm_eps: 1e-12,
  max_position_embeddings: 32,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  type_vocab_size: 2,
  vocab_size: 32,
};
const WHISPER = {
  ...COMMON,
  activation_dropout: 0,
  activation_function: "gelu",
  apply_spec_augment: false,
  attention_dropout: 0,
  begin_suppress_tokens: [220, 50257],
  classifier_proj_size: 256,
  d_model: 16,
  decoder_attention_heads: 2,
  decoder_ffn_dim: 24,
  decoder_layerdrop: 0,
  decoder_layers: 2,
  decoder_start_token_id: 4,
  dropout: 0,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 24,
  encoder_layerdrop: 0,
  encoder_layers: 2,
  init_std: 0.02,
  is_encoder_decoder: true,
  mask_feature_length: 10,
  mask_feature_min_masks: 0,
  mask_feature_prob: 0,
  mask_time_length: 10,
  mask_time_min_masks: 2,
  mask_time_prob: 0.05,
  max_source_positions: 20,
  max_target_positions: 20,
  median_filter_length: 7,
  num_hidden_layers: 2,
  num_mel_bins: 8,
  scale_embedding: false,
  tie_word_embeddings: true,
  use_weighted_layer_sum: false,
  vocab_size: 32,
};
const T5 = {
  ...COMMON,
  classifier_dropout: 0,
  d_ff: 24,
  d_kv: 4,
  d_model: 16,
  decoder_start_token_id: 0,
  dense_act_fn: "gelu_new",
  dropout_rate: 0.1,
  feed_forward_proj: "gated-gelu",
  initializer_factor: 1,
  is_encoder_decoder: true,
  is_gated_act: true,
  layer_norm_epsilon: 1e-6,
  n_positions: 512,
  num_decoder_layers: 2,
  num_heads: 4,
  num_layers: 2,
  output_past: true,
  relative_attention_max_distance: 128,
  relative_attention_num_buckets: 32,
  tie_word_embeddings: false,
  vocab_size: 32,
};
const DISTILBERT = {
  ...COMMON,
  activation: "gelu",
  attention_dropout: 0.1,
  dim: 16,
  dropout: 0.1,
  hidden_dim: 24,
  max_position_embeddings: 32,
  n_heads: 4,
  n_layers: 2,
  qa_dropout: 0.1,
  seq_classif_dropout: 0.2,
  sinusoidal_pos_embds: false,
  vocab_size: 32,
};
const VIT = {
  ...COMMON,
  attention_probs_dropout_prob: 0,
  encoder_stride: 16,
  hidden_act: "gelu",
  hidden_dropout_prob: 0,
  hidden_size: 16,
  image_size: 8,
  intermediate_size: 24,
  layer_norm_eps: 1e-12,
  num_attention_heads: 4,
  num_channels: 3,
  num_hidden_layers: 2,
  patch_size: 4,
  qkv_bias: true,
};
const GPT2 = {
  ...COMMON,
  activation_function: "gelu_new",
  attn_pdrop: 0.1,
  embd_pdrop: 0.1,
  layer_norm_epsilon: 1e-5,
  n_ctx: 32,
  n_embd: 16,
  n_head: 4,
  n_inner: null,
  n_layer: 2,
  n_positions: 32,
  reorder_and_upcast_attn: false,
  resid_pdrop: 0.1,
  scale_attn_by_inverse_layer_idx: false,
  scale_attn_weights: true,
  summary_activation: null,
  summary_first_dropout: 0.1,
  summary_proj_to_labels: true,
  summary_type: "cls_index",
  summary_use_proj: true,
  vocab_size: 32,
};

/** The configs of each family: as version 4 writes them, and as version 5 does. */
const CONFIGS: Readonly<Record<string, readonly [four: object, five: object]>> = {
  gpt2: [GPT2, { ...GPT2, add_cross_attention: false, tie_word_embeddings: true }],
  llama: [
    {
      ...LLAMA,
      attention_bias: false,
      is_llama_config: true,
      mlp_bias: false,
      pretraining_tp: 2,
      rope_interleaved: false,
      rope_scaling: null,
      rope_theta: 10_000,
      "transformers.js_config": { dtype: "q4" },
    },
    { ...LLAMA, attention_bias: false, mlp_bias: false, pretraining_tp: 1, rope_parameters: ROPE },
  ],
  mistral: [
    { ...LLAMA, rope_theta: 10_000, sliding_window: 4096 },
    { ...LLAMA, rope_parameters: ROPE, sliding_window: null },
  ],
  qwen2: [
    { ...LLAMA, ...QWEN, rope_theta: 10_000, rope_scaling: null, use_mrope: false },
    { ...LLAMA, ...QWEN, layer_types: FULL, rope_parameters: ROPE },
  ],
  qwen3: [
    { ...LLAMA, ...QWEN, attention_bias: false, rope_theta: 10_000, rope_scaling: null },
    { ...LLAMA, ...QWEN, attention_bias: false, layer_types: FULL, rope_parameters: ROPE },
  ],
  gemma2: [
    { ...LLAMA, ...GEMMA, rope_theta: 10_000 },
    {
      ...LLAMA,
      ...GEMMA,
      layer_types: TURNS,
      rope_parameters: ROPE,
      use_bidirectional_attention: null,
    },
  ],
  gemma3_text: [
    {
      ...LLAMA,
      ...GEMMA,
      rope_local_base_freq: 10_000,
      rope_scaling: { factor: 8, rope_type: "linear" },
      rope_theta: 1_000_000,
      sliding_window_pattern: 6,
    },
    {
      ...LLAMA,
      ...GEMMA,
      _sliding_window_pattern: 6,
      layer_types: TURNS,
      rope_parameters: {
        full_attention: { factor: 8, rope_theta: 1_000_000, rope_type: "linear" },
        sliding_attention: ROPE,
      },
      use_bidirectional_attention: false,
    },
  ],
  phi3: [
    {
      ...LLAMA,
      ...PHI3,
      attention_bias: false,
      auto_map: { AutoConfig: "configuration_phi3.Phi3Config" },
      partial_rotary_factor: 1,
      rope_scaling: { ...LONGROPE, type: "longrope" },
      rope_theta: 10_000,
    },
    {
      ...LLAMA,
      ...PHI3,
      rope_parameters: {
        ...LONGROPE,
        ...ROPE,
        original_max_position_embeddings: 32,
        partial_rotary_factor: 1,
        rope_type: "longrope",
        type: "longrope",
      },
    },
  ],
  smollm3: [
    {
      ...LLAMA,
      ...QWEN,
      attention_bias: false,
      layer_types: FULL,
      mlp_bias: false,
      no_rope_layer_interval: 4,
      no_rope_layers: [1, 0],
      pretraining_tp: 2,
      rope_scaling: null,
      rope_theta: 5_000_000,
    },
    {
      ...LLAMA,
      attention_bias: false,
      layer_types: FULL,
      mlp_bias: false,
      no_rope_layer_interval: 4,
      no_rope_layers: [1, 0],
      rope_parameters: ROPE,
      sliding_window: null,
      use_sliding_window: false,
    },
  ],
  gpt_oss: [
    {
      ...LLAMA,
      ...GPT_OSS,
      experts_per_token: 4,
      initial_context_length: 4096,
      rope_scaling: YARN,
      rope_theta: 150_000,
    },
    {
      ...LLAMA,
      ...GPT_OSS,
      rope_parameters: { ...YARN, rope_theta: 150_000 },
      swiglu_alpha: 1.702,
    },
  ],
  bert: [
    { ...BERT, gradient_checkpointing: false, position_embedding_type: "absolute" },
    { ...BERT, ...STACK },
  ],
  distilbert: [DISTILBERT, { ...DISTILBERT, tie_word_embeddings: true }],
  vit: [VIT, { ...VIT, pooler_act: "tanh", pooler_output_size: 16 }],
  whisper: [WHISPER, WHISPER],
  t5: [T5, { ...T5, is_decoder: false, scale_decoder_outputs: false, tie_word_embeddings: true }],
  mt5: [T5, { ...T5, is_decoder: false, scale_decoder_outputs: false, tie_word_embeddings: true }],
};

describe.each(Object.entries(CONFIGS))("a config of %s", (type, [four, five]) => {
  it("has no option that is not known, in both versions", () => {
    const old = Object.fromEntries(Object.entries(OLD).filter(([name]) => !(name in four)));
    for (const config of [four, { ...old, ...four }, five])
      expect(read({ ...config, model_type: type }).family).toBe(type);
  });

  it("may have no other option, nor change what it computes", () => {
    const given = { ...five, model_type: type };
    for (const [name, value] of Object.entries({
      add_cross_attention: true,
      per_layer_config: { 0: { hidden_act: "relu" } },
      pruned_heads: { 1: [0] },
      quantization_config: { quant_method: "awq" },
      something_new: 1,
      tie_encoder_decoder: true,
      use_bidirectional_attention: true,
    }))
      expect(() => read({ ...given, [name]: value })).toThrow(new RegExp(name));
  });
});
