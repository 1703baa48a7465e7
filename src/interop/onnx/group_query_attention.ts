// com.microsoft GroupQueryAttention.

import {
  type RotaryRunOptions,
  rmsNorm,
  rotary,
  splitHeads,
  type Tensor,
  unpackQkv,
} from "../../index.ts";
import {
  attendRows,
  attentionBias,
  cast,
  expectAxes,
  expectBoth,
  expectRank,
  headsOf,
  scaleOf,
  together,
  weightsOf,
} from "./attention_parts.ts";
import { cachedRows, windowedRows } from "./group_query_cache.ts";
import { type Lengths, lengthsOf, positionsOf } from "./group_query_lengths.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";
import { scoresOfSeen } from "./seen_scores.ts";

/**
 * com.microsoft GroupQueryAttention: attention of a language model with a cache. query [B, S, H *
 * D] with key and value [B, S, Hkv * D]; or a packed query [B, S, (H + 2 Hkv) * D] alone. past_key
 * and past_value are [B, Hkv, P or more, D]. seqlens_k [B] are the keys of each entry, past and
 * new, less one; total_sequence_length is the most of them. They are read back where they are on
 * the GPU; give them as numbers, and nothing waits.
 *
 * Where total_sequence_length is S the past is not looked at: a first prompt, of which entry b has
 * seqlens_k[b] + 1 tokens and padding after them. Otherwise all S tokens of an entry are new, and
 * stand at its end. key and value may have no tokens, [B, 0, Hkv * D]: the past then holds those of
 * the new tokens, too.
 *
 * `causal` is 1 unless told; `local_window_size` counts the key at the query's own position;
 * `softcap` comes before attention_bias [B or 1, H or 1, S, total or more]; head_sink [H], or zeros
 * with `smooth_softmax`, joins the sum that probabilities are divided by. With q_norm_weight and
 * k_norm_weight [D] the heads of q and k are divided by their root mean square (of which
 * `qk_norm_epsilon` is under the root, default 1e-6). With `do_rotary` q and k are then rotated by
 * cos_cache and sin_cache [positions, R / 2] at their positions, or at position_ids [B, S], of
 * which a first prompt uses the first, and counts on from there.
 *
 * Output [B, S, H * D]; present_key and present_value [B, Hkv, N, D], N the larger of
 * total_sequence_length and the rows of the past: rotated keys, rows in use, zeros after them. With
 * `past_present_share_buffer` (which the operator has in onnxruntime by binding both to the same
 * memory) new rows are written into the past, and the presents are the pasts. output_qk [B, H, S,
 * total] are, with `qk_output` 1, the scores before the softmax, 0 where the query doesn't see the
 * key; with 2 the probabilities. Quantised caches are not taken.
 *
 * With `sliding_window_cache` past and present have C rows, as many as one likes from W =
 * local_window_size up, and hold the last L keys in order: all T of them up to C, and T - G *
 * ceil((T - C) / G) later, with G = C - W + 1.
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
    const cached = (rows: Tensor, index: 0 | 1) => {
      const wanted = call.wants(index ? "present_value" : "present_key");
      return cacheRows(call, lengths, { rows, past: pasts[index], wanted, shared, dtype });
    };
    const turned = async (rows: Tensor, index: 0 | 1) => rotate(await normalise(rows, index));
    const [q, k] = await together([turned(inputs.q, 0), turned(inputs.k, 1)]);
    const [ofKeys, ofValues] = await together([cached(k, 0), cached(inputs.v, 1)]);
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

/** A bias of all keys as one of those that are attended to. */
function biasOf(call: Call, bias: Tensor, { first }: Lengths["attended"]): Tensor {
  const [begin = 0] = first;
  call.expect(
    first.every((position) => position === begin),
    () =>
      `attention_bias needs pasts that begin at the same key where sliding_window_cache is 1, got keys ${first}`,
  );
  return bias.slice(3, begin, bias.shape[3]);
}

function checkWindow(call: Call, window: number, causal: boolean, isCache: boolean): void {
  call.expect(
    window === -1 || (window >= 1 && causal),
    () => `attribute local_window_size must be -1, or 1 or more where causal is 1, got ${window}`,
  );
  call.expect(
    !isCache || window > 0,
    () => "attribute sliding_window_cache needs a local_window_size",
  );
}

function checkAsked(call: Call, asked: number, wanted: boolean, isWindow: boolean): void {
  call.expect(
    [0, 1, 2].includes(asked),
    () => `attribute qk_output must be 0, 1 or 2, got ${asked}`,
  );
  call.expect(
    asked > 0 || !wanted,
    () => "output_qk needs attribute qk_output: 1 for scores, 2 for probabilities",
  );
  call.expect(
    !isWindow || !wanted,
    () => "output_qk is not to be had where sliding_window_cache is 1",
  );
}

/** Refuses, by name, what there is no way to do. */
function refuse(
  call: Call,
  attributes: { readonly [name: string]: unknown },
  has: (name: "k_scale" | "v_scale") => boolean,
): void {
  for (const name of ["k_quant_type", "v_quant_type"] as const) {
    const type = attributes[name] ?? "NONE";
    call.expect(
      type === "NONE",
      () => `attribute ${name} must be "NONE", got "${type}"; createKvCache has quantised caches`,
    );
  }
  for (const name of ["k_scale", "v_scale"] as const) {
    call.expect(
      !has(name),
      () => `${name} is of quantised caches, which are not taken; createKvCache has them`,
    );
  }
}

function headsOfInputs(
  call: Call,
  heads: number,
  kvHeads: number,
  query: Tensor,
  key: Tensor | undefined,
  value: Tensor | undefined,
): { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor } {
  expectRank(call, "query", query, 3, "[B, S, H * D]");
  call.expect(
    heads % kvHeads === 0,
    () => `num_heads must be a multiple of kv_num_heads, got ${heads} and ${kvHeads}`,
  );
  expectBoth(call, ["key", "value"], [key, value]);
  const [B, S, width] = query.shape;
  const parts = key ? heads : heads + 2 * kvHeads;
  const headDim = width / parts;
  call.expect(Number.isInteger(headDim), () =>
    key
      ? `query [${query.shape}] can't be split into num_heads = ${heads}`
      : `query [${query.shape}] without key must be packed, [B, S, (H + 2 Hkv) * D] with H + 2 Hkv = ${parts}`,
  );
  if (!key || !value) return unpackQkv(query, { heads, kvHeads, headDim });
  const L = key.shape[1] === 0 ? 0 : S;
  expectAxes(call, "key", key, [B, L, kvHeads * headDim], "[B, S, Hkv * D]");
  expectAxes(call, "value", value, [B, L, kvHeads * headDim], "[B, S, Hkv * D]");
  return {
    q: splitHeads(query, heads),
    k: splitHeads(key, kvHeads),
    v: splitHeads(value, kvHeads),
  };
}

/** attention_bias with the keys that there are. */
const sliced = (bias: Tensor | undefined, total: number): Tensor | undefined =>
  bias?.shape.length === 4 && bias.shape[3] > total ? bias.slice(3, 0, total) : bias;

/**
 * What divides rows of heads by their root mean square, with weights for q and for k: nothing
 * without. f32.
 */
function normalisation(
  call: Call,
  weights: readonly [q: Tensor | undefined, k: Tensor | undefined],
  headDim: number,
  epsilon: number,
): (heads: Tensor, index: 0 | 1) => Promise<Tensor> {
  const names = ["q_norm_weight", "k_norm_weight"] as const;
  expectBoth(call, names, weights);
  for (const [index, weight] of weights.entries())
    if (weight) expectAxes(call, names[index], weight, [headDim], "[D]");
  return async (heads, index) => {
    const weight = weights[index];
    if (!weight) return heads;
    return (
      await rmsNorm(heads, { weight, epsilon, output: call.make(heads.shape), label: call.label })
    ).output;
  };
}

/** What turns heads by their positions: nothing without caches, [cos, sin]. The result is f32. */
function rotation(
  call: Call,
  caches: readonly [cos: Tensor | undefined, sin: Tensor | undefined] | undefined,
  options: RotaryRunOptions,
): (heads: Tensor) => Promise<Tensor> {
  if (!caches) return async (heads) => heads;
  const [cos, sin] = caches;
  call.expect(
    (cos && sin) !== undefined,
    () => "cos_cache and sin_cache are required where do_rotary is 1",
  );
  const angles = { cos: cos as Tensor, sin: sin as Tensor };
  return async (heads) =>
    (await rotary(heads, { ...options, ...angles, output: call.make(heads.shape) })).output;
}

/** What joins the sum that probabilities are divided by. */
async function sinksOf(call: Call, heads: number, sink: Tensor | undefined, smooth: boolean) {
  if (!sink) return smooth ? { sinks: new Array<number>(heads).fill(0) } : {};
  expectAxes(call, "head_sink", sink, [heads], "[H]");
  return { sinks: await cast(call, sink, "f32") };
}
