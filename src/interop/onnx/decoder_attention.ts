// com.microsoft DecoderAttention.

import { project, splitHeads, type Tensor } from "../../index.ts";
import { attendRows, expectAxes, expectRank, headsOf, together } from "./attention_parts.ts";
import { loadPaddingMask } from "./load_padding_mask.ts";
import { onnxOperator } from "./operator.ts";
import { writePresent } from "./past_present.ts";

/**
 * com.microsoft DecoderAttention: the projection of q, k and v, and attention, of a decoder in
 * fairseq's layout. query [S, B, E], key [L, B, E], q_weight [E, E], kv_weight [E, 2 E], bias
 * [3 E]. Four flags, one boolean each, say which keys and values are attended to:
 *
 * | static_kv | use_past and has_layer_state | keys and values |
 * |---|---|---|
 * | 0 | no | of query: self-attention |
 * | 0 | yes | those of the caches, then those of query |
 * | 1 | no | of key: cross-attention |
 * | 1 | yes | those of the caches |
 *
 * key_cache and value_cache are [B, H, P, D]. key_padding_mask [B, T], u8, counts if
 * `has_key_padding_mask` says so: true means padding, to whose scores `mask_filter_value` (default
 * -10000) is added. Output [S, B, E]; new_key_cache and new_value_cache [B, H, T, D] are all keys
 * and values that were attended to. Flags on the GPU are read back.
 *
 * @example
 * const inputs = [
 *   query,
 *   key,
 *   qWeight,
 *   kvWeight,
 *   bias,
 *   null,
 *   keyCache,
 *   valueCache,
 *   [0],
 *   [1],
 *   [1],
 *   [0],
 * ];
 * const [output, newKeyCache, newValueCache] = await DecoderAttention(
 *   inputs,
 *   { num_heads: 8 },
 *   { outputs: 3 },
 * );
 */
export const DecoderAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.DecoderAttention",
    opsets: [1],
    inputs: [
      ...(["query", "key", "q_weight", "kv_weight", "bias"] as const),
      ...(["key_padding_mask?", "key_cache?", "value_cache?"] as const),
      ...(["static_kv", "use_past", "has_layer_state", "has_key_padding_mask"] as const),
    ],
    outputs: ["output", "new_key_cache?", "new_value_cache?"],
    attributes: { num_heads: "int", mask_filter_value: "float" },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    const query = call.tensor("query");
    const key = call.tensor("key");
    const bias = call.tensor("bias");
    expectRank(call, "query", query, 3, "[S, B, E]");
    const [S, B, E] = query.shape;
    const D = E / heads;
    call.expect(
      E % heads === 0,
      () => `query [${query.shape}] can't be split into num_heads = ${heads}`,
    );
    expectAxes(call, "key", key, [key.shape[0], B, E], "[L, B, E]");
    expectAxes(call, "q_weight", call.tensor("q_weight"), [E, E], "[E, E]");
    expectAxes(call, "kv_weight", call.tensor("kv_weight"), [E, 2 * E], "[E, 2 E]");
    expectAxes(call, "bias", bias, [3 * E], "[3 E]");
    const flag = async (
      name: "static_kv" | "use_past" | "has_layer_state" | "has_key_padding_mask",
    ) => {
      const values = await call.numbers(name);
      call.expect(values.length === 1, () => `${name} must be one flag, got ${values.length}`);
      return values[0] !== 0;
    };
    const isCross = await flag("static_kv");
    const usesPast = (await flag("use_past")) && (await flag("has_layer_state"));
    const [keyCache, valueCache] = usesPast
      ? [call.tensor("key_cache"), call.tensor("value_cache")]
      : [];
    call.expect(
      !usesPast || (keyCache !== undefined && valueCache !== undefined),
      () => "key_cache and value_cache are required where use_past and has_layer_state are true",
    );
    const P = keyCache?.shape[2] ?? 0;
    if (keyCache) expectAxes(call, "key_cache", keyCache, [B, heads, P, D], "[B, H, P, D]");
    if (valueCache) expectAxes(call, "value_cache", valueCache, [B, heads, P, D], "[B, H, P, D]");
    const added = isCross ? (usesPast ? undefined : key) : query;
    const T = P + (added?.shape[0] ?? 0);
    const mask = (await flag("has_key_padding_mask")) ? call.tensor("key_padding_mask") : null;
    call.expect(
      mask !== undefined,
      () => "key_padding_mask is required where has_key_padding_mask is true",
    );
    const sizes = { batch: B, queries: S, past: P, total: T };
    const filterValue = call.attributes.mask_filter_value;
    const padding =
      mask &&
      (await loadPaddingMask())(call, "key_padding_mask", mask, sizes, {
        filterValue,
        ignored: true,
      });

    const { label } = call;
    const projected = async (rows: Tensor, weight: Tensor, from: number, to: number) => {
      const output = call.make([B, rows.shape[0], to - from]);
      await project(rows.permute(1, 0, 2), weight.permute(1, 0), {
        bias: bias.slice(0, from, to),
        output,
        label,
      });
      return output;
    };
    const q = splitHeads(await projected(query, call.tensor("q_weight"), 0, E), heads);
    const kv = added && (await projected(added, call.tensor("kv_weight"), E, 3 * E));
    const all = async (index: 0 | 1) => {
      const past = index ? valueCache : keyCache;
      const wanted = call.wants(index ? "new_value_cache" : "new_key_cache");
      const rows = kv && splitHeads(kv.slice(2, index * E, (index + 1) * E), heads);
      if (!wanted && !(rows && past)) return (rows ?? past) as Tensor;
      const present = call.make([B, heads, T, D], query.dtype);
      await writePresent(call, {
        rows: rows ?? (past as Tensor).slice(2, 0, 0),
        past,
        starts: P,
        present,
      });
      return present;
    };
    const [k, v] = await together([all(0), all(1)]);
    const output = call.make(query.shape, query.dtype);
    await attendRows(
      call,
      { q, k, v },
      padding ? { scoreFunction: padding } : {},
      output.permute(1, 0, 2),
    );
    return { output, new_key_cache: k, new_value_cache: v };
  },
);
