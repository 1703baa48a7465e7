// Whisper: frames of sound through two convolutions and an encoder, and a decoder that writes.

import type { Activation } from "../../operations/pointwise_problem.ts";
import type { Graph } from "../../training/graph.ts";
import type { AttentionSettings } from "../../training/operations/attention.ts";
import { layerNorm, linear } from "../../training/operations/dense.ts";
import { activate, add, broadcast } from "../../training/operations/elements.ts";
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
import { checkTaken, preparedDecoder, preparedSound } from "../inputs.ts";
import { attended, decoderInputs } from "./encoder_decoder.ts";
import { convolution } from "./front_end.ts";
import { activationOf, headsOf, linearOf, watched } from "./rows.ts";

/** Sizes of one of the two stacks. */
interface Stack {
  readonly layers: number;
  readonly heads: number;
  readonly inner: number;
}

interface Sizes {
  readonly vocab: number;
  readonly width: number;
  readonly bands: number;
  /** Rows of the encoder: half as many as there are frames. */
  readonly sourceRows: number;
  readonly mostRows: number;
  readonly activation: Activation;
  readonly tied: boolean;
  readonly encoder: Stack;
  readonly decoder: Stack;
}

const family = "whisper";

/** Whisper from its config. */
export function whisper(config: Config): Definition {
  const stack = (name: string): Stack => ({
    layers: config.whole(`${name}_layers`),
    heads: config.whole(`${name}_attention_heads`),
    inner: config.whole(`${name}_ffn_dim`),
  });
  const sizes: Sizes = {
    vocab: config.whole("vocab_size"),
    width: config.whole("d_model"),
    bands: config.whole("num_mel_bins", 80),
    sourceRows: config.whole("max_source_positions", 1500),
    mostRows: config.whole("max_target_positions", 448),
    activation: activationOf(config, "activation_function", "gelu"),
    tied: config.flag("tie_word_embeddings", true),
    encoder: stack("encoder"),
    decoder: stack("decoder"),
  };
  config.only("scale_embedding", false);
  // Heads of classifiers, masks of training, tokens that generation forces, and times of words.
  config.ignore("use_weighted_layer_sum", "classifier_proj_size", "num_hidden_layers");
  config.ignore("median_filter_length", "encoder_layerdrop", "decoder_layerdrop");
  config.ignoreLike(/^(apply_spec_augment|mask_(time|feature)_\w+)$/);
  const ends = config.wholes("eos_token_id");
  const begins = config.whole("decoder_start_token_id", 50_257, 0);
  config.end();
  const { vocab, mostRows, tied } = sizes;
  return {
    family,
    layers: sizes.decoder.layers,
    encoderLayers: sizes.encoder.layers,
    mostRows,
    nameOf(inFile) {
      if (tied && inFile === "proj_out.weight") return undefined;
      return inFile.replace(/^model\./, "");
    },
    prepare(inputs: ModelInputs): Prepared {
      checkTaken(family, inputs, "features", "audio", "decoderIds", "decoderMask");
      const { bands, sourceRows } = sizes;
      const { batch, features } = preparedSound(inputs, family, [bands, 2 * sourceRows]);
      const decoder = preparedDecoder(inputs, { family, vocab, mostRows }, batch);
      return {
        sizes: { batch, rows: sourceRows, masked: false, ...decoder.sizes },
        batch: { features, ...decoder.batch },
      };
    },
    vocab,
    ends,
    begins,
    cached: { kvHeads: sizes.decoder.heads, headDim: sizes.width / sizes.decoder.heads },
    source(graph, weight, run) {
      const encoded = encoderOf({ sizes, graph, weight, run, asked: {}, results: {} });
      return Array.from({ length: sizes.decoder.layers }, (_, layer) =>
        crossRows({ sizes, weight }, layer, encoded),
      );
    },
    define(graph, weight, run, asked, attend = attendRows, seen) {
      const results: Record<string, Value> = {};
      const given: Given = { sizes, graph, weight, run, asked, results, attend };
      let source = seen;
      if (!source) {
        const encoded = encoderOf(given);
        results.encoder_last_hidden_state = encoded;
        source = { rows: (layer) => crossRows(given, layer, encoded), mask: undefined };
      }
      decoderOf(given, source);
      return results;
    },
  };
}

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

/** What a layer of the decoder sees of the encoder's rows. */
const crossRows = ({ sizes, weight }: Pick<Given, "sizes" | "weight">, layer: number, x: Value) =>
  seenRows(x, weight, `decoder.layers.${layer}.encoder_attn`, sizes.decoder.heads);

function encoderOf({ sizes, graph, weight, run: { batch }, asked, results }: Given): Value {
  const { width, bands, sourceRows, activation, encoder } = sizes;
  const features = graph.input("features", [batch, bands, 2 * sourceRows]);
  const convolved = (x: Value, name: string, stride: number) => {
    const channels = x.shape[2];
    const kernel = weight(`encoder.${name}.weight`, [width, channels, 3]);
    const bias = weight(`encoder.${name}.bias`, [width]);
    return activate(convolution(x, kernel, bias, stride), activation);
  };
  const frames = convolved(features.permute(0, 2, 1), "conv1", 1);
  const rows = convolved(frames, "conv2", 2);
  const places = weight("encoder.embed_positions.weight", [sourceRows, width]);
  let x = add(rows, broadcast(places.reshape(1, sourceRows, width), [batch, sourceRows, width]));
  for (let layer = 0; layer < encoder.layers; layer++) {
    const path = `encoder.layers.${layer}`;
    const normed = norm(x, weight, `${path}.self_attn_layer_norm`);
    const own = `${path}.self_attn`;
    const seen = seenRows(normed, weight, own, encoder.heads);
    const settings = watched(asked, layer, results, "encoderAttention");
    x = add(x, attend(normed, seen, weight, own, encoder.heads, settings));
    x = feedForward(x, weight, path, encoder.inner, activation);
    if (asked.hidden) results[`encoder_hidden.${layer}`] = x;
  }
  return norm(x, weight, "encoder.layer_norm");
}

function decoderOf(given: Given, source: SeenSource): void {
  const { sizes, graph, weight, run, asked, results } = given;
  const inputs = decoderInputs(graph, run);
  if (!inputs) return;
  const { vocab, width, mostRows, decoder, activation, tied } = sizes;
  const { ids, positions, mask } = inputs;
  const table = weight("decoder.embed_tokens.weight", [vocab, width]);
  const places = weight("decoder.embed_positions.weight", [mostRows, width]);
  const { heads } = decoder;
  let x = add(embedding(ids, table), embedding(positions, places));
  for (let layer = 0; layer < decoder.layers; layer++) {
    const path = `decoder.layers.${layer}`;
    const own = `${path}.self_attn`;
    const first = norm(x, weight, `${own}_layer_norm`);
    const ownRows = seenRows(first, weight, own, heads);
    const settings = { causal: true, ...(mask && { mask }), ...watched(asked, layer, results) };
    x = add(x, attend(first, ownRows, weight, own, heads, settings, layer, given.attend));
    const cross = `${path}.encoder_attn`;
    const second = norm(x, weight, `${cross}_layer_norm`);
    const watching = watched(asked, layer, results, "crossAttention");
    x = add(x, attend(second, source.rows(layer), weight, cross, heads, watching));
    x = feedForward(x, weight, path, decoder.inner, activation);
    if (asked.hidden) results[`hidden.${layer}`] = x;
  }
  const head = tied ? table : weight("proj_out.weight", [vocab, width]);
  results.logits = linear(norm(x, weight, "decoder.layer_norm"), head);
}

function norm(x: Value, weight: Weight, path: string): Value {
  const width = x.shape[x.shape.length - 1];
  return layerNorm(x, weight(`${path}.weight`, [width]), weight(`${path}.bias`, [width]));
}

/** Keys and values of rows [B, T, W]. Keys have no bias. */
function seenRows(x: Value, weight: Weight, path: string, heads: number): SeenRows {
  const width = x.shape[2];
  return {
    k: headsOf(linearOf(x, weight, `${path}.k_proj`, width, false), heads),
    v: headsOf(linearOf(x, weight, `${path}.v_proj`, width), heads),
  };
}

function attend(
  x: Value,
  seen: SeenRows,
  weight: Weight,
  path: string,
  heads: number,
  settings: AttentionSettings,
  layer?: number,
  over?: Attend,
): Value {
  const width = x.shape[2];
  const q = headsOf(linearOf(x, weight, `${path}.q_proj`, width), heads);
  const rows = attended(q, seen, settings, layer, over);
  return linearOf(rows, weight, `${path}.out_proj`, width);
}

function feedForward(
  x: Value,
  weight: Weight,
  path: string,
  inner: number,
  activation: Activation,
): Value {
  const normed = norm(x, weight, `${path}.final_layer_norm`);
  const between = activate(linearOf(normed, weight, `${path}.fc1`, inner), activation);
  return add(x, linearOf(between, weight, `${path}.fc2`, x.shape[2]));
}
