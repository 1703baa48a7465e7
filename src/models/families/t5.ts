// T5 and what was made of it (T5 v1.1, Flan-T5, mT5): norms first, without means and biases; scores
// that are not scaled, with a bias by distance that all layers of a stack share.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import type { AttentionSettings } from "../../training/operations/attention.ts";
import { linear, rmsNorm } from "../../training/operations/dense.ts";
import { activate, add, multiply } from "../../training/operations/elements.ts";
import { embedding } from "../../training/operations/tables.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import {
  type Asked,
  type Attend,
  attendRows,
  type Definition,
  type ModelInputs,
  type Prepared,
  type RunSizes,
  type SeenRows,
  type SeenSource,
  type Weight,
} from "../definition.ts";
import { checkTaken, preparedDecoder, preparedTexts } from "../inputs.ts";
import { attended, decoderInputs } from "./encoder_decoder.ts";
import { activationNamed, headsOf, inF32, linearOf, textInputs, watched } from "./rows.ts";

interface Sizes {
  readonly vocab: number;
  readonly width: number;
  readonly heads: number;
  readonly headDim: number;
  readonly inner: number;
  readonly encoderLayers: number;
  readonly decoderLayers: number;
  readonly epsilon: number;
  readonly buckets: number;
  readonly maxDistance: number;
  readonly activation: Activation;
  /** Whether the activation multiplies another projection. */
  readonly gated: boolean;
  /** Whether the head is a weight of its own, and not the embedding. */
  readonly hasHead: boolean;
  /** Factor of the rows that logits are made of. */
  readonly headScale: number;
  readonly ends: readonly number[];
  /** The id that texts of the decoder begin with. */
  readonly begins: number;
}

/** Texts have no most length: distances beyond the last bucket are all alike. */
const MOST_ROWS = 2 ** 20;

const SHARED = "shared.weight";

/** T5 from its config and the names in its files. */
export function t5(family: string, config: Config, names: ReadonlySet<string>): Definition {
  const sizes = sizesOf(config, names);
  const { vocab, hasHead } = sizes;
  const isShared = names.has(SHARED);
  return {
    family,
    layers: sizes.decoderLayers,
    encoderLayers: sizes.encoderLayers,
    mostRows: MOST_ROWS,
    nameOf(inFile) {
      // The embedding stands in old files under several names, and so does a bias that is not used.
      const isTable = /^(encoder|decoder)\.embed_tokens\.weight$/.test(inFile);
      if (isTable) return !isShared && inFile === tableIn(names) ? SHARED : undefined;
      if (/\.EncDecAttention\.relative_attention_bias\.weight$/.test(inFile)) return undefined;
      return inFile;
    },
    prepare(inputs: ModelInputs): Prepared {
      checkTaken(family, inputs, "ids", "mask", "decoderIds", "decoderMask");
      const { ids, mask } = inputs;
      const limits = { family, vocab, mostRows: MOST_ROWS };
      const source = preparedTexts({ ...(ids && { ids }), ...(mask && { mask }) }, limits);
      const decoder = preparedDecoder(inputs, limits, source.sizes.batch);
      return {
        sizes: { ...source.sizes, ...decoder.sizes },
        batch: { ...source.batch, ...decoder.batch },
      };
    },
    vocab,
    ends: sizes.ends,
    begins: sizes.begins,
    cached: { kvHeads: sizes.heads, headDim: sizes.headDim },
    source(graph, weight, run) {
      const { rows } = encodedOf({ sizes, graph, weight, run, asked: {}, results: {} });
      return Array.from({ length: sizes.decoderLayers }, (_, layer) =>
        crossRows({ sizes, weight }, layer, rows),
      );
    },
    define(graph, weight, run, asked, attend = attendRows, seen) {
      const results: Record<string, Value> = {};
      const given: Given = { sizes, graph, weight, run, asked, results, attend };
      const table = weight(SHARED, [vocab, sizes.width]);
      let source = seen;
      if (!source) {
        const { rows, mask } = encodedOf(given);
        results.encoder_last_hidden_state = rows;
        source = { rows: (layer) => crossRows(given, layer, rows), mask };
      }
      const inputs = decoderInputs(graph, run);
      if (!inputs) return results;
      const rows = stackOf(given, DECODER, embedding(inputs.ids, table), inputs.mask, source);
      const scale = graph.constant([1], Float32Array.of(sizes.headScale));
      const head = hasHead ? weight("lm_head.weight", [vocab, sizes.width]) : table;
      results.logits = linear(sizes.headScale === 1 ? rows : multiply(rows, scale), head);
      return results;
    },
  };
}

function sizesOf(config: Config, names: ReadonlySet<string>): Sizes {
  const encoderLayers = config.whole("num_layers");
  const width = config.whole("d_model");
  const { activation, gated } = feedForwardIn(config);
  // Since version 5 of transformers, embeddings are always said to be tied, and the factor has an
  // option of its own. A head in the file is used in any case.
  const tied = config.flag("tie_word_embeddings", true);
  const isScaled = config.flag("scale_decoder_outputs", tied);
  config.ignore("n_positions");
  const sizes = {
    vocab: config.whole("vocab_size"),
    width,
    heads: config.whole("num_heads"),
    headDim: config.whole("d_kv"),
    inner: config.whole("d_ff"),
    encoderLayers,
    decoderLayers: config.whole("num_decoder_layers", encoderLayers),
    epsilon: config.number("layer_norm_epsilon", 1e-6),
    buckets: config.whole("relative_attention_num_buckets", 32, 2),
    maxDistance: config.whole("relative_attention_max_distance", 128),
    activation,
    gated,
    hasHead: names.has("lm_head.weight"),
    headScale: isScaled ? width ** -0.5 : 1,
    ends: config.wholes("eos_token_id"),
    begins: config.whole("decoder_start_token_id", 0, 0),
  };
  config.end();
  return sizes;
}

/** The activation, by its name or by that and a gate: "relu", "gated-gelu", "gated-silu". */
function feedForwardIn(config: Config): { readonly activation: Activation; gated: boolean } {
  const name = "feed_forward_proj";
  const given = config.text(name, "relu");
  const gated = given.startsWith("gated-");
  const own = gated ? given.slice("gated-".length) : given;
  // T5 v1.1 calls the GELU by tanh so.
  const activation = activationNamed(given === "gated-gelu" ? "gelu_new" : own);
  if (!activation) config.only(name, "relu");
  config.only("is_gated_act", gated);
  config.only("dense_act_fn", given === "gated-gelu" ? "gelu_new" : own);
  return { activation: activation as Activation, gated };
}

/** The name that the embedding has in a file which does not call it shared. */
const tableIn = (names: ReadonlySet<string>): string | undefined =>
  ["encoder", "decoder"].map((one) => `${one}.embed_tokens.weight`).find((name) => names.has(name));

/** What one of the two stacks does otherwise. */
interface Stack {
  readonly name: "encoder" | "decoder";
  readonly layersOf: (sizes: Sizes) => number;
  readonly causal: boolean;
  /** What its rows are called as results. */
  readonly hidden: string;
  readonly watched: "attention" | "encoderAttention";
}

const ENCODER: Stack = {
  name: "encoder",
  layersOf: ({ encoderLayers }) => encoderLayers,
  causal: false,
  hidden: "encoder_hidden",
  watched: "encoderAttention",
};
const DECODER: Stack = {
  name: "decoder",
  layersOf: ({ decoderLayers }) => decoderLayers,
  causal: true,
  hidden: "hidden",
  watched: "attention",
};

interface Given {
  readonly sizes: Sizes;
  readonly graph: Graph;
  readonly weight: Weight;
  readonly run: RunSizes;
  readonly asked: Asked;
  readonly results: Record<string, Value>;
  /** The attention of the decoder's own rows. Default: over the rows of the run. */
  readonly attend?: Attend;
}

/** The rows of the encoder, and which of them count. */
function encodedOf(given: Given) {
  const { graph, weight, run, sizes } = given;
  const table = weight(SHARED, [sizes.vocab, sizes.width]);
  const { ids, mask } = textInputs(graph, run);
  return { rows: stackOf(given, ENCODER, embedding(ids, table), mask), mask };
}

/** What a layer of the decoder sees of the encoder's rows. */
const crossRows = (given: Pick<Given, "sizes" | "weight">, layer: number, rows: Value) =>
  seenRows(given, `decoder.block.${layer}.layer.1.EncDecAttention`, rows);

function stackOf(
  given: Given,
  stack: Stack,
  embedded: Value,
  mask: Value | undefined,
  source?: SeenSource,
): Value {
  const { sizes, weight, asked, results } = given;
  const { heads, buckets, maxDistance } = sizes;
  const bias = `${stack.name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`;
  const table = inF32(weight(bias, [buckets, heads]));
  const relativeBias = { table, bidirectional: !stack.causal, maxDistance };
  let x = embedded;
  for (let layer = 0; layer < stack.layersOf(sizes); layer++) {
    const path = `${stack.name}.block.${layer}.layer`;
    x = added(given, `${path}.0`, x, (rows) => {
      const own = `${path}.0.SelfAttention`;
      const settings = {
        causal: stack.causal,
        relativeBias,
        ...(mask && { mask }),
        ...watched(asked, layer, results, stack.watched),
      };
      const keys = seenRows(given, own, rows);
      const over = source ? given.attend : undefined;
      return attend(given, own, rows, keys, settings, layer, over);
    });
    if (source) {
      x = added(given, `${path}.1`, x, (rows) => {
        const cross = `${path}.1.EncDecAttention`;
        return attend(given, cross, rows, source.rows(layer), {
          ...(source.mask && { mask: source.mask }),
          ...watched(asked, layer, results, "crossAttention"),
        });
      });
    }
    const last = `${path}.${source ? 2 : 1}`;
    x = added(given, last, x, (rows) => feedForward(given, `${last}.DenseReluDense`, rows));
    if (asked.hidden) results[`${stack.hidden}.${layer}`] = x;
  }
  return norm(given, `${stack.name}.final_layer_norm`, x);
}

function norm({ sizes: { width, epsilon }, weight }: Given, path: string, x: Value): Value {
  return rmsNorm(x, weight(`${path}.weight`, [width]), { epsilon });
}

/** x and what comes of its norm. */
function added(given: Given, path: string, x: Value, of: (rows: Value) => Value): Value {
  return add(x, of(norm(given, `${path}.layer_norm`, x)));
}

function seenRows(
  { sizes, weight }: Pick<Given, "sizes" | "weight">,
  path: string,
  x: Value,
): SeenRows {
  const { heads, headDim } = sizes;
  const rows = (name: string) =>
    headsOf(linearOf(x, weight, `${path}.${name}`, heads * headDim, false), heads);
  return { k: rows("k"), v: rows("v") };
}

function attend(
  { sizes: { heads, headDim, width }, weight }: Given,
  path: string,
  x: Value,
  seen: SeenRows,
  settings: AttentionSettings,
  layer?: number,
  over?: Attend,
): Value {
  const q = headsOf(linearOf(x, weight, `${path}.q`, heads * headDim, false), heads);
  const rows = attended(q, seen, { scale: 1, ...settings }, layer, over);
  return linearOf(rows, weight, `${path}.o`, width, false);
}

function feedForward({ sizes, weight }: Given, path: string, x: Value): Value {
  const { width, inner, activation, gated } = sizes;
  const to = (name: string) => linearOf(x, weight, `${path}.${name}`, inner, false);
  const rows = gated
    ? multiply(activate(to("wi_0"), activation), to("wi_1"))
    : activate(to("wi"), activation);
  return linearOf(rows, weight, `${path}.wo`, width, false);
}
