// Advice on names that an operator does not know: a word of another library, an input, or a
// misspelt attribute.

import { nearestName, plain } from "../../unknown_option.ts";

/**
 * Names of attributes elsewhere, and their names here, of which the first one that an operator
 * knows is meant.
 */
const FOREIGN: Readonly<Record<string, readonly string[]>> = {
  causal: ["is_causal", "unidirectional", "use_causal_mask", "causal"],
  is_causal: ["unidirectional", "use_causal_mask", "causal"],
  unidirectional: ["is_causal", "use_causal_mask", "causal"],
  use_causal_mask: ["is_causal", "unidirectional", "causal"],
  heads: ["num_heads", "q_num_heads", "nhead"],
  n_head: ["num_heads", "q_num_heads", "nhead"],
  num_attention_heads: ["num_heads", "q_num_heads", "nhead"],
  num_heads: ["q_num_heads", "nhead"],
  q_num_heads: ["num_heads"],
  kv_heads: ["kv_num_heads"],
  num_kv_heads: ["kv_num_heads"],
  num_key_value_heads: ["kv_num_heads"],
  softmax_scale: ["scale"],
  logits_soft_cap: ["softcap"],
  attn_logit_softcapping: ["softcap"],
  eps: ["epsilon", "layer_norm_eps"],
  layer_norm_eps: ["epsilon"],
  dim: ["axis"],
  window: ["local_window_size", "left_window_size"],
  window_size: ["local_window_size", "left_window_size"],
  sliding_window: ["local_window_size", "left_window_size"],
  local_window_size: ["left_window_size"],
  left_window_size: ["local_window_size"],
  rotary: ["do_rotary"],
  rope: ["do_rotary"],
  rotary_interleaved: ["interleaved"],
  interleaved: ["rotary_interleaved"],
  rotary_dim: ["rotary_embedding_dim"],
  sections: ["mrope_section"],
  mrope_sections: ["mrope_section"],
  hidden_sizes: ["qkv_hidden_sizes"],
  output_qk: ["qk_output", "qk_matmul_output_mode"],
  qk_output: ["qk_matmul_output_mode"],
  qk_matmul_output_mode: ["qk_output"],
  bidirectional: ["is_bidirectional"],
  mode: ["update_rule"],
  approximation: ["approximate"],
};

const FOREIGN_PLAIN = new Map(Object.entries(FOREIGN).map(([name, ours]) => [plain(name), ours]));

/** The end of a sentence about a name that isn't one of `right`. */
export function adviceFor(name: string, right: readonly string[]): string {
  const word = plain(name.slice(0, 64));
  const same = right.find((known) => plain(known) === word);
  if (same) return `; did you mean ${same}`;
  const foreign = FOREIGN_PLAIN.get(word)?.find((ours) => right.includes(ours));
  if (foreign) return `; here it is ${foreign}`;
  const nearest = nearestName(word, right);
  return nearest ? `; did you mean ${nearest}` : `; there are: ${right.join(", ") || "none"}`;
}
