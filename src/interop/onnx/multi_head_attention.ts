// com.microsoft MultiHeadAttention.

import { splitHeads, type Tensor } from "../../index.ts";
import {
  attendRows,
  attentionBias,
  cast,
  expectAxes,
  expectBoth,
  expectRank,
  headsOf,
  plusBias,
  scaleOf,
  splitBias,
  together,
  weightsOf,
} from "./attention_parts.ts";
import { loadPaddingMask } from "./load_padding_mask.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";
import { pastLength, writePresent } from "./past_present.ts";

/**
 * com.microsoft MultiHeadAttention: attention of projected inputs. query [B, S, H * D] with key [B,
 * L, H * D] and value [B, L, H * Dv], or with packed keys and values [B, L, H, 2, D], or with key
 * and value [B, H, L, D] of cross attention; or a packed query [B, S, H, 3, D] alone. bias [H * D +
 * H * D + H * Dv] is added to q, k and v; key_padding_mask, by its shape as mask_index of
 * {@link MicrosoftAttention}, `mask_filter_value` (default -10000) added where it masks;
 * attention_bias
 * [B or 1, H or 1, S, P + L]; past_key and past_value [B, H, P, D], to which present_key and
 * present_value add the new ones, also to key and value [B, H, L, D]. With `unidirectional` the
 * last query stands at the last key. Output [B, S, H * Dv]; qk [B, H, S, P + L] are the scores
 * before the softmax, biases and masks included.
 *
 * With past_sequence_length, past_key and past_value are [B, H, most tokens, D], of which so many
 * are used: new rows are written into them, and they are the presents. cache_indirection, for beam
 * search, is not taken.
 *
 * @example
 * const [output, presentKey, presentValue] = await MultiHeadAttention(
 *   [query, key, value, null, null, null, pastKey, pastValue],
 *   { num_heads: 8, unidirectional: 1 },
 *   { outputs: 3 },
 * );
 */
export const MultiHeadAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.MultiHeadAttention",
    opsets: [1],
    inputs: [
      ...(["query", "key?", "value?", "bias?", "key_padding_mask?", "attention_bias?"] as const),
      ...(["past_key?", "past_value?", "past_sequence_length?", "cache_indirection?"] as const),
    ],
    outputs: ["output", "present_key?", "present_value?", "qk?"],
    attributes: {
      num_heads: "int",
      mask_filter_value: "float",
      scale: "float",
      unidirectional: "flag",
    },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    call.expect(
      !call.has("cache_indirection"),
      () => "cache_indirection is not taken; put the beams in order yourself",
    );
    const parts = headsOfInputs(
      call,
      heads,
      call.tensor("query"),
      call.tensor("key"),
      call.tensor("value"),
    );
    const { q, k, v, cross } = parts;
    const [B, , S, D] = q.shape;
    const [, , L] = k.shape;
    const [, , , Dv] = v.shape;
    const pasts = [call.tensor("past_key"), call.tensor("past_value")];
    expectBoth(call, ["past_key", "past_value"], pasts);
    const rows = pasts[0]?.shape[2] ?? 0;
    if (pasts[0]) expectAxes(call, "past_key", pasts[0], [B, heads, rows, D], "[B, H, P, D]");
    if (pasts[1]) expectAxes(call, "past_value", pasts[1], [B, heads, rows, Dv], "[B, H, P, Dv]");
    const shared = pasts[0] !== undefined && call.has("past_sequence_length");
    const given = shared ? () => call.numbers("past_sequence_length") : undefined;
    const P = await pastLength(
      call,
      { name: "past_key", past: pasts[0], axis: 2, added: L },
      given,
    );
    const T = P + L;
    const biases = splitBias(
      call,
      call.tensor("bias"),
      heads,
      [D, D, Dv].map((width) => heads * width),
    );
    call.expect(
      !(cross && biases.length),
      () => "bias doesn't go with key and value [B, H, L, D], which have theirs",
    );
    const { mask_filter_value: filterValue, scale, unidirectional } = call.attributes;
    const sizes = { batch: B, queries: S, past: P, total: T };
    const mask = call.integers("key_padding_mask");
    const padding =
      mask && (await loadPaddingMask())(call, "key_padding_mask", mask, sizes, { filterValue });
    const bias = await attentionBias(call, call.tensor("attention_bias"), [B, heads, S, T]);

    const present = async (rows: Tensor, index: 0 | 1) => {
      const past = pasts[index];
      const added = biases[1 + index];
      if (!past && !call.wants(index ? "present_value" : "present_key"))
        return plusBias(call, rows, added);
      const made = shared ? (past as Tensor) : call.make([B, heads, T, rows.shape[3]], rows.dtype);
      await writePresent(call, { rows, bias: added, past, starts: P, present: made, shared });
      return made;
    };
    const [query, key, value] = await together([
      plusBias(call, q, biases[0]),
      present(k, 0),
      present(v, 1),
    ]);
    const used = { q: query, k: key.slice(2, 0, T), v: value.slice(2, 0, T) };
    const options = {
      ...scaleOf(scale),
      ...bias,
      ...(padding && { scoreFunction: padding }),
      causal: unidirectional ?? false,
    };
    const output = await attendRows(call, used, options, q.dtype);
    if (!call.wants("qk")) return { output, present_key: key, present_value: value };
    const qk = await cast(
      call,
      call.own(await weightsOf(call, used, { ...options, stage: "scores" })),
      q.dtype,
    );
    return { output, present_key: key, present_value: value, qk };
  },
);

/**
 * The heads [B, H, S, D] of q, k and v, however they are packed; `cross` if keys and values came as
 * heads.
 */
function headsOfInputs(
  call: Call,
  heads: number,
  query: Tensor,
  key: Tensor | undefined,
  value: Tensor | undefined,
): { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor; readonly cross: boolean } {
  const split = (name: string, rows: Tensor) => {
    expectRank(call, name, rows, 3, "[B, S, H * D]");
    call.expect(
      rows.shape[2] % heads === 0,
      () => `${name} [${rows.shape}] can't be split into num_heads = ${heads}`,
    );
    return splitHeads(rows, heads);
  };
  if (!key) {
    call.expect(
      query.shape.length === 5 && query.shape[3] === 3 && query.shape[2] === heads && !value,
      () =>
        `query must be packed, [B, S, H, 3, D] with H = ${heads}, where key is left out, and value left out, too; got [${query.shape}]`,
    );
    const [q, k, v] = [0, 1, 2].map((index) => packedPart(query, index));
    return { q, k, v, cross: false };
  }
  const q = split("query", query);
  const [B, , , D] = q.shape;
  const L = key.shape[key.shape.length === 4 ? 2 : 1];
  if (key.shape.length === 5) {
    expectAxes(call, "key", key, [B, L, heads, 2, D], "[B, L, H, 2, D]");
    call.expect(!value, () => "value must be left out where key is packed, [B, L, H, 2, D]");
    return { q, k: packedPart(key, 0), v: packedPart(key, 1), cross: false };
  }
  call.expect(value !== undefined, () => `value is required where key is [${key.shape}]`);
  const values = value as Tensor;
  if (key.shape.length === 4) {
    expectAxes(call, "key", key, [B, heads, L, D], "[B, H, L, D]");
    expectAxes(call, "value", values, [B, heads, L, values.shape[3] ?? D], "[B, H, L, Dv]");
    return { q, k: key, v: values, cross: true };
  }
  expectAxes(call, "key", key, [B, L, heads * D], "[B, L, H * D], as query has them,");
  expectAxes(call, "value", values, [B, L, values.shape[2] ?? 0], "[B, L, H * Dv]");
  return { q, k: split("key", key), v: split("value", values), cross: false };
}

/** Takes one of the n packed tensors of [B, S, H, n, D] as [B, H, S, D]. */
function packedPart(packed: Tensor, index: number): Tensor {
  const [B, S, H, , D] = packed.shape;
  const [b, s, h, n, d] = packed.strides;
  return packed.view({ shape: [B, H, S, D], strides: [b, h, s, d], offset: index * n });
}
