// What a name means that an operator does not know: another library's word, an input, or a misspelt attribute.

/** What attributes are called elsewhere, and here: the first one that an operator knows counts. */
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

const letters = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
const FOREIGN_LETTERS = new Map(Object.entries(FOREIGN).map(([name, ours]) => [letters(name), ours]));

/** The end of a sentence about a name that is none of `right`. */
export function adviceFor(name: string, right: readonly string[]): string {
  const word = letters(name.slice(0, 64));
  const same = right.find((known) => letters(known) === word);
  if (same) return `; did you mean ${same}`;
  const foreign = FOREIGN_LETTERS.get(word)?.find((ours) => right.includes(ours));
  if (foreign) return `; here it is ${foreign}`;
  const [nearest] = right
    .map((known) => ({ known, steps: editDistance(word, letters(known)) }))
    .sort((a, b) => a.steps - b.steps);
  const isNear = nearest && nearest.steps <= Math.max(1, Math.floor(word.length / 3));
  return isNear ? `; did you mean ${nearest.known}` : `; there are: ${right.join(", ") || "none"}`;
}

/** Letters to insert, drop or replace to get from one word to the other. */
function editDistance(a: string, b: string): number {
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + Number(a[i - 1] !== b[j - 1])));
    }
    last = row;
  }
  return last[b.length];
}
