// ViT: patches of a picture, a class token before them, norms first.

import { attention } from "../../training/operations/attention.ts";
import { layerNorm } from "../../training/operations/dense.ts";
import { activate, add, broadcast, concatenate } from "../../training/operations/elements.ts";
import { patchEmbedding } from "../../training/operations/patches.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import type { Definition } from "../definition.ts";
import { preparedPixels } from "../inputs.ts";
import { activationOf, headsOf, linearOf, rowsOf, watched } from "./rows.ts";

/** ViT from its config and the names in its files. */
export function vit(config: Config, names: ReadonlySet<string>): Definition {
  const width = config.whole("hidden_size");
  const heads = config.whole("num_attention_heads");
  const layers = config.whole("num_hidden_layers");
  const inner = config.whole("intermediate_size");
  const size = config.whole("image_size");
  const patch = config.whole("patch_size");
  const channels = config.whole("num_channels", 3);
  const epsilon = config.number("layer_norm_eps", 1e-12);
  const activation = activationOf(config, "hidden_act", "gelu");
  const hasBias = config.flag("qkv_bias", true);
  const labels = config.inner("id2label");
  const classes = labels?.count ?? config.whole("num_labels", 2);
  config.only("pooler_act", "tanh");
  config.only("pooler_output_size", width);
  config.ignore("encoder_stride");
  config.end();
  const family = "vit";
  const tokens = Math.floor(size / patch) ** 2 + 1;
  const has = (name: string) => names.has(name) || names.has(`vit.${name}`);
  return {
    family,
    layers,
    mostRows: tokens,
    nameOf: (inFile) => inFile.replace(/^vit\./, ""),
    prepare: (inputs) => preparedPixels(inputs, family, [channels, size, size]),
    define(graph, weight, { batch }, asked) {
      const pixels = graph.input("pixels", [batch, channels, size, size]);
      const norm = (x: Value, path: string) =>
        layerNorm(x, weight(`${path}.weight`, [width]), weight(`${path}.bias`, [width]), {
          epsilon,
        });
      const results: Record<string, Value> = {};
      const projection = "embeddings.patch_embeddings.projection";
      const patches = patchEmbedding(
        pixels,
        weight(`${projection}.weight`, [width, channels, patch, patch]),
        weight(`${projection}.bias`, [width]),
      );
      const token = broadcast(weight("embeddings.cls_token", [1, 1, width]), [batch, 1, width]);
      const places = weight("embeddings.position_embeddings", [1, tokens, width]);
      let x = add(concatenate([token, patches], 1), broadcast(places, [batch, tokens, width]));
      for (let at = 0; at < layers; at++) {
        const path = `encoder.layer.${at}`;
        const normed = norm(x, `${path}.layernorm_before`);
        const [q, k, v] = ["query", "key", "value"].map((name) =>
          headsOf(
            linearOf(normed, weight, `${path}.attention.attention.${name}`, width, hasBias),
            heads,
          ),
        );
        const seen = attention(q, k, v, {
          ...watched(asked, at, results),
        });
        const rows = rowsOf(seen);
        x = add(x, linearOf(rows, weight, `${path}.attention.output.dense`, width));
        const between = linearOf(
          norm(x, `${path}.layernorm_after`),
          weight,
          `${path}.intermediate.dense`,
          inner,
        );
        x = add(x, linearOf(activate(between, activation), weight, `${path}.output.dense`, width));
        if (asked.hidden) results[`hidden.${at}`] = x;
      }
      const last = norm(x, "layernorm");
      const first = last.slice(1, 0, 1).reshape(batch, width);
      return {
        ...results,
        last_hidden_state: last,
        ...(has("pooler.dense.weight") && {
          pooler_output: activate(linearOf(first, weight, "pooler.dense", width), "tanh"),
        }),
        ...(has("classifier.weight") && {
          class_logits: linearOf(first, weight, "classifier", classes),
        }),
      };
    },
  };
}
