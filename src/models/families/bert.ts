// BERT and those that are built like it: learned positions, norms after what is added, and the heads
// that a checkpoint has.

import type { Activation } from "../../operations/pointwise_problem.ts";
import { attention } from "../../training/operations/attention.ts";
import { layerNorm, linear } from "../../training/operations/dense.ts";
import { activate, add } from "../../training/operations/elements.ts";
import { embedding } from "../../training/operations/tables.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import type { Definition, Results, Weight } from "../definition.ts";
import { preparedTexts } from "../inputs.ts";
import {
  activationOf,
  headsOf,
  linearOf,
  rowsOf,
  sentenceResults,
  textInputs,
  watched,
} from "./rows.ts";

/** Names of a family's weights. */
interface Names {
  readonly layer: (at: number) => string;
  /** q, k, v and the projection after attention, then its norm. */
  readonly attention: readonly [q: string, k: string, v: string, output: string, norm: string];
  readonly feedForward: readonly [inner: string, output: string, norm: string];
}

interface EncoderSizes {
  readonly family: string;
  readonly vocab: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly inner: number;
  readonly positions: number;
  readonly types: number;
  readonly epsilon: number;
  readonly activation: Activation;
}

const BERT: Names = {
  layer: (at) => `encoder.layer.${at}`,
  attention: [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
  ],
  feedForward: ["intermediate.dense", "output.dense", "output.LayerNorm"],
};

const DISTILBERT: Names = {
  layer: (at) => `transformer.layer.${at}`,
  attention: [
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
  ],
  feedForward: ["ffn.lin1", "ffn.lin2", "output_layer_norm"],
};

/** The heads of a checkpoint: what comes of the last rows. */
type Heads = (rows: Value, table: Value, weight: Weight, norm: Norm) => Results;
type Norm = (x: Value, path: string) => Value;

/** BERT from its config and the names in its files. */
export function bert(config: Config, names: ReadonlySet<string>): Definition {
  const sizes: EncoderSizes = {
    family: "bert",
    vocab: config.whole("vocab_size"),
    width: config.whole("hidden_size"),
    heads: config.whole("num_attention_heads"),
    layers: config.whole("num_hidden_layers"),
    inner: config.whole("intermediate_size"),
    positions: config.whole("max_position_embeddings"),
    types: config.whole("type_vocab_size", 2),
    epsilon: config.number("layer_norm_eps", 1e-12),
    activation: activationOf(config, "hidden_act", "gelu"),
  };
  config.only("position_embedding_type", "absolute");
  config.only("tie_word_embeddings", true);
  config.end();
  const { width, vocab, activation } = sizes;
  const has = (name: string) => names.has(name) || names.has(`bert.${name}`);
  const heads: Heads = (rows, table, weight, norm) => {
    const [B] = rows.shape;
    const results: Record<string, Value> = {};
    if (has("pooler.dense.weight")) {
      const first = rows.slice(1, 0, 1).reshape(B, width);
      const pooled = activate(linearOf(first, weight, "pooler.dense", width), "tanh");
      results.pooler_output = pooled;
      if (has("cls.seq_relationship.weight"))
        results.nsp_logits = linearOf(pooled, weight, "cls.seq_relationship", 2);
    }
    if (has("cls.predictions.transform.dense.weight")) {
      const path = "cls.predictions";
      const inner = activate(linearOf(rows, weight, `${path}.transform.dense`, width), activation);
      const normed = norm(inner, `${path}.transform.LayerNorm`);
      results.mlm_logits = linear(normed, table, weight(`${path}.bias`, [vocab]));
    }
    return results;
  };
  return encoder(sizes, BERT, heads, (inFile) => {
    if (/^(bert\.)?embeddings\.position_ids$/.test(inFile)) return undefined;
    if (/^cls\.predictions\.decoder\.(weight|bias)$/.test(inFile)) return undefined;
    const name = inFile.replace(/^bert\./, "");
    return name.replace(/\.gamma$/, ".weight").replace(/\.beta$/, ".bias");
  });
}

/** DistilBERT from its config and the names in its files. */
export function distilbert(config: Config, names: ReadonlySet<string>): Definition {
  const sizes: EncoderSizes = {
    family: "distilbert",
    vocab: config.whole("vocab_size"),
    width: config.whole("dim"),
    heads: config.whole("n_heads"),
    layers: config.whole("n_layers"),
    inner: config.whole("hidden_dim"),
    positions: config.whole("max_position_embeddings"),
    types: 0,
    epsilon: 1e-12,
    activation: activationOf(config, "activation", "gelu"),
  };
  config.ignore("sinusoidal_pos_embds");
  config.only("tie_word_embeddings", true);
  config.end();
  const { width, vocab, activation } = sizes;
  const heads: Heads = (rows, table, weight, norm) => {
    if (!names.has("vocab_transform.weight")) return {};
    const inner = activate(linearOf(rows, weight, "vocab_transform", width), activation);
    const normed = norm(inner, "vocab_layer_norm");
    return { mlm_logits: linear(normed, table, weight("vocab_projector.bias", [vocab])) };
  };
  return encoder(sizes, DISTILBERT, heads, (inFile) => {
    if (inFile === "vocab_projector.weight" || inFile.endsWith("embeddings.position_ids"))
      return undefined;
    return inFile.replace(/^distilbert\./, "");
  });
}

function encoder(
  sizes: EncoderSizes,
  { layer, attention: own, feedForward }: Names,
  heads: Heads,
  nameOf: Definition["nameOf"],
): Definition {
  const { family, vocab, width, layers, positions, types, epsilon } = sizes;
  return {
    family,
    layers,
    mostRows: positions,
    hasSentences: true,
    nameOf,
    prepare: (inputs) => preparedTexts(inputs, { family, vocab, mostRows: positions, types }),
    define(graph, weight, run, asked) {
      const { ids, positions: places, mask } = textInputs(graph, run);
      const norm: Norm = (x, path) =>
        layerNorm(x, weight(`${path}.weight`, [width]), weight(`${path}.bias`, [width]), {
          epsilon,
        });
      const results: Record<string, Value> = {};
      const lookUp = (of: Value, name: string, count: number) =>
        embedding(of, weight(`embeddings.${name}.weight`, [count, width]));
      const table = weight("embeddings.word_embeddings.weight", [vocab, width]);
      let x = add(embedding(ids, table), lookUp(places, "position_embeddings", positions));
      if (types > 0) {
        const kinds = graph.input("types", [run.batch, run.rows], "i32");
        x = add(x, lookUp(kinds, "token_type_embeddings", types));
      }
      x = norm(x, "embeddings.LayerNorm");
      for (let at = 0; at < layers; at++) {
        const of = (x: Value, name: string, outputs: number) =>
          linearOf(x, weight, `${layer(at)}.${name}`, outputs);
        const [q, k, v] = [0, 1, 2].map((part) => headsOf(of(x, own[part], width), sizes.heads));
        const seen = attention(q, k, v, {
          ...(mask && { mask }),
          ...watched(asked, at, results),
        });
        const attended = of(rowsOf(seen), own[3], width);
        const joined = norm(add(x, attended), `${layer(at)}.${own[4]}`);
        const inner = activate(of(joined, feedForward[0], sizes.inner), sizes.activation);
        x = norm(add(joined, of(inner, feedForward[1], width)), `${layer(at)}.${feedForward[2]}`);
        if (asked.hidden) results[`hidden.${at}`] = x;
      }
      return {
        ...results,
        last_hidden_state: x,
        ...heads(x, table, weight, norm),
        ...(asked.sentence && sentenceResults(x, mask)),
      };
    },
  };
}
