// GPT-2: learned positions, norms first with biases, projections stored as [inputs, outputs].

import { linear } from "../../training/operations/dense.ts";
import { activate, add } from "../../training/operations/elements.ts";
import { addNorm } from "../../training/operations/fused.ts";
import { embedding } from "../../training/operations/tables.ts";
import type { Value } from "../../training/value.ts";
import type { Config } from "../config.ts";
import { attendRows, type Definition, type Results, type Weight } from "../definition.ts";
import { preparedTexts } from "../inputs.ts";
import { activationOf, headsOf, rowsOf, textInputs, watched } from "./rows.ts";

/** GPT-2 from its config. */
export function gpt2(config: Config): Definition {
  const width = config.whole("n_embd");
  const heads = config.whole("n_head");
  const layers = config.whole("n_layer");
  const positions = config.whole("n_positions");
  const vocab = config.whole("vocab_size");
  const inner = config.has("n_inner") ? config.whole("n_inner") : 4 * width;
  config.ignore("n_inner");
  const epsilon = config.number("layer_norm_epsilon", 1e-5);
  const activation = activationOf(config, "activation_function", "gelu_new");
  const tied = config.flag("tie_word_embeddings", true);
  const isScaled = config.flag("scale_attn_weights", true);
  config.only("scale_attn_by_inverse_layer_idx", false);
  config.only("reorder_and_upcast_attn", false);
  const ends = config.wholes("eos_token_id");
  config.ignore("n_ctx");
  config.end();
  const layer = (x: Value, weight: Weight, path: string, outputs: number) => {
    const inputs = x.shape[x.shape.length - 1];
    const stored = weight(`${path}.weight`, [inputs, outputs]);
    return linear(x, stored.permute(1, 0), weight(`${path}.bias`, [outputs]));
  };
  return {
    family: "gpt2",
    layers,
    mostRows: positions,
    vocab,
    ends,
    cached: { kvHeads: heads, headDim: width / heads },
    nameOf(inFile) {
      if (/(^|\.)attn\.(masked_)?bias$/.test(inFile)) return undefined;
      if (tied && inFile === "lm_head.weight") return undefined;
      return inFile.replace(/^transformer\./, "");
    },
    prepare: (inputs) => preparedTexts(inputs, { family: "gpt2", vocab, mostRows: positions }),
    define(graph, weight, run, asked, attend = attendRows): Results {
      const { ids, positions: places, mask } = textInputs(graph, run);
      const table = weight("wte.weight", [vocab, width]);
      const results: Record<string, Value> = {};
      const norm = (x: Value, added: Value, path: string) => {
        const [own, bias] = ["weight", "bias"].map((name) => weight(`${path}.${name}`, [width]));
        return addNorm(x, added, { weight: own, bias, epsilon });
      };
      let x = embedding(ids, table);
      // What is added to x, which the norm that comes next does.
      let added = embedding(places, weight("wpe.weight", [positions, width]));
      for (let at = 0; at < layers; at++) {
        const path = `h.${at}`;
        const first = norm(x, added, `${path}.ln_1`);
        const qkv = layer(first.normed, weight, `${path}.attn.c_attn`, 3 * width);
        const [q, k, v] = [0, 1, 2].map((part) =>
          headsOf(qkv.slice(2, part * width, (part + 1) * width), heads),
        );
        const seen = attend(at, q, k, v, {
          causal: true,
          ...(!isScaled && { scale: 1 }),
          ...(mask && { mask }),
          ...watched(asked, at, results),
        });
        const attended = rowsOf(seen);
        const out = layer(attended, weight, `${path}.attn.c_proj`, width);
        const second = norm(first.sum, out, `${path}.ln_2`);
        const between = layer(second.normed, weight, `${path}.mlp.c_fc`, inner);
        x = second.sum;
        added = layer(activate(between, activation), weight, `${path}.mlp.c_proj`, width);
        if (asked.hidden) results[`hidden.${at}`] = add(x, added);
      }
      const head = tied ? table : weight("lm_head.weight", [vocab, width]);
      results.logits = linear(norm(x, added, "ln_f").normed, head);
      return results;
    },
  };
}
