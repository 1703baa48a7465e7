// The decoders as ONNX graphs, of the operators that exports for transformers.js have.

import { rotaryFrequencies } from "../../src/reference/rotary.ts";
import { EPSILON, type Llama, THETA } from "../models/llama.ts";
import {
  CONTRIB,
  type GraphNode,
  type Initialiser,
  type ModelGraph,
  type ModelTensor,
} from "./onnx_model.ts";

/** A matrix [outputs, inputs] as [inputs, outputs], which MatMul takes. */
function transposed(data: Float32Array, rows: number, columns: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(data.length);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      result[column * rows + row] = data[row * columns + column];
  return result;
}

/** cos and sin of all positions, [positions, headDim / 2]. */
export function rotaryTables({ positions, headDim }: Llama["sizes"]) {
  const half = headDim / 2;
  const { frequencies } = rotaryFrequencies(headDim, { base: THETA });
  const table = (of: (angle: number) => number) =>
    Float32Array.from({ length: positions * half }, (_, at) =>
      of(Math.floor(at / half) * frequencies[at % half]),
    );
  return { shape: [positions, half], cos: table(Math.cos), sin: table(Math.sin) };
}

/**
 * A graph whose inputs are `input_ids` [1, T], the keys and values of each layer that are there
 * already, and the lengths that exports compute from a mask: `seqlens_k`, keys less one, and
 * `total_sequence_length`. Its results are the `logits` of all rows, or of the last one only, as
 * newer exports have it, and all keys and values.
 */
export function llamaGraph({ sizes, weights }: Llama, lastRow: boolean): ModelGraph {
  const { layers, heads, kvHeads, headDim, vocab } = sizes;
  const nodes: GraphNode[] = [];
  const initialisers: Initialiser[] = [];
  const inputs: ModelTensor[] = [
    { name: "input_ids", shape: [1, "rows"], dtype: "i64" },
    { name: "seqlens_k", shape: [1], dtype: "i32" },
    { name: "total_sequence_length", shape: [], dtype: "i32" },
  ];
  const outputs: ModelTensor[] = [{ name: "logits", shape: [1, "told", vocab] }];
  const constant = (name: string, asMatrix = false): string => {
    const found = weights.get(name);
    if (!found) throw new Error(`the model has no ${name}`);
    const { shape, data } = found;
    const stored = asMatrix
      ? { shape: [shape[1], shape[0]], data: transposed(data, shape[0], shape[1]) }
      : { shape, data };
    initialisers.push({ name, ...stored });
    return name;
  };
  const node = (operator: string, from: readonly string[], to: string, more = {}): string => {
    nodes.push({ operator, inputs: from, outputs: [to], ...more });
    return to;
  };
  const linear = (x: string, path: string) =>
    node("MatMul", [x, constant(`${path}.weight`, true)], path);
  const cache = (at: number, kind: string, state: string): ModelTensor => ({
    name: `${state}.${at}.${kind}`,
    shape: [1, kvHeads, state === "present" ? "total" : "past", headDim],
  });

  const tables = rotaryTables(sizes);
  for (const name of ["cos", "sin"] as const)
    initialisers.push({ name, shape: tables.shape, data: tables[name] });
  const table = constant("model.embed_tokens.weight");
  let x = node("Gather", [table, "input_ids"], "embedded", { attributes: { axis: 0 } });
  let added: string | undefined;
  const reals = { epsilon: EPSILON };
  /** The norm of x, or of x and what is added to it, which is x from then on. */
  const normed = (name: string): string => {
    const weight = constant(`${name}.weight`);
    if (added === undefined) {
      const attributes = { axis: 2, stash_type: 1 };
      const operator = "SimplifiedLayerNormalization";
      return node(operator, [x, weight], name, { attributes, reals });
    }
    nodes.push({
      operator: "SkipSimplifiedLayerNormalization",
      domain: CONTRIB,
      reals,
      inputs: [x, added, weight],
      outputs: [name, "", "", `${name}.sum`],
    });
    x = `${name}.sum`;
    return name;
  };
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    const input = normed(`${at}.input_layernorm`);
    const [q, k, v] = ["q", "k", "v"].map((one) => linear(input, `${at}.self_attn.${one}_proj`));
    const kinds = ["key", "value"];
    const past = kinds.map((kind) => cache(layer, kind, "past_key_values"));
    const present = kinds.map((kind) => cache(layer, kind, "present"));
    inputs.push(...past);
    outputs.push(...present);
    const rows = [q, k, v, ...past.map(({ name }) => name)];
    nodes.push({
      operator: "GroupQueryAttention",
      domain: CONTRIB,
      attributes: { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1, rotary_interleaved: 0 },
      reals: { scale: headDim ** -0.5 },
      inputs: [...rows, "seqlens_k", "total_sequence_length", "cos", "sin"],
      outputs: [`${at}.attended`, ...present.map(({ name }) => name)],
    });
    added = linear(`${at}.attended`, `${at}.self_attn.o_proj`);
    const inner = normed(`${at}.post_attention_layernorm`);
    const gate = linear(inner, `${at}.mlp.gate_proj`);
    const opened = node("Sigmoid", [gate], `${at}.sigmoid`);
    const silu = node("Mul", [gate, opened], `${at}.silu`);
    const gated = node("Mul", [silu, linear(inner, `${at}.mlp.up_proj`)], `${at}.gated`);
    added = linear(gated, `${at}.mlp.down_proj`);
  }
  let last = normed("model.norm");
  if (lastRow) {
    const index = BigInt64Array.of(BigInt(-1));
    initialisers.push({ name: "last", shape: [1], data: index });
    last = node("Gather", [last, "last"], "last row", { attributes: { axis: 1 } });
  }
  node("MatMul", [last, constant("lm_head.weight", true)], "logits");
  return { nodes, initialisers, inputs, outputs };
}
