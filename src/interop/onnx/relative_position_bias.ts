// com.microsoft RelativePositionBias and GatedRelativePositionBias: biases of scores, in memory.

import {
  copyTensor,
  gatedPositionBias,
  positionEncoding,
  project,
  relativePositionBias,
  splitHeads,
  Tensor,
} from "../../index.ts";
import { expectAxes, expectRank, headsOf } from "./attention_parts.ts";
import { onnxOperator } from "./operator.ts";
import type { Call } from "./padding_mask.ts";
import { inOrder } from "./rows.ts";

/**
 * com.microsoft RelativePositionBias: T5's bias of every key for every query,
 * [1, H, query_length, key_length]. bias_table [buckets, H] lies in memory head by head, as in ONNX
 * Runtime; `max_distance`, required, is the distance at which the last bucket begins; with
 * `is_bidirectional` keys after the query have half of the buckets. Lengths on the GPU are read
 * back.
 *
 * @example
 * const [bias] = await RelativePositionBias([table, [128], [128]], {
 *   max_distance: 128,
 *   is_bidirectional: 1,
 * });
 */
export const RelativePositionBias = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.RelativePositionBias",
    opsets: [1],
    inputs: ["bias_table", "query_length", "key_length"],
    outputs: ["output"],
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
    const queries = await length("query_length");
    const keys = await length("key_length");
    const [buckets, heads] = table.shape;
    const columns = (await inOrder(call, table)).view({
      shape: [buckets, heads],
      strides: [1, buckets],
    });
    const sizes = { seqQ: queries, seqKv: keys, bidirectional, maxDistance: maxDistance as number };
    const { output } = await relativePositionBias(columns, { ...sizes, label: call.label });
    return { output: call.own(output) };
  },
);

/**
 * com.microsoft GatedRelativePositionBias, as in WavLM: rel_pos [1, H, S, S] times a gate of each
 * query,
 *
 * ```
 * u, r = the two halves of ((query_layer + query_bias) weight + bias), each summed, then a sigmoid
 * output = (u * (r * eco_a - 1) + 2) * rel_pos                                    [B, H, S, S]
 * ```
 *
 * query_layer [B, S, H * D], query_bias [H * D], weight [D, K] and bias [K] with K even, eco_a
 * [1, H, 1, 1]. With token_offset [B, S], query_layer is [tokens, H * D] without padding: token t
 * belongs in row token_offset[t] of all B * S, and rows without one are 0 before query_bias.
 * Offsets on the GPU are read back.
 *
 * @example
 * const [bias] = await GatedRelativePositionBias(
 *   [query, queryBias, relPos, weight, gateBias, ecoA],
 *   { num_heads: 12 },
 * );
 */
export const GatedRelativePositionBias = /* @__PURE__ */ onnxOperator(
  {
    operator: "com.microsoft.GatedRelativePositionBias",
    opsets: [1],
    inputs: ["query_layer", "query_bias", "rel_pos", "weight", "bias", "eco_a", "token_offset?"],
    outputs: ["output"],
    attributes: { num_heads: "int" },
  },
  async (call) => {
    const heads = headsOf(call, call.attributes.num_heads);
    const query = call.tensor("query_layer");
    const isPacked = call.has("token_offset");
    expectRank(
      call,
      "query_layer",
      query,
      isPacked ? 2 : 3,
      isPacked ? "[tokens, H * D]" : "[B, S, H * D]",
    );
    const width = query.shape.at(-1) as number;
    call.expect(
      width % heads === 0,
      () => `query_layer [${query.shape}] can't be split into num_heads = ${heads}`,
    );
    const tokens = isPacked ? (call.tensor("rel_pos").shape[2] ?? 0) : query.shape[1];
    const places = isPacked ? await placesOf(call, query.shape[0], tokens) : undefined;
    const batch = places ? places.batch : query.shape[0];
    const weight = call.tensor("weight");
    const bias = call.tensor("bias");
    const queryBias = call.tensor("query_bias");
    expectAxes(call, "query_bias", queryBias, [width], "[H * D]");
    expectAxes(call, "rel_pos", call.tensor("rel_pos"), [1, heads, tokens, tokens], "[1, H, S, S]");
    expectAxes(call, "weight", weight, [width / heads, weight.shape[1]], "[D, K]");
    const columns = weight.shape[1];
    call.expect(
      columns > 0 && columns % 2 === 0,
      () => `weight must have two columns or more, an even number, got ${columns}`,
    );
    expectAxes(call, "bias", bias, [columns], "[K]");
    expectAxes(call, "eco_a", call.tensor("eco_a"), [1, heads, 1, 1], "[1, H, 1, 1]");

    const shifted = places
      ? await withPadding(call, query, queryBias, places)
      : call.own(
          (await copyTensor(query, { bias: queryBias, dtype: "f32", label: call.label })).output,
        );
    const hidden = call.make([batch, heads, tokens, columns], "f32");
    const rows = splitHeads(shifted, heads);
    await project(rows, weight.permute(1, 0), { bias, output: hidden, label: call.label });
    // The sums of halves are a product with ones and zeros. It has two more columns, and zeros for
    // a bias, so that it needs no other kernel than the product before.
    const ones = Array.from({ length: 4 * columns }, (_, i) =>
      Number(i % 4 === Math.floor((2 * (i >> 2)) / columns)),
    );
    const halves = call.make([columns, 4], "f32", { data: ones });
    const gates = call.make([batch, heads, tokens, 4]);
    await project(hidden, halves.permute(1, 0), {
      bias: call.make([4]),
      output: gates,
      label: call.label,
    });
    const gate = (index: number) => gates.slice(3, index, index + 1);
    const output = call.make([batch, heads, tokens, tokens], query.dtype);
    const scale = call.tensor("eco_a");
    await gatedPositionBias(call.tensor("rel_pos"), {
      update: gate(0),
      reset: gate(1),
      scale,
      output,
      label: call.label,
    });
    return { output };
  },
);

/**
 * The rows of tokens without padding: B, S, and the token of each of the B * S rows, or a number
 * beyond all tokens for a row without one.
 */
interface Places {
  readonly batch: number;
  readonly rows: number;
  readonly tokens: readonly number[];
}

/** Reads `token_offset`, of which as many elements are used as there are tokens. */
async function placesOf(
  call: Pick<Call, "expect"> & {
    integers(name: "token_offset"): Tensor | readonly number[] | undefined;
    numbers(name: "token_offset"): Promise<readonly number[] | undefined>;
  },
  count: number,
  rows: number,
): Promise<Places> {
  const given = call.integers("token_offset");
  const offsets = (await call.numbers("token_offset")) ?? [];
  const batch =
    given instanceof Tensor && given.shape.length === 2
      ? given.shape[0]
      : offsets.length / Math.max(1, rows);
  call.expect(
    given instanceof Tensor
      ? String(given.shape) === String([batch, rows])
      : Number.isInteger(batch),
    () =>
      `token_offset must be [B, S] with S = ${rows} as in rel_pos, got ${given instanceof Tensor ? `[${given.shape}]` : `${offsets.length} numbers`}`,
  );
  const used = offsets.slice(0, count);
  const areRows = used.every((row) => Number.isInteger(row) && row >= 0 && row < batch * rows);
  call.expect(
    areRows && used.length === count && new Set(used).size === count,
    () =>
      `token_offset must begin with the rows of the ${count} tokens of query_layer, each another one below B * S = ${batch * rows}, got [${used}]`,
  );
  const tokens = new Array<number>(batch * rows).fill(count);
  for (const [token, row] of used.entries()) tokens[row] = token;
  return { batch, rows, tokens };
}

/** Tokens in their rows plus a bias, and the bias alone in rows without a token: [B, S, W] f32. */
async function withPadding(
  call: Call,
  packed: Tensor,
  bias: Tensor,
  places: Places,
): Promise<Tensor> {
  const { batch, rows, tokens } = places;
  const shape = [batch, rows, packed.shape[1]];
  const output = call.make(shape);
  // An id without a row in the table adds nothing.
  const positionIds = call.make([batch, rows], "i32", { data: tokens });
  const biases = bias.view({ shape, strides: [0, 0, bias.strides[0]] });
  await positionEncoding(biases, { table: packed, positionIds, output, label: call.label });
  return output;
}
