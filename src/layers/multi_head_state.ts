// The weights of attention in state dicts of PyTorch, under any prefix, by the names of
// nn.MultiheadAttention and of Hugging Face.

import { check, FoveaError, show } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import {
  type LinearWeights,
  type Loader,
  linear,
  loaded,
  type MultiHeadWeights,
  type WeightSource,
} from "./multi_head_weights.ts";
import { Entries, type StateDict } from "./state_dict.ts";

/** The state of PyTorch's nn.MultiheadAttention, by PyTorch's names. E = embed_dim. */
export interface PyTorchMultiHead {
  /** `[3 E, E]`: q, k and v, one after the other. */
  readonly in_proj_weight?: WeightSource;
  /** [E, E], with `k_proj_weight` and `v_proj_weight` if kdim or vdim are not E. */
  readonly q_proj_weight?: WeightSource;
  /** [E, kdim] */
  readonly k_proj_weight?: WeightSource;
  /** [E, vdim] */
  readonly v_proj_weight?: WeightSource;
  /** [3 E] */
  readonly in_proj_bias?: WeightSource;
  /** [E, E] */
  readonly "out_proj.weight": WeightSource;
  /** [E] */
  readonly "out_proj.bias"?: WeightSource;
  /** [1, 1, E], with `bias_v`: the learned key of add_bias_kv. */
  readonly bias_k?: WeightSource;
  /** [1, 1, E] */
  readonly bias_v?: WeightSource;
}

/** Options of `multiHeadWeights.fromPyTorch`. */
export interface PyTorchOptions {
  /**
   * The prefix of the layer's own names, with or without the last dot:
   * `"encoder.layers.0.self_attn"`. Default "".
   */
  readonly prefix?: string;
}

/** Four linear layers [out, in], by the names in models. */
interface Separate {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** Names of the output projection, of which the first one that exists is taken. */
  readonly outputs: readonly string[];
}

const SEPARATE: readonly Separate[] = [
  // Llama, Mistral, Qwen, Gemma, BART, OPT, Whisper, CLIP, Phi
  { query: "q_proj", key: "k_proj", value: "v_proj", outputs: ["o_proj", "out_proj", "dense"] },
  // BERT, RoBERTa; ViT; ALBERT
  { query: "self.query", key: "self.key", value: "self.value", outputs: ["output.dense"] },
  {
    query: "attention.query",
    key: "attention.key",
    value: "attention.value",
    outputs: ["output.dense"],
  },
  { query: "query", key: "key", value: "value", outputs: ["dense", "output.dense"] },
  // T5; DistilBERT; diffusers
  { query: "q", key: "k", value: "v", outputs: ["o"] },
  { query: "q_lin", key: "k_lin", value: "v_lin", outputs: ["out_lin"] },
  { query: "to_q", key: "to_k", value: "to_v", outputs: ["to_out.0"] },
];

/** q, k and v in one linear layer, one after the other. */
interface Packed {
  readonly packed: string;
  /** The separate layer of q in cross-attention, in which `packed` has k and v only. */
  readonly query?: string;
  readonly output: string;
  /** Whether weights are stored [in, out]. */
  readonly columns: boolean;
}

const PACKED: readonly Packed[] = [
  // GPT-2 with its Conv1D; Phi-3
  { packed: "c_attn", query: "q_attn", output: "c_proj", columns: true },
  { packed: "qkv_proj", output: "o_proj", columns: false },
];

/**
 * Makes weights from a state dict of PyTorch: of nn.MultiheadAttention, or of linear layers with
 * the names of Hugging Face: q_proj, k_proj, v_proj and o_proj, out_proj or dense (Llama, Qwen,
 * BART, OPT, Whisper, CLIP, Phi, with fewer key heads and with or without each bias), self.query
 * and output.dense (BERT), attention.query and output.dense (ViT), q, k, v and o (T5, which needs
 * `scale: 1`), q_lin (DistilBERT), to_q (diffusers), c_attn and c_proj stored [in, out] (GPT-2),
 * qkv_proj and o_proj (Phi-3). Norms, rotations and position biases beside them aren't weights of
 * this layer.
 *
 * Packed projections stay packed, as three views. Arrays without a shape are taken for a square
 * output projection, or for a weight with as many rows as its bias has elements.
 *
 * @throws FoveaError if none of these is under the prefix, with the names that there are, or if
 *   shapes don't fit; then nothing is left allocated.
 *
 * @example
 * const weights = multiHeadWeights.fromPyTorch(device, {
 *   in_proj_weight: new Float32Array(3 * 64 * 64).fill(0.01),
 *   "out_proj.weight": new Float32Array(64 * 64).fill(0.01),
 * });
 * const layer = new MultiHeadAttention(device, weights, { heads: 8 });
 *
 * @example
 * const linears = ["q_proj", "k_proj", "v_proj", "o_proj"];
 * const square = { data: new Float32Array(64 * 64).fill(0.01), shape: [64, 64] };
 * const model = Object.fromEntries(
 *   linears.map((name) => [`model.layers.0.self_attn.${name}.weight`, square]),
 * );
 * const weights = multiHeadWeights.fromPyTorch(device, model, {
 *   prefix: "model.layers.0.self_attn",
 * });
 */
export function fromPyTorch(
  device: GPUDevice,
  state: PyTorchMultiHead | StateDict,
  options: PyTorchOptions = {},
): MultiHeadWeights {
  const { prefix = "" } = takeOptions("multiHeadWeights", options, { prefix: "string" });
  const entries = new Entries(state, prefix);
  const torch = ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"];
  const packed = PACKED.find((one) => entries.has(`${one.packed}.weight`));
  const separate = SEPARATE.find(({ query, key, value }) =>
    [query, key, value].some((name) => entries.has(`${name}.weight`)),
  );
  return loaded(device, (loader) => {
    if (torch.some((name) => entries.has(name))) return fromTorch(loader, entries);
    if (packed) return fromPacked(loader, entries, packed);
    if (separate) return fromSeparate(loader, entries, separate);
    throw unknownState(entries);
  });
}

function unknownState(entries: Entries): FoveaError {
  const ends = [
    "in_proj_weight",
    "q_proj_weight",
    ...[...PACKED.map((one) => one.packed), ...SEPARATE.map((one) => one.query)].map(
      (name) => `${name}.weight`,
    ),
  ];
  const prefixes = new Set<string>();
  for (const key of entries.all) {
    const end = ends.find((name) => key.endsWith(`.${name}`));
    if (end && prefixes.size < 3) prefixes.add(key.slice(0, -end.length));
  }
  const advice = [...prefixes].map((prefix) => `{ prefix: ${show(prefix)} }`).join(", ");
  return new FoveaError(
    "argument",
    `multiHeadWeights: the state has no attention by a known name, such as in_proj_weight, q_proj.weight, self.query.weight, q.weight or c_attn.weight. ${advice ? `Try ${advice}. ` : ""}It has ${entries.listed()}.`,
  );
}

/** The size of a square matrix without a shape. Undefined for one that has a shape. */
function sideOf(name: string, source: WeightSource): number | undefined {
  if (!(source instanceof Float32Array)) return undefined;
  const side = Math.sqrt(source.length);
  check(
    Number.isInteger(side) && side >= 1,
    "argument",
    () => `multiHeadWeights: ${name} must be square, [E, E], got ${source.length} elements.`,
  );
  return side;
}

const rowsOf = (part: Tensor, start: number, count: number) => part.slice(0, start, start + count);

/** Takes rows of a linear layer as a linear layer. */
function partOf({ weight, bias }: LinearWeights, start: number, count: number): LinearWeights {
  return linear(rowsOf(weight, start, count), bias && rowsOf(bias, start, count));
}

function fromTorch(loader: Loader, entries: Entries): MultiHeadWeights {
  const source = entries.needed("out_proj.weight");
  entries.checkLinear("out_proj");
  const given = sideOf("out_proj.weight", source);
  const weight = loader.load("out_proj.weight", source, [given, given]);
  const [E] = weight.shape;
  check(
    weight.shape[1] === E,
    "argument",
    () =>
      `multiHeadWeights: out_proj.weight must be square, [E, E], got [${weight.shape.join(", ")}].`,
  );
  const packed = loader.maybe("in_proj_weight", entries.get("in_proj_weight"), [3 * E, E]);
  const separate = ["q", "k", "v"].map((which) => {
    const name = `${which}_proj_weight`;
    return loader.maybe(name, entries.get(name), [E, which === "q" ? E : undefined]);
  });
  check(
    packed ? separate.every((part) => !part) : separate.every((part) => part),
    "argument",
    () =>
      "multiHeadWeights: give in_proj_weight, or q_proj_weight, k_proj_weight and v_proj_weight.",
  );
  const bias = loader.maybe("in_proj_bias", entries.get("in_proj_bias"), [3 * E]);
  const [query, key, value] = separate.map((part, index) =>
    linear(part ?? rowsOf(packed as Tensor, index * E, E), bias && rowsOf(bias, index * E, E)),
  );
  const output = linear(weight, loader.maybe("out_proj.bias", entries.get("out_proj.bias"), [E]));
  const biasK = loader.maybe("bias_k", entries.get("bias_k"), [E]);
  const biasV = loader.maybe("bias_v", entries.get("bias_v"), [E]);
  return { query, key, value, output, ...(biasK && { biasK }), ...(biasV && { biasV }) };
}

/**
 * A linear layer whose weight is stored [out, in], or [in, out]. A weight without a shape has as
 * many outputs as its bias, or `width` of them.
 */
function linearOf(
  loader: Loader,
  entries: Entries,
  name: string,
  width: number | undefined,
  columns = false,
) {
  entries.checkLinear(name);
  const source = entries.needed(`${name}.weight`);
  const bias = loader.maybe(`${name}.bias`, entries.get(`${name}.bias`), [undefined]);
  const isBare = source instanceof Float32Array;
  const rows = bias?.shape[0];
  const shape = [rows, isBare && rows === undefined ? width : undefined];
  if (columns) shape.reverse();
  const weight = loader.load(`${name}.weight`, source, shape);
  return linear(columns ? weight.permute(1, 0) : weight, bias);
}

/** The output projection; an array without shape and bias is taken for a square one. */
function outputOf(loader: Loader, entries: Entries, name: string, columns = false): LinearWeights {
  const source = entries.needed(`${name}.weight`);
  return linearOf(
    loader,
    entries,
    name,
    entries.has(`${name}.bias`) ? undefined : sideOf(`${name}.weight`, source),
    columns,
  );
}

function fromSeparate(
  loader: Loader,
  entries: Entries,
  { query, key, value, outputs }: Separate,
): MultiHeadWeights {
  const name = outputs.find((one) => entries.has(`${one}.weight`)) ?? outputs[0];
  const output = outputOf(loader, entries, name);
  const [width] = output.weight.shape;
  return {
    query: linearOf(loader, entries, query, width),
    key: linearOf(loader, entries, key, width),
    value: linearOf(loader, entries, value, width),
    output,
  };
}

function fromPacked(
  loader: Loader,
  entries: Entries,
  { packed, query: own, output: name, columns }: Packed,
) {
  const output = outputOf(loader, entries, name, columns);
  const [width, inner] = output.weight.shape;
  const all = linearOf(loader, entries, packed, width, columns);
  const query =
    own && entries.has(`${own}.weight`)
      ? linearOf(loader, entries, own, width, columns)
      : undefined;
  const [rows] = all.weight.shape;
  const before = query ? 0 : inner;
  const each = (rows - before) / 2;
  check(
    Number.isInteger(each) && each >= 1,
    "argument",
    () =>
      `multiHeadWeights: ${packed}.weight must have ${query ? "" : `the ${inner} rows of q that ${name}.weight takes, and `}as many rows of k as of v, got ${rows} rows.`,
  );
  return {
    query: query ?? partOf(all, 0, inner),
    key: partOf(all, before, each),
    value: partOf(all, before + each, each),
    output,
  };
}
