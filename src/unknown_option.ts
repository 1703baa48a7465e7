// The error for an option that does not exist: what other libraries mean by its name, or the
// nearest name that exists.

import { FoveaError, show } from "./errors.ts";

/** The error for a name that is not one of `names`. */
export function unknownOption(label: string, name: string, names: object): FoveaError {
  const advice = adviceFor(name, Object.keys(names));
  return new FoveaError("argument", `${label}: there is no option ${show(name)}. ${advice}`);
}

/**
 * Names of options in other libraries, and what they are here: either names, of which the first one
 * that a function knows is meant, or a sentence.
 */
const FOREIGN: Readonly<Record<string, readonly string[] | string>> = {
  // PyTorch: scaled_dot_product_attention, nn.MultiheadAttention, FlexAttention
  is_causal: ["causal"],
  attn_mask: ["mask", "bias"],
  dropout_p: ["dropout"],
  enable_gqa: "Fewer heads of k and v than of q are groups without an option: leave it out.",
  key_padding_mask: ["ignoreKeyMask", "kvLengths"],
  need_weights: ["weights"],
  average_attn_weights: ["weights"],
  add_zero_attn: ["zeroAttention"],
  embed_dim: "Widths are those of the weights: leave it out.",
  batch_first: "Tensors are batch first: leave it out.",
  score_mod: ["scoreFunction"],
  mask_mod: ["maskFunction"],
  return_lse: ["lse"],
  dim: ["axis", "headDim"],
  weight: ["classWeights"],
  padding_idx: ["paddingId"],
  eps: ["epsilon", "eps"],
  // FlashAttention
  softmax_scale: ["scale"],
  window_size: ["window"],
  alibi: ["alibiSlopes"],
  logits_soft_cap: ["softcap"],
  cu_seqlens_k: ["cuSeqlensKv"],
  max_seqlen_k: ["maxSeqlenKv"],
  seqused_q: ["qLengths"],
  seqused_k: ["kvLengths"],
  cache_seqlens: ["kvLengths"],
  return_softmax_lse: ["lse"],
  return_attn_probs: "attentionWeights() gives probabilities.",
  learnable_sink: ["sinks"],
  s_aux: ["sinks"],
  num_splits: ["kvSplits"],
  block_table:
    "createPagedKvCache() makes a cache in pages, which attention takes in place of k and v.",
  similarity: "attention() takes others.",
  deterministic: "Results always are: leave it out.",
  // Keras
  use_causal_mask: ["causal"],
  attention_mask: ["mask", "keyMask"],
  padding_mask: ["keyMask", "kvLengths"],
  value_mask: ["keyMask", "kvLengths"],
  return_attention_scores: ["weights", "lse"],
  key_dim: ["headDim"],
  // ONNX and ONNX Runtime
  unidirectional: ["causal"],
  q_num_heads: ["heads"],
  num_heads: ["heads"],
  num_head: ["heads"],
  kv_num_heads: ["kvHeads"],
  local_window_size: ["window"],
  do_rotary: ["rotary"],
  past_key: ["cache"],
  past_value: ["cache"],
  attention_bias: ["bias"],
  smooth_softmax: ["sinks"],
  head_sink: ["sinks"],
  qk_matmul_output_mode: "attentionWeights() gives scores at each stage.",
  seqlens_k: ["kvLengths"],
  // Configurations of models
  num_attention_heads: ["heads"],
  num_key_value_heads: ["kvHeads"],
  sliding_window: ["window"],
  attn_logit_softcapping: ["softcap"],
  attention_chunk_size: ["attentionChunk"],
  max_position_embeddings: ["capacity", "maxTokens", "originalMaxPositions"],
  max_seq_len: ["capacity", "maxTokens"],
  max_length: ["capacity", "maxTokens"],
  rope: ["rotary"],
  rope_theta: ["base", "rotary"],
  theta: ["base"],
  rope_scaling: ["scaling", "rotary"],
  rope_type: ["type"],
  original_max_position_embeddings: ["originalMaxPositions"],
  batch_size: ["batch", "entries"],
  block_size: ["pageSize", "blockSize"],
  num_pages: ["pages"],
  num_blocks: ["pages"],
  rotary:
    "rotary() turns queries and keys before attention, and a cache made with `rotary` does as it takes them.",
};

/** A name without letter case and signs, in which spellings differ. */
export const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
const FOREIGN_PLAIN = new Map(Object.entries(FOREIGN).map(([name, ours]) => [plain(name), ours]));

/** A sentence that says which of the right names, or what else, is meant. */
function adviceFor(name: string, right: readonly string[]): string {
  const all = `Options: ${right.join(", ") || "none"}.`;
  const word = plain(name.slice(0, 64));
  const same = right.find((known) => plain(known) === word);
  if (same) return `Did you mean ${same}?`;
  const foreign = FOREIGN_PLAIN.get(word);
  if (typeof foreign === "string") return foreign;
  const known = foreign?.filter((ours) => right.includes(ours)) ?? [];
  if (known.length) return `Here it is ${known.join(" or ")}.`;
  const instead = foreign
    ?.map((ours) => FOREIGN_PLAIN.get(plain(ours)))
    .find((text) => typeof text === "string");
  if (instead) return instead as string;
  const nearest = nearestName(word, right);
  return nearest ? `Did you mean ${nearest}?` : all;
}

/** The one of the right names that a plain word is a few letters away from. */
export function nearestName(word: string, right: readonly string[]): string | undefined {
  const [nearest] = right
    .map((one) => ({ one, steps: editDistance(word, plain(one)) }))
    .sort((a, b) => a.steps - b.steps);
  return nearest && nearest.steps <= Math.max(1, Math.floor(word.length / 3))
    ? nearest.one
    : undefined;
}

/**
 * Letters to insert, drop, replace or swap with their neighbour to get from one word to the other.
 */
function editDistance(a: string, b: string): number {
  let before = [] as number[];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1] + Number(a[i - 1] !== b[j - 1]);
      const swaps = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(
        Math.min(
          last[j] + 1,
          row[j - 1] + 1,
          replaced,
          swaps ? before[j - 2] + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
    before = last;
    last = row;
  }
  return last[b.length];
}
