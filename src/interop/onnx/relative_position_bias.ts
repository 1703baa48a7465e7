// com.microsoft RelativePositionBias and GatedRelativePositionBias: biases of scores, in memory.

import { copyTensor, gatedPositionBias, project, relativePositionBias, splitHeads } from "../../index.ts";
import { expectAxes, expectRank, headsOf } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import { inOrder } from "./rows.ts";

/**
 * com.microsoft RelativePositionBias: T5's bias of every key for every query, [1, H, query_length, key_length]. bias_table
 * [buckets, H] lies in memory head by head, as ONNX Runtime has it; `max_distance`, required, is where the last bucket
 * begins; with `is_bidirectional` keys after the query have half of the buckets. The lengths are read back where they
 * are on the GPU.
 *
 * @example
 * const [bias] = await RelativePositionBias([table, [128], [128]], { max_distance: 128, is_bidirectional: 1 });
 */
export const RelativePositionBias = /* @__PURE__ */ onnxOperator(
  {
    ...{ operator: "com.microsoft.RelativePositionBias", opsets: [1] },
    ...{ inputs: ["bias_table", "query_length", "key_length"], outputs: ["output"] },
    attributes: { max_distance: "int", is_bidirectional: "flag" },
  },
  async (call) => {
    const { max_distance: maxDistance, is_bidirectional: bidirectional = false } = call.attributes;
    call.expect(maxDistance !== undefined, () => "attribute max_distance is required");
    const table = call.tensor("bias_table");
    expectRank(call, "bias_table", table, 2, "[buckets, H]");
    const length = async (name: "query_length" | "key_length") => {
      const values = await call.numbers(name);
      call.expect(
        values.length === 1 && Number.isInteger(values[0]) && values[0] >= 0,
        () => `${name} must be one whole number from 0 up, got [${values}]`,
      );
      return values[0];
    };
    const [queries, keys] = [await length("query_length"), await length("key_length")];
    const [buckets, heads] = table.shape;
    const columns = (await inOrder(call, table)).view({ shape: [buckets, heads], strides: [1, buckets] });
    const sizes = { seqQ: queries, seqKv: keys, bidirectional, maxDistance: maxDistance as number };
    const { output } = await relativePositionBias(columns, { ...sizes, label: call.label });
    return { output: call.own(output) };
  },
);

/**
 * com.microsoft GatedRelativePositionBias, as in WavLM: rel_pos [1, H, S, S] times a gate of each query,
 *
 * ```
 * u, r = the two halves of ((query_layer + query_bias) weight + bias), each summed up and through a sigmoid
 * output = (u * (r * eco_a - 1) + 2) * rel_pos                                               [B, H, S, S]
 * ```
 *
 * query_layer [B, S, H * D], query_bias [H * D], weight [D, K] and bias [K] with K even, eco_a [1, H, 1, 1]. Tokens without
 * padding (token_offset) are not supported.
 *
 * @example
 * const [bias] = await GatedRelativePositionBias([query, queryBias, relPos, weight, gateBias, ecoA], { num_heads: 12 });
 */
export const GatedRelativePositionBias = /* @__PURE__ */ onnxOperator(
  {
    ...{ operator: "com.microsoft.GatedRelativePositionBias", opsets: [1] },
    inputs: ["query_layer", "query_bias", "rel_pos", "weight", "bias", "eco_a", "token_offset?"],
    ...{ outputs: ["output"], attributes: { num_heads: "int" } },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    call.expect(!call.has("token_offset"), () => "token_offset is not supported; give query_layer with its padding");
    const query = call.tensor("query_layer");
    expectRank(call, "query_layer", query, 3, "[B, S, H * D]");
    const [batch, tokens, width] = query.shape;
    call.expect(width % heads === 0, () => `query_layer [${query.shape}] can't be split into num_heads = ${heads}`);
    const [weight, bias] = [call.tensor("weight"), call.tensor("bias")];
    const queryBias = call.tensor("query_bias");
    expectAxes(call, "query_bias", queryBias, [width], "[H * D]");
    expectAxes(call, "rel_pos", call.tensor("rel_pos"), [1, heads, tokens, tokens], "[1, H, S, S]");
    expectAxes(call, "weight", weight, [width / heads, weight.shape[1]], "[D, K]");
    const columns = weight.shape[1];
    call.expect(columns > 0 && columns % 2 === 0, () => `weight must have an even number of columns, got ${columns}`);
    expectAxes(call, "bias", bias, [columns], "[K]");
    expectAxes(call, "eco_a", call.tensor("eco_a"), [1, heads, 1, 1], "[1, H, 1, 1]");

    const { output: shifted } = await copyTensor(query, { bias: queryBias, dtype: "f32", label: call.label });
    const hidden = call.make([batch, heads, tokens, columns], "f32");
    const rows = splitHeads(call.own(shifted), heads);
    await project(rows, weight.permute(1, 0), { bias, output: hidden, label: call.label });
    // The sums of halves are a product with ones and zeros. It has two columns more, and zeros for a bias, so that its
    // kernel is the same as the one before.
    const ones = Array.from({ length: 4 * columns }, (_, i) => Number(i % 4 === Math.floor((2 * (i >> 2)) / columns)));
    const halves = call.make([columns, 4], "f32", { data: ones });
    const gates = call.make([batch, heads, tokens, 4]);
    await project(hidden, halves.permute(1, 0), { bias: call.make([4]), output: gates, label: call.label });
    const gate = (index: number) => gates.slice(3, index, index + 1);
    const output = call.make([batch, heads, tokens, tokens], query.dtype);
    const scale = call.tensor("eco_a");
    await gatedPositionBias(call.tensor("rel_pos"), {
      ...{ update: gate(0), reset: gate(1), scale, output, label: call.label },
    });
    return { output };
  },
);
