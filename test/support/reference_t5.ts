// T5 in float64, from its config and tensors, an entry at a time.

import type { ReferenceOptions } from "../../src/reference/index.ts";
import type { Tensors } from "./reference_decoder.ts";
import { stepsOf, sum } from "./reference_rows.ts";

export interface T5Config {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly d_model: number;
  readonly d_kv: number;
  readonly d_ff: number;
  readonly num_layers: number;
  readonly num_decoder_layers?: number;
  readonly num_heads: number;
  readonly relative_attention_num_buckets: number;
  readonly relative_attention_max_distance: number;
  readonly layer_norm_epsilon: number;
  readonly feed_forward_proj: string;
  readonly tie_word_embeddings?: boolean;
  readonly scale_decoder_outputs?: boolean;
}

/** The encoder's rows, and the logits of the decoder's ids. */
export function t5Results(
  config: T5Config,
  tensors: Tensors,
  ids: readonly number[],
  decoderIds: readonly number[],
) {
  const { d_model: W, num_heads: H, layer_norm_epsilon: epsilon } = config;
  const { of, project, norm, embed, activate, attend } = stepsOf(tensors);
  const normed = (x: Float64Array, path: string) => norm(x, path, epsilon, true);
  const activation = config.feed_forward_proj.endsWith("gelu") ? "gelu-tanh" : "relu";
  const inner = (x: Float64Array, path: string) => {
    const dense = `${path}.DenseReluDense`;
    const own = normed(x, `${path}.layer_norm`);
    if (!tensors[`${dense}.wi_0.weight`]) {
      return sum(x, project(activate(project(own, `${dense}.wi`), activation), `${dense}.wo`));
    }
    const gate = activate(project(own, `${dense}.wi_0`), activation);
    const up = project(own, `${dense}.wi_1`);
    return sum(
      x,
      project(
        gate.map((value, at) => value * up[at]),
        `${dense}.wo`,
      ),
    );
  };
  const looked = (
    x: Float64Array,
    path: string,
    name: string,
    other: Float64Array | undefined,
    options: ReferenceOptions,
  ) => {
    const own = normed(x, `${path}.layer_norm`);
    const seen = other ?? own;
    const [q, k, v] = ["q", "k", "v"].map((one) =>
      project(one === "q" ? own : seen, `${path}.${name}.${one}`),
    );
    const sizes = [x.length / W, seen.length / W] as const;
    return sum(
      x,
      project(attend(q, k, v, H, sizes, { scale: 1, ...options }), `${path}.${name}.o`),
    );
  };
  const biasOf = (stack: string, bidirectional: boolean) => ({
    relativeBias: {
      table: of(`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`),
      bidirectional,
      maxDistance: config.relative_attention_max_distance,
    },
  });
  let x = embed(ids, "shared.weight");
  for (let layer = 0; layer < config.num_layers; layer++) {
    const path = `encoder.block.${layer}.layer`;
    x = looked(x, `${path}.0`, "SelfAttention", undefined, biasOf("encoder", true));
    x = inner(x, `${path}.1`);
  }
  const encoded = normed(x, "encoder.final_layer_norm");
  let y = embed(decoderIds, "shared.weight");
  for (let layer = 0; layer < (config.num_decoder_layers ?? config.num_layers); layer++) {
    const path = `decoder.block.${layer}.layer`;
    const own = { causal: true, ...biasOf("decoder", false) };
    y = looked(y, `${path}.0`, "SelfAttention", undefined, own);
    y = looked(y, `${path}.1`, "EncDecAttention", encoded, {});
    y = inner(y, `${path}.2`);
  }
  const last = normed(y, "decoder.final_layer_norm");
  const isScaled = config.scale_decoder_outputs ?? config.tie_word_embeddings !== false;
  const rows = isScaled ? last.map((value) => value * W ** -0.5) : last;
  const head = tensors["lm_head.weight"] ? "lm_head" : "shared";
  return { encoded, logits: project(rows, head) };
}

/** The shapes of a checkpoint's tensors. */
export function t5Shapes(config: T5Config, hasHead: boolean): Record<string, readonly number[]> {
  const { d_model: W, num_heads: H, d_kv: D, d_ff: F, vocab_size: V } = config;
  const shapes: Record<string, readonly number[]> = { "shared.weight": [V, W] };
  if (hasHead) shapes["lm_head.weight"] = [V, W];
  const layers = {
    encoder: config.num_layers,
    decoder: config.num_decoder_layers ?? config.num_layers,
  };
  for (const stack of ["encoder", "decoder"] as const) {
    shapes[`${stack}.final_layer_norm.weight`] = [W];
    shapes[`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`] = [
      config.relative_attention_num_buckets,
      H,
    ];
    for (let layer = 0; layer < layers[stack]; layer++) {
      const kinds = stack === "encoder" ? ["SelfAttention"] : ["SelfAttention", "EncDecAttention"];
      for (const [at, kind] of kinds.entries()) {
        const path = `${stack}.block.${layer}.layer.${at}`;
        for (const name of ["q", "k", "v"]) shapes[`${path}.${kind}.${name}.weight`] = [H * D, W];
        shapes[`${path}.${kind}.o.weight`] = [W, H * D];
        shapes[`${path}.layer_norm.weight`] = [W];
      }
      const path = `${stack}.block.${layer}.layer.${kinds.length}`;
      const isGated = config.feed_forward_proj.startsWith("gated");
      for (const name of isGated ? ["wi_0", "wi_1"] : ["wi"])
        shapes[`${path}.DenseReluDense.${name}.weight`] = [F, W];
      shapes[`${path}.DenseReluDense.wo.weight`] = [W, F];
      shapes[`${path}.layer_norm.weight`] = [W];
    }
  }
  return shapes;
}
