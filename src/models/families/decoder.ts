// Decoders in the way of Llama: norms first, rotary embedding, gated feed-forward. What their
// families do otherwise are traits of one definition.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import { linear, rmsNorm } from "../../training/operations/dense.ts";
import { add, contiguous } from "../../training/operations/elements.ts";
import { addNorm, gated } from "../../training/operations/fused.ts";
import { rotary } from "../../training/operations/rotary.ts";
import { embedding } from "../../training/operations/tables.ts";
import type { Value } from "../../training/value.ts";
import {
  type Asked,
  type Attend,
  attendRows,
  type CachedRows,
  type Definition,
  type Results,
  type RunSizes,
  type Weight,
} from "../definition.ts";
import { preparedTexts } from "../inputs.ts";
import { type Experts, expertsOf } from "./experts.ts";
import type { Rope } from "./rope.ts";
import { capped, headsOf, inF32, linearOf, rowsOf, textInputs, watched } from "./rows.ts";

/** A decoder, as its config tells. */
export interface DecoderTraits {
  readonly family: string;
  readonly vocab: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly feedForward: number;
  readonly layers: number;
  readonly mostRows: number;
  /** Ids that end a text. */
  readonly ends: readonly number[];
  readonly epsilon: number;
  readonly activation: Activation;
  /** Whether the head is the embedding. */
  readonly tied: boolean;
  /** Biases of q, k and v; of the projection after attention; of the feed-forward layers. */
  readonly biases: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean };
  /** Whether norms multiply by 1 + w. */
  readonly plusOne: boolean;
  /** Whether rows of q and k have norms, a head at a time. */
  readonly qkNorm: boolean;
  /** Whether there are norms after attention and feed-forward, before they are added. */
  readonly postNorms: boolean;
  /** Whether q, k and v are one projection, and so are gate and up. */
  readonly fused: boolean;
  readonly embeddingScale: number;
  readonly scale: number;
  /** Whether each head has a logit that joins its sums and has no value. */
  readonly sinks: boolean;
  /** Experts in place of one feed-forward layer. */
  readonly experts?: Experts | undefined;
  readonly scoresCap?: number | undefined;
  readonly logitsCap?: number | undefined;
  /** Whether a layer turns queries and keys at all. */
  readonly hasRope: (layer: number) => boolean;
  /** The rotary embedding of a layer. */
  readonly ropeOf: (layer: number) => Rope;
  /** How many keys, its own included, a query of a layer sees. Undefined for all. */
  readonly windowOf: (layer: number) => number | undefined;
}

/** What all layers are given. */
interface Given {
  readonly graph: Graph;
  readonly weight: Weight;
  readonly positions: Value;
  readonly mask: Value | undefined;
  readonly sizes: RunSizes;
  readonly attend: Attend;
}

/** A model of these traits. */
export const decoderOf = (traits: DecoderTraits): Definition => ({
  family: traits.family,
  layers: traits.layers,
  mostRows: traits.mostRows,
  vocab: traits.vocab,
  ends: traits.ends,
  cached: cachedOf(traits),
  nameOf(inFile) {
    if (/rotary_emb\.inv_freq$/.test(inFile)) return undefined;
    if (traits.tied && inFile === "lm_head.weight") return undefined;
    return inFile.replace(/^model\./, "");
  },
  prepare: (inputs) => preparedTexts(inputs, traits),
  define: (graph, weight, sizes, asked, attend = attendRows) => {
    const { ids, positions, mask } = textInputs(graph, sizes);
    return define(traits, ids, { graph, weight, positions, mask, sizes, attend }, asked);
  },
});

function cachedOf({ kvHeads, headDim, layers, ropeOf }: DecoderTraits): CachedRows {
  const limits = Array.from({ length: layers }, (_, layer) => ropeOf(layer).limits);
  return Object.assign({ kvHeads, headDim }, ...limits);
}

function define(traits: DecoderTraits, ids: Value, given: Given, asked: Asked): Results {
  const { vocab, width, embeddingScale, logitsCap } = traits;
  const { graph, weight } = given;
  const results: Record<string, Value> = {};
  const table = weight("embed_tokens.weight", [vocab, width]);
  let rows: Rows = { x: embedding(ids, table, { scale: embeddingScale }) };
  for (let layer = 0; layer < traits.layers; layer++) {
    rows = layerOf(traits, given, layer, rows, watched(asked, layer, results));
    if (asked.hidden) results[`hidden.${layer}`] = sumOf(rows);
  }
  const { normed } = entered(traits, weight, "norm", rows);
  const head = traits.tied ? table : weight("lm_head.weight", [vocab, width]);
  const logits = linear(normed, head);
  results.logits = logitsCap === undefined ? logits : capped(graph, logits, logitsCap);
  return results;
}

/** The rows between layers: x and what a layer adds to it, which the norm that comes next does. */
interface Rows {
  readonly x: Value;
  readonly added?: Value;
}

const sumOf = ({ x, added }: Rows): Value => (added ? add(x, added) : x);

/** The sum of rows, and its norm. */
function entered(traits: DecoderTraits, weight: Weight, path: string, { x, added }: Rows) {
  if (!added) return { sum: x, normed: norm(traits, weight, path, x) };
  const { epsilon } = traits;
  return addNorm(x, added, { weight: normWeight(traits, weight, path, x), epsilon });
}

type Norms = Pick<DecoderTraits, "epsilon" | "plusOne">;

const normWeight = ({ plusOne }: Norms, weight: Weight, path: string, { shape }: Value) =>
  weight(`${path}.weight`, [shape[shape.length - 1]], Number(plusOne));

const norm = (norms: Norms, weight: Weight, path: string, x: Value) =>
  rmsNorm(x, normWeight(norms, weight, path, x), { epsilon: norms.epsilon });

function layerOf(
  traits: DecoderTraits,
  given: Given,
  layer: number,
  rows: Rows,
  watching: ReturnType<typeof watched>,
): Rows {
  const { weight } = given;
  const { postNorms } = traits;
  const path = `layers.${layer}`;
  const { sum, normed } = entered(traits, weight, `${path}.input_layernorm`, rows);
  const attended = attentionOf(traits, given, layer, normed, watching);
  const after = (name: string, x: Value) =>
    postNorms ? norm(traits, weight, `${path}.${name}`, x) : x;
  const between: Rows = { x: sum, added: after("post_attention_layernorm", attended) };
  const before = postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
  const joined = entered(traits, weight, `${path}.${before}`, between);
  const inner = feedForward(traits, weight, `${path}.mlp`, joined.normed);
  return { x: joined.sum, added: after("post_feedforward_layernorm", inner) };
}

function attentionOf(
  traits: DecoderTraits,
  { weight, positions, mask, sizes, attend }: Given,
  layer: number,
  x: Value,
  watching: ReturnType<typeof watched>,
): Value {
  const { heads, kvHeads, headDim, biases, width } = traits;
  const path = `layers.${layer}.self_attn`;
  const [q, k, v] = projected(traits, weight, path, x);
  const turned = (rows: Value, count: number, name: string) => {
    const own = traits.qkNorm
      ? norm(
          traits,
          weight,
          `${path}.${name}_norm`,
          contiguous(rows).reshape(sizes.batch, sizes.rows, count, headDim),
        ).permute(0, 2, 1, 3)
      : headsOf(rows, count);
    if (!traits.hasRope(layer)) return own;
    return rotary(own, { ...traits.ropeOf(layer).of(sizes.tokens ?? sizes.rows), positions });
  };
  const window = traits.windowOf(layer);
  const rows = [turned(q, heads, "q"), turned(k, kvHeads, "k"), headsOf(v, kvHeads)] as const;
  const output = attend(layer, ...rows, {
    causal: true,
    scale: traits.scale,
    ...(window !== undefined && { window: [window - 1, 0] as const }),
    ...(traits.scoresCap !== undefined && { softcap: traits.scoresCap }),
    ...(traits.sinks && { sinks: inF32(weight(`${path}.sinks`, [heads])) }),
    ...(mask && { mask }),
    ...watching,
  });
  return linearOf(rowsOf(output), weight, `${path}.o_proj`, width, biases.output);
}

/** Rows of q, k and v, [B, T, heads D]. */
function projected(
  { heads, kvHeads, headDim, biases, fused }: DecoderTraits,
  weight: Weight,
  path: string,
  x: Value,
): readonly Value[] {
  const widths = [heads, kvHeads, kvHeads].map((count) => count * headDim);
  if (!fused) {
    return ["q_proj", "k_proj", "v_proj"].map((name, at) =>
      linearOf(x, weight, `${path}.${name}`, widths[at], biases.qkv),
    );
  }
  const all = widths.reduce((sum, one) => sum + one, 0);
  const rows = linearOf(x, weight, `${path}.qkv_proj`, all, biases.qkv);
  let begin = 0;
  return widths.map((own) => {
    begin += own;
    return rows.slice(2, begin - own, begin);
  });
}

/** down(activation(gate(x)) * up(x)), or what experts make of x. */
function feedForward(
  { feedForward: inner, width, activation, biases, fused, experts }: DecoderTraits,
  weight: Weight,
  path: string,
  x: Value,
): Value {
  if (experts) return expertsOf(experts, weight, path, x);
  const layer = (name: string, from: Value, outputs: number) =>
    linearOf(from, weight, `${path}.${name}`, outputs, biases.mlp);
  if (!fused) {
    const gate = layer("gate_proj", x, inner);
    return layer("down_proj", gated(gate, activation, layer("up_proj", x, inner)), width);
  }
  const both = layer("gate_up_proj", x, 2 * inner);
  const gate = both.slice(2, 0, inner);
  return layer("down_proj", gated(gate, activation, both.slice(2, inner, 2 * inner)), width);
}
