// com.microsoft GroupQueryAttention.

import type { Tensor } from "../../../index.ts";
import {
  attendRows,
  attentionBias,
  cast,
  headsOf,
  scaleOf,
  together,
  weightsOf,
} from "../attention_parts.ts";
import { onnxOperator } from "../operator.ts";
import { scoresOfSeen } from "../seen_scores.ts";
import { cachedRows, windowedRows } from "./cache.ts";
import {
  biasOf,
  checkAsked,
  checkWindow,
  headsOfInputs,
  normalisation,
  refuse,
  rotation,
  sinksOf,
  sliced,
} from "./inputs.ts";
import { lengthsOf, positionsOf } from "./lengths.ts";

/**
 * com.microsoft GroupQueryAttention: attention of a language model with a cache. query
 * [B, S, H * D] with key and value [B, S, Hkv * D]; or a packed query [B, S, (H + 2 Hkv) * D]
 * alone. past_key and past_value are [B, Hkv, P or more, D]. seqlens_k [B] are the numbers of keys
 * of each entry, past and new, minus one; total_sequence_length is the largest number of keys. On
 * the GPU they are read back; given as numbers they make nothing wait.
 *
 * If total_sequence_length is S, the call is a first prompt, and the past is not read: entry b has
 * seqlens_k[b] + 1 tokens and padding after them. Otherwise all S tokens of an entry are new, and
 * stand at its end. key and value may have no tokens, [B, 0, Hkv * D]: then the past holds those of
 * the new tokens, too.
 *
 * `causal` is 1 by default; `local_window_size` counts the key at the query's own position;
 * `softcap` comes before attention_bias [B or 1, H or 1, S, total or more]; head_sink [H], or zeros
 * with `smooth_softmax`, joins the sum that probabilities are divided by. With q_norm_weight and
 * k_norm_weight [D] the heads of q and k are divided by their root mean square (of which
 * `qk_norm_epsilon` is under the root, default 1e-6). With `do_rotary` q and k are then rotated by
 * cos_cache and sin_cache [positions, R / 2] at their positions, or at position_ids [B, S], of
 * which a first prompt uses the first id of each entry, and counts on from there.
 *
 * Output [B, S, H * D]; present_key and present_value [B, Hkv, N, D], N being the larger of
 * total_sequence_length and the rows of the past. They hold the used rows, with rotated keys, and
 * zeros after them. With `past_present_share_buffer` (in onnxruntime both are bound to the same
 * memory instead) new rows are written into the past, and the presents are the pasts. output_qk
 * [B, H, S, total] are the scores before the softmax with `qk_output` 1, and 0 for keys that the
 * query doesn't see; with 2 they are the probabilities. Quantised caches are not taken.
 *
 * With `sliding_window_cache` past and present have C rows, C being any number from W =
 * local_window_size up, and hold the last L keys in order: L is the number T of all keys up to C,
 * and T - G * ceil((T - C) / G) later, with G = C - W + 1.
 *
 * @example
 * const inputs = [query, key, value, pastKey, pastValue, [12], [13], cos, sin];
 * const attributes = { num_heads: 32, kv_num_heads: 8, do_rotary: true };
 * const [output, presentKey, presentValue] = await GroupQueryAttention(inputs, attributes, {
 *   outputs: 3,
 * });
 */
export const GroupQueryAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.GroupQueryAttention",
    opsets: [1],
    inputs: [
      ...([
        "query",
        "key?",
        "value?",
        "past_key?",
        "past_value?",
        "seqlens_k",
        "total_sequence_length",
      ] as const),
      ...(["cos_cache?", "sin_cache?", "position_ids?", "attention_bias?", "head_sink?"] as const),
      ...(["k_scale?", "v_scale?", "q_norm_weight?", "k_norm_weight?"] as const),
    ],
    outputs: ["output", "present_key?", "present_value?", "output_qk?"],
    attributes: {
      num_heads: "int",
      kv_num_heads: "int",
      causal: "flag",
      scale: "float",
      softcap: "float",
      local_window_size: "int",
      sliding_window_cache: "flag",
      do_rotary: "flag",
      rotary_interleaved: "flag",
      smooth_softmax: "int",
      qk_output: "int",
      k_quant_type: "string",
      v_quant_type: "string",
      kv_cache_bit_width: "int",
      qk_norm_epsilon: "float",
      past_present_share_buffer: "flag",
    },
  },
  async (call) => {
    const { attributes } = call;
    const {
      causal = true,
      local_window_size: window = -1,
      scale,
      softcap = 0,
      qk_output: asked = 0,
    } = attributes;
    const heads = headsOf(call, attributes.num_heads);
    const kvHeads = headsOf(call, attributes.kv_num_heads, "kv_num_heads");
    refuse(call, attributes, (name) => call.has(name));
    const { sliding_window_cache: isWindow = false } = attributes;
    checkWindow(call, window, causal, isWindow);
    call.expect(
      softcap >= 0,
      () => `attribute softcap must be 0 for none, or more, got ${softcap}`,
    );
    checkAsked(call, asked, call.wants("output_qk"), isWindow);
    const inputs = headsOfInputs(
      call,
      heads,
      kvHeads,
      call.tensor("query"),
      call.tensor("key"),
      call.tensor("value"),
    );
    const [B, , S, D] = inputs.q.shape;
    const [, , L] = inputs.k.shape;
    const { dtype } = inputs.q;
    const pasts = [call.tensor("past_key"), call.tensor("past_value")] as const;
    const lengths = lengthsOf(call, {
      B,
      S,
      L,
      pasts,
      shape: [B, kvHeads, pasts[0]?.shape[2] ?? 0, D],
      seqlens: await call.numbers("seqlens_k"),
      totals: await call.numbers("total_sequence_length"),
      window: isWindow ? window : undefined,
    });
    const { total, attended } = lengths;
    const { bias: whole } = await attentionBias(
      call,
      sliced(call.tensor("attention_bias"), total),
      [B, heads, S, total],
    );
    const bias = whole && biasOf(call, whole, attended);
    const caches = attributes.do_rotary
      ? ([call.tensor("cos_cache"), call.tensor("sin_cache")] as const)
      : undefined;
    const positions = positionsOf(call, call.integers("position_ids"), lengths);
    const interleaved = attributes.rotary_interleaved ?? false;
    const rotate = rotation(call, caches, { ...positions, interleaved, label: call.label });

    const norms = [call.tensor("q_norm_weight"), call.tensor("k_norm_weight")] as const;
    const normalise = normalisation(call, norms, D, attributes.qk_norm_epsilon ?? 1e-6);
    const sinks = await sinksOf(
      call,
      heads,
      call.tensor("head_sink"),
      attributes.smooth_softmax === 1,
    );

    const shared = attributes.past_present_share_buffer ?? false;
    const cacheRows = isWindow ? windowedRows : cachedRows;
    const inCache = (rows: Tensor, index: 0 | 1) => {
      const wanted = call.wants(index ? "present_value" : "present_key");
      return cacheRows(call, lengths, { rows, past: pasts[index], wanted, shared, dtype });
    };
    const turned = async (rows: Tensor, index: 0 | 1) => rotate(await normalise(rows, index));
    const [q, k] = await together([turned(inputs.q, 0), turned(inputs.k, 1)]);
    const [ofKeys, ofValues] = await together([inCache(k, 0), inCache(inputs.v, 1)]);
    const presents = { present_key: ofKeys.present, present_value: ofValues.present };
    const used = { q, k: ofKeys.attended, v: ofValues.attended };
    const { keys } = attended;
    const options = {
      ...scaleOf(scale),
      ...(bias && { bias }),
      ...(softcap > 0 && { softcap }),
      causal,
      queryOffset: attended.offsets,
      ...(window > 0 && { window: [window - 1, 0] as const }),
      ...(keys.some((count) => count < used.k.shape[2]) && { kvLengths: keys }),
      ...sinks,
    };
    const output = await attendRows(call, used, options, dtype);
    if (!call.wants("output_qk")) return { output, ...presents };
    const qk =
      asked === 1
        ? await scoresOfSeen(call, used, { ...options, keys, windowSize: window })
        : await weightsOf(call, used, options);
    return { output, ...presents, output_qk: await cast(call, call.own(qk), dtype) };
  },
);
