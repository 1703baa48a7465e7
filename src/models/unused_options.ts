// Options of configs that change nothing of what a model computes: of any family, in the versions 4
// and 5 of Hugging Face's transformers.

/** What only training uses. */
const TRAINING = [
  "activation_dropout",
  "attention_dropout",
  "attention_probs_dropout_prob",
  "attn_pdrop",
  "classifier_dropout",
  "dropout",
  "dropout_rate",
  "embd_pdrop",
  "gradient_checkpointing",
  "hidden_dropout_prob",
  "init_std",
  "initializer_factor",
  "initializer_range",
  "output_router_logits",
  "qa_dropout",
  "resid_pdrop",
  "router_aux_loss_coef",
  "seq_classif_dropout",
];

/** Numbers of tokens that tokenizers and generation use. */
const TOKENS = [
  "bos_token_id",
  "decoder_start_token_id",
  "eos_token_id",
  "image_token_id",
  "pad_token_id",
  "sep_token_id",
  "unk_token_id",
];

/** How tokens are chosen. */
const GENERATION = [
  "bad_words_ids",
  "begin_suppress_tokens",
  "cache_implementation",
  "diversity_penalty",
  "do_sample",
  "early_stopping",
  "encoder_no_repeat_ngram_size",
  "exponential_decay_length_penalty",
  "forced_bos_token_id",
  "forced_decoder_ids",
  "forced_eos_token_id",
  "length_penalty",
  "max_length",
  "min_length",
  "no_repeat_ngram_size",
  "num_beam_groups",
  "num_beams",
  "num_return_sequences",
  "prefix",
  "remove_invalid_values",
  "repetition_penalty",
  "suppress_tokens",
  "temperature",
  "top_k",
  "top_p",
  "typical_p",
  "use_cache",
];

/** What transformers' own classes give back, and how they compute the same. */
const RESULTS = [
  "_attn_implementation",
  "_attn_implementation_autoset",
  "_experts_implementation",
  "attn_implementation",
  "chunk_size_feed_forward",
  "output_attentions",
  "output_hidden_states",
  "output_past",
  "output_scores",
  "pretraining_tp",
  "return_dict",
  "return_dict_in_generate",
  "tf_legacy_loss",
  "torchscript",
  "use_bfloat16",
];

/** Heads for other tasks, which checkpoints of these results do not have. */
const OTHER_TASKS = [
  "finetuning_task",
  "id2label",
  "label2id",
  "num_labels",
  "problem_type",
  "summary_activation",
  "summary_first_dropout",
  "summary_proj_to_labels",
  "summary_type",
  "summary_use_proj",
  "task_specific_params",
];

/** What the files say of themselves: weights are loaded in the types that they are stored in. */
const FILES = [
  "_commit_hash",
  "_name_or_path",
  "architectures",
  "auto_map",
  "dtype",
  "language",
  "model_type",
  "name_or_path",
  "tokenizer_class",
  "torch_dtype",
  "transformers.js_config",
  "transformers_version",
];

/** The names of options that no family reads. */
export const UNUSED_OPTIONS: ReadonlySet<string> = new Set(
  [TRAINING, TOKENS, GENERATION, RESULTS, OTHER_TASKS, FILES].flat(),
);
