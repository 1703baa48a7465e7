// com.microsoft Attention.

import { rotary, type Tensor } from "../../index.ts";
import {
  attendRows,
  attentionBias,
  expectAxes,
  expectRank,
  headsOf,
  packedWidths,
  projectPacked,
  scaleOf,
  splitPacked,
  together,
} from "./attention_parts.ts";
import { loadPaddingMask } from "./load_padding_mask.ts";
import { onnxOperator } from "./operator.ts";
import { pastLength, writePresent } from "./past_present.ts";

/**
 * com.microsoft Attention: the projection of q, k and v, and attention, as in BERT
 * (`unidirectional: 0`) and GPT-2 (1). input [B, S, in], weights [in, q + k + v], bias [q + k + v];
 * mask_index, by its shape: ends of the keys [B], ends and begins [2B], lengths and the
 * starts of padded rows [3B + 2], keys [B, T] or scores [B, S, T], a finite `mask_filter_value`
 * (default -10000) added where it masks; past [2, B, H, P, D], to which present [2, B, H, P + S, D]
 * adds the new keys and values; attention_bias [B or 1, H or 1, S, P + S]. Output [B, S, v].
 *
 * With `past_present_share_buffer`, past is [2, B, H, most tokens, D], of which
 * `past_sequence_length` are used: new rows are written into it, and present is past itself. With
 * `do_rotary` the first `rotary_embedding_dim` channels of each head (by default all) turn by their
 * positions, in halves, to the base 10000.
 *
 * @example
 * const lengths = [128, 77]; // of two texts, padded to 128 tokens
 * const [output] = await MicrosoftAttention([input, weights, bias, lengths], { num_heads: 12 });
 */
export const MicrosoftAttention = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.Attention",
    opsets: [1],
    inputs: [
      "input",
      "weights",
      "bias?",
      "mask_index?",
      "past?",
      "attention_bias?",
      "past_sequence_length?",
    ],
    outputs: ["output", "present?"],
    attributes: {
      num_heads: "int",
      unidirectional: "flag",
      qkv_hidden_sizes: "ints",
      past_present_share_buffer: "flag",
      do_rotary: "flag",
      rotary_embedding_dim: "int",
      mask_filter_value: "float",
      scale: "float",
    },
  },
  async (call) => {
    const {
      unidirectional,
      past_present_share_buffer: shared = false,
      do_rotary: rotates,
    } = call.attributes;
    const heads = headsOf(call, call.attributes.num_heads);
    const input = call.tensor("input");
    const weights = call.tensor("weights");
    const past = call.tensor("past");
    expectRank(call, "input", input, 3, "[B, S, input hidden size]");
    const widths = packedWidths(call, weights, heads, call.attributes.qkv_hidden_sizes);
    const [B, S] = input.shape;
    const D = widths[0] / heads;
    const keeps = past !== undefined || call.wants("present");
    call.expect(
      !keeps || widths[0] === widths[2],
      () => `past and present need q, k and v of one width, got qkv_hidden_sizes [${widths}]`,
    );
    if (past)
      expectAxes(call, "past", past, [2, B, heads, past.shape[3] ?? 0, D], "[2, B, H, P, D]");
    const given = shared ? () => call.numbers("past_sequence_length") : undefined;
    const P = await pastLength(call, { name: "past", past, axis: 3, added: S }, given);
    const T = P + S;
    const { mask_filter_value: filterValue } = call.attributes;
    const sizes = { batch: B, queries: S, past: P, total: T };
    const mask = call.integers("mask_index");
    const padding =
      mask && (await loadPaddingMask())(call, "mask_index", mask, sizes, { filterValue });
    const bias = await attentionBias(call, call.tensor("attention_bias"), [B, heads, S, T]);

    const rows = await projectPacked(call, input, weights, call.tensor("bias"));
    let { q, k, v } = splitPacked(rows, heads, widths);
    if (rotates) {
      const rotaryDim = call.attributes.rotary_embedding_dim || D;
      for (const x of [q, k])
        await rotary(x, { rotaryDim, positionOffset: P, inPlace: true, label: call.label });
    }
    let present: Tensor | undefined;
    if (keeps) {
      present = shared && past ? past : call.make([2, B, heads, T, D], input.dtype);
      const [kept, written] = [past, present].map((both) => [
        both && one(both, 0),
        both && one(both, 1),
      ]);
      const write = (rows: Tensor, index: 0 | 1) =>
        writePresent(call, {
          rows,
          past: kept[index],
          starts: P,
          present: written[index] as Tensor,
          shared,
        });
      await together([write(k, 0), write(v, 1)]);
      [k, v] = written.map((all) => (all as Tensor).slice(2, 0, T));
    }
    const options = {
      ...scaleOf(call.attributes.scale),
      ...bias,
      ...(padding && { scoreFunction: padding }),
    };
    const output = await attendRows(
      call,
      { q, k, v },
      { ...options, causal: unidirectional ?? false },
      input.dtype,
    );
    return { output, ...(present && { present }) };
  },
);

/** Takes one of two tensors that lie one after the other: [2, ...] as [...]. */
function one(both: Tensor, index: number): Tensor {
  const { shape, strides } = both;
  return both.view({
    shape: shape.slice(1),
    strides: strides.slice(1),
    offset: index * strides[0],
  });
}
