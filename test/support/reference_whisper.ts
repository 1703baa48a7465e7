// Whisper in float64, from its tensors, an entry at a time.

import type { Tensors } from "./reference_decoder.ts";
import { stepsOf, sum } from "./reference_rows.ts";

export interface WhisperConfig {
  readonly model_type: "whisper";
  readonly vocab_size: number;
  readonly d_model: number;
  readonly num_mel_bins: number;
  readonly max_source_positions: number;
  readonly max_target_positions: number;
  readonly encoder_layers: number;
  readonly encoder_attention_heads: number;
  readonly encoder_ffn_dim: number;
  readonly decoder_layers: number;
  readonly decoder_attention_heads: number;
  readonly decoder_ffn_dim: number;
}

/** A convolution of PyTorch's Conv1d [T, C] with one row of zeros on both sides. */
function convolved(
  x: Float64Array,
  weight: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
  bias: ArrayLike<number>,
  stride: number,
): Float64Array {
  const [N, C, size] = weight.shape;
  const T = x.length / C;
  const rows = Math.floor((T + 2 - size) / stride) + 1;
  return Float64Array.from({ length: rows * N }, (_, at) => {
    const t = Math.floor(at / N);
    const n = at % N;
    let total = bias[n];
    for (let k = 0; k < size; k++) {
      const from = t * stride + k - 1;
      if (from < 0 || from >= T) continue;
      for (let c = 0; c < C; c++) total += weight.data[(n * C + c) * size + k] * x[from * C + c];
    }
    return total;
  });
}

/** The encoder's rows and the decoder's logits of features [bands, frames] and ids. */
export function whisperResults(
  config: WhisperConfig,
  tensors: Tensors,
  features: ArrayLike<number>,
  ids: readonly number[],
) {
  const { num_mel_bins: C, max_source_positions: N } = config;
  const { of, project, norm, embed, activate, attend } = stepsOf(tensors);
  const normed = (x: Float64Array, path: string) => norm(x, path, 1e-5, false);
  const conv = (x: Float64Array, name: string, stride: number) => {
    const path = `model.encoder.${name}`;
    const rows = convolved(x, of(`${path}.weight`), of(`${path}.bias`).data, stride);
    return activate(rows, "gelu");
  };
  const frames = 2 * N;
  const turned = Float64Array.from(
    { length: C * frames },
    (_, at) => features[(at % C) * frames + Math.floor(at / C)],
  );
  const inner = (x: Float64Array, path: string) => {
    const between = activate(project(normed(x, `${path}.final_layer_norm`), `${path}.fc1`), "gelu");
    return sum(x, project(between, `${path}.fc2`));
  };
  const looked = (
    x: Float64Array,
    path: string,
    name: string,
    other: Float64Array | undefined,
    heads: number,
    causal: boolean,
  ) => {
    const own = normed(x, `${path}.${name}_layer_norm`);
    const seen = other ?? own;
    const [q, k, v] = ["q", "k", "v"].map((one) =>
      project(one === "q" ? own : seen, `${path}.${name}.${one}_proj`),
    );
    const W = config.d_model;
    const rows = attend(q, k, v, heads, [x.length / W, seen.length / W], { causal });
    return sum(x, project(rows, `${path}.${name}.out_proj`));
  };
  const positions = of("model.encoder.embed_positions.weight").data;
  let x = sum(conv(conv(turned, "conv1", 1), "conv2", 2), positions);
  for (let layer = 0; layer < config.encoder_layers; layer++) {
    const path = `model.encoder.layers.${layer}`;
    x = looked(x, path, "self_attn", undefined, config.encoder_attention_heads, false);
    x = inner(x, path);
  }
  const encoded = normed(x, "model.encoder.layer_norm");
  const places = embed([...ids.keys()], "model.decoder.embed_positions.weight");
  let y = sum(embed(ids, "model.decoder.embed_tokens.weight"), places);
  for (let layer = 0; layer < config.decoder_layers; layer++) {
    const path = `model.decoder.layers.${layer}`;
    const { decoder_attention_heads: heads } = config;
    y = looked(y, path, "self_attn", undefined, heads, true);
    y = looked(y, path, "encoder_attn", encoded, heads, false);
    y = inner(y, path);
  }
  const last = normed(y, "model.decoder.layer_norm");
  return { encoded, logits: project(last, "model.decoder.embed_tokens") };
}

/** The shapes of a checkpoint's tensors. */
export function whisperShapes(config: WhisperConfig): Record<string, readonly number[]> {
  const { d_model: W, num_mel_bins: C } = config;
  const shapes: Record<string, readonly number[]> = {
    "model.encoder.conv1.weight": [W, C, 3],
    "model.encoder.conv1.bias": [W],
    "model.encoder.conv2.weight": [W, W, 3],
    "model.encoder.conv2.bias": [W],
    "model.encoder.embed_positions.weight": [config.max_source_positions, W],
    "model.decoder.embed_tokens.weight": [config.vocab_size, W],
    "model.decoder.embed_positions.weight": [config.max_target_positions, W],
  };
  for (const stack of ["encoder", "decoder"] as const) {
    const norm = (path: string) => {
      for (const part of ["weight", "bias"]) shapes[`model.${stack}.${path}.${part}`] = [W];
    };
    norm("layer_norm");
    for (let layer = 0; layer < config[`${stack}_layers`]; layer++) {
      const path = `layers.${layer}`;
      const F = config[`${stack}_ffn_dim`];
      const linear = (name: string, outputs: number, inputs: number, bias = true) => {
        shapes[`model.${stack}.${path}.${name}.weight`] = [outputs, inputs];
        if (bias) shapes[`model.${stack}.${path}.${name}.bias`] = [outputs];
      };
      for (const kind of stack === "encoder" ? ["self_attn"] : ["self_attn", "encoder_attn"]) {
        for (const name of ["q", "k", "v", "out"])
          linear(`${kind}.${name}_proj`, W, W, name !== "k");
        norm(`${path}.${kind}_layer_norm`);
      }
      linear("fc1", F, W);
      linear("fc2", W, F);
      norm(`${path}.final_layer_norm`);
    }
  }
  return shapes;
}
