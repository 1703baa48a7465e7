// com.microsoft PackedAttention and PackedMultiHeadAttention: sequences one after the other,
// without padding.

import { splitHeads, Tensor } from "../../index.ts";
import {
  attendRows,
  attentionBias,
  expectAxes,
  expectRank,
  headsOf,
  packedWidths,
  plusBias,
  projectPacked,
  scaleOf,
  splitBias,
  splitPacked,
  together,
} from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";

/**
 * com.microsoft PackedAttention: the projection of q, k and v, and attention, of sequences one
 * after the other. input [tokens, in], weights [in, q + k + v], bias [q + k + v];
 * cumulative_sequence_length [B + 1], from 0 to the tokens; token_offset [B, S], of which only S is
 * used, the length that sequences were padded to; attention_bias [B or 1, H or 1, S, S]. Output
 * [tokens, v].
 *
 * @example
 * const [output] = await PackedAttention([input, weights, bias, tokenOffset, [0, 5, 12]], {
 *   num_heads: 12,
 * });
 */
export const PackedAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.PackedAttention",
    opsets: [1],
    inputs: [
      "input",
      "weights",
      "bias",
      "token_offset",
      "cumulative_sequence_length",
      "attention_bias?",
    ],
    outputs: ["output"],
    attributes: { num_heads: "int", qkv_hidden_sizes: "ints", scale: "float" },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    const input = call.tensor("input");
    const weights = call.tensor("weights");
    const bias = call.tensor("bias");
    expectRank(call, "input", input, 2, "[tokens, input hidden size]");
    const widths = packedWidths(call, weights, heads, call.attributes.qkv_hidden_sizes);
    const sequences = await packedSequences(call, heads, {
      cumulative: call.integers("cumulative_sequence_length"),
      offsets: call.integers("token_offset"),
      bias: call.tensor("attention_bias"),
      tokens: input.shape[0],
    });
    const rows = await projectPacked(call, input, weights, bias);
    const options = { ...scaleOf(call.attributes.scale), ...sequences };
    const output = await attendRows(
      call,
      splitPacked(asEntry(rows), heads, widths),
      options,
      input.dtype,
    );
    return { output: asTokens(output) };
  },
);

/**
 * com.microsoft PackedMultiHeadAttention: attention of projected sequences one after the other.
 * query and key [tokens, H * D] and value [tokens, H * Dv], or a packed query [tokens, H, 3, D]
 * alone; bias [H * D + H * D + H * Dv] is added to q, k and v; the rest as in
 * {@link PackedAttention}. Output [tokens, H * Dv]. No key is padding here, so `mask_filter_value`
 * has no effect.
 *
 * @example
 * const [output] = await PackedMultiHeadAttention(
 *   [query, key, value, null, tokenOffset, [0, 5, 12]],
 *   { num_heads: 12 },
 * );
 */
export const PackedMultiHeadAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.PackedMultiHeadAttention",
    opsets: [1],
    inputs: [
      ...(["query", "key?", "value?", "bias?"] as const),
      ...(["token_offset", "cumulative_sequence_length", "attention_bias?"] as const),
    ],
    outputs: ["output"],
    attributes: { num_heads: "int", mask_filter_value: "float", scale: "float" },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    const { q, k, v } = headsOfTokens(
      call,
      heads,
      call.tensor("query"),
      call.tensor("key"),
      call.tensor("value"),
    );
    const widths = [q, k, v].map(({ shape }) => heads * shape[3]);
    const biases = splitBias(call, call.tensor("bias"), heads, widths);
    const sequences = await packedSequences(call, heads, {
      cumulative: call.integers("cumulative_sequence_length"),
      offsets: call.integers("token_offset"),
      bias: call.tensor("attention_bias"),
      tokens: q.shape[2],
    });
    const [query, key, value] = await together(
      [q, k, v].map((rows, i) => plusBias(call, rows, biases[i])),
    );
    const output = await attendRows(
      call,
      { q: query, k: key, v: value },
      { ...scaleOf(call.attributes.scale), ...sequences },
      q.dtype,
    );
    return { output: asTokens(output) };
  },
);

/** Views [tokens, W] as one entry [1, tokens, W]. */
const asEntry = (rows: Tensor): Tensor =>
  rows.view({ shape: [1, ...rows.shape], strides: [0, ...rows.strides] });
const asTokens = (rows: Tensor): Tensor =>
  rows.view({ shape: rows.shape.slice(1), strides: rows.strides.slice(1) });

/** The heads [1, H, tokens, D] of q, k and v. */
function headsOfTokens(
  call: Call,
  heads: number,
  query: Tensor,
  key: Tensor | undefined,
  value: Tensor | undefined,
): { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor } {
  if (!key) {
    call.expect(
      query.shape.length === 4 && query.shape[1] === heads && query.shape[2] === 3 && !value,
      () =>
        `query must be packed, [tokens, H, 3, D] with H = ${heads}, where key is left out, and value left out, too; got [${query.shape}]`,
    );
    const [tokens, , , D] = query.shape;
    const [t, h, n, d] = query.strides;
    const part = (index: number) =>
      query.view({ shape: [1, heads, tokens, D], strides: [0, h, t, d], offset: index * n });
    return { q: part(0), k: part(1), v: part(2) };
  }
  call.expect(value !== undefined, () => `value is required where key is [${key.shape}]`);
  const values = value as Tensor;
  const split = (name: string, rows: Tensor) => {
    expectRank(call, name, rows, 2, "[tokens, H * D]");
    call.expect(
      rows.shape[1] % heads === 0,
      () => `${name} [${rows.shape}] can't be split into num_heads = ${heads}`,
    );
    return splitHeads(asEntry(rows), heads);
  };
  expectAxes(call, "key", key, query.shape, "[tokens, H * D], as query is,");
  expectAxes(call, "value", values, [query.shape[0], values.shape[1] ?? 0], "[tokens, H * Dv]");
  return { q: split("query", query), k: split("key", key), v: split("value", values) };
}

/** The offsets and lengths of sequences, and their bias, as attention takes them. */
async function packedSequences(
  call: Call,
  heads: number,
  given: {
    readonly cumulative: Tensor | readonly number[];
    readonly offsets: Tensor | readonly number[];
    readonly bias: Tensor | undefined;
    readonly tokens: number;
  },
) {
  const { cumulative, offsets, bias, tokens } = given;
  const lengths =
    cumulative instanceof Tensor
      ? undefined
      : cumulative.slice(1).map((end, i) => end - cumulative[i]);
  const B = (cumulative instanceof Tensor ? cumulative.size : cumulative.length) - 1;
  const S = offsets instanceof Tensor ? offsets.shape[1] : (offsets?.length ?? 0) / B;
  if (offsets instanceof Tensor)
    expectAxes(
      call,
      "token_offset",
      offsets,
      [B, S ?? 0],
      "[B, S], with B one less than cumulative_sequence_length has,",
    );
  call.expect(
    lengths === undefined || lengths.every((length) => length <= S),
    () =>
      `token_offset must be [B, S] with S at least the longest of the sequences, got S = ${S} for cumulative_sequence_length ${cumulative}`,
  );
  const { bias: whole } = await attentionBias(call, bias, [B, heads, S, S]);
  const longest = lengths ? Math.max(0, ...lengths) : Math.min(S, tokens);
  return {
    cuSeqlensQ: cumulative,
    cuSeqlensKv: cumulative,
    maxSeqlenQ: longest,
    maxSeqlenKv: longest,
    ...(whole && { bias: whole.slice(2, 0, longest).slice(3, 0, longest) }),
  };
}
