// Decoders of the families of Llama in float64, from a config of transformers and its tensors, a
// text at a time.

import { ACTIVATIONS } from "../../src/reference/activations.ts";
import { attention, project, type ReferenceTensor, rotary } from "../../src/reference/index.ts";

/** What the reference reads of a config. */
export interface DecoderConfig {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  readonly rope_theta: number;
  readonly tie_word_embeddings: boolean;
  readonly [name: string]: unknown;
}

export type Tensors = Readonly<Record<string, ReferenceTensor>>;

const exact = (x: number) => x;

/** Rows [T, W], with a norm over groups of columns. */
function normed(x: Float64Array, weight: ReferenceTensor, epsilon: number, plus: number) {
  const width = weight.shape[0];
  const result = new Float64Array(x.length);
  for (let row = 0; row < x.length / width; row++) {
    let squares = 0;
    for (let d = 0; d < width; d++) squares += x[row * width + d] ** 2;
    const inverse = 1 / Math.sqrt(squares / width + epsilon);
    for (let d = 0; d < width; d++)
      result[row * width + d] = x[row * width + d] * inverse * (Number(weight.data[d]) + plus);
  }
  return result;
}

/** Rows [T, H D] as [1, H, T, D]. */
function heads(x: Float64Array, count: number, T: number): ReferenceTensor {
  const D = x.length / T / count;
  const data = new Float64Array(x.length);
  for (let t = 0; t < T; t++)
    for (let h = 0; h < count; h++)
      for (let d = 0; d < D; d++) data[(h * T + t) * D + d] = x[(t * count + h) * D + d];
  return { shape: [1, count, T, D], data };
}

/** The logits [T, V] of a text. */
export function decoderLogits(config: DecoderConfig, tensors: Tensors, ids: readonly number[]) {
  const { model_type: type, hidden_size: W, head_dim: D, rms_norm_eps: epsilon } = config;
  const { num_attention_heads: H, num_key_value_heads: Hkv, num_hidden_layers: layers } = config;
  const T = ids.length;
  const isGemma = type.startsWith("gemma");
  const plus = Number(isGemma);
  const activation = isGemma ? ACTIVATIONS["gelu-tanh"] : ACTIVATIONS.silu;
  const of = (name: string) => {
    const found = tensors[name];
    if (!found) throw new Error(`the reference finds no ${name}`);
    return found;
  };
  const linear = (x: Float64Array, path: string) => {
    const weight = of(`${path}.weight`);
    const rows = { shape: [T, weight.shape[1]], data: x };
    return project(rows, weight, tensors[`${path}.bias`]);
  };
  const table = of("model.embed_tokens.weight");
  let x = new Float64Array(T * W);
  for (const [t, id] of ids.entries())
    for (let d = 0; d < W; d++)
      x[t * W + d] = Number(table.data[id * W + d]) * (isGemma ? Math.sqrt(W) : 1);
  for (let layer = 0; layer < layers; layer++) {
    const path = `model.layers.${layer}`;
    const norm = (rows: Float64Array, name: string) =>
      normed(rows, of(`${path}.${name}.weight`), epsilon, plus);
    const sum = (a: Float64Array, b: Float64Array) => a.map((value, at) => value + b[at]);
    const input = norm(x, "input_layernorm");
    const fused = type === "phi3" ? linear(input, `${path}.self_attn.qkv_proj`) : undefined;
    const [q, k, v] = [H, Hkv, Hkv].map((count, at) => {
      if (!fused) return linear(input, `${path}.self_attn.${["q", "k", "v"][at]}_proj`);
      const all = (H + 2 * Hkv) * D;
      const begin = [0, H, H + Hkv][at] * D;
      return Float64Array.from({ length: T * count * D }, (_, i) => {
        const t = Math.floor(i / (count * D));
        return fused[t * all + begin + (i % (count * D))];
      });
    });
    const hasNorms = type === "qwen3" || type === "gemma3_text";
    const own = (rows: Float64Array, name: string) =>
      hasNorms ? norm(rows, `self_attn.${name}_norm`) : rows;
    const slides = slidesIn(config, layer);
    const hasRope = type !== "smollm3" || (layer + 1) % 4 !== 0;
    const turned = (rows: Float64Array, count: number) => ({
      shape: [1, count, T, D],
      data: hasRope
        ? rotary(heads(rows, count, T), ropeOf(config, slides, T))
        : heads(rows, count, T).data,
    });
    const scale = isGemma ? (config.query_pre_attn_scalar as number) ** -0.5 : D ** -0.5;
    const window = config.sliding_window as number;
    const cap = config.attn_logit_softcapping as number | undefined;
    const { output } = attention(
      turned(own(q, "q"), H),
      turned(own(k, "k"), Hkv),
      heads(v, Hkv, T),
      {
        causal: true,
        scale,
        ...(slides && { window: [window - 1, 0] as const }),
        ...(cap && { softcap: cap }),
        ...(tensors[`${path}.self_attn.sinks`] && { sinks: of(`${path}.self_attn.sinks`).data }),
      },
    );
    const rows = new Float64Array(T * H * D);
    for (let t = 0; t < T; t++)
      for (let h = 0; h < H; h++)
        for (let d = 0; d < D; d++) rows[(t * H + h) * D + d] = output[(h * T + t) * D + d];
    const attended = linear(rows, `${path}.self_attn.o_proj`);
    const joined = sum(x, isGemma ? norm(attended, "post_attention_layernorm") : attended);
    const before = norm(joined, isGemma ? "pre_feedforward_layernorm" : "post_attention_layernorm");
    if (tensors[`${path}.mlp.router.weight`]) {
      x = sum(joined, expertsOf(config, tensors, `${path}.mlp`, before));
      continue;
    }
    const F = config.intermediate_size;
    const both = type === "phi3" ? linear(before, `${path}.mlp.gate_up_proj`) : undefined;
    const part = (at: 0 | 1) =>
      both
        ? Float64Array.from(
            { length: T * F },
            (_, i) => both[Math.floor(i / F) * 2 * F + at * F + (i % F)],
          )
        : linear(before, `${path}.mlp.${["gate", "up"][at]}_proj`);
    const up = part(1);
    const inner = part(0).map((value, at) => activation.apply(value, exact) * up[at]);
    const down = linear(inner, `${path}.mlp.down_proj`);
    x = sum(joined, isGemma ? norm(down, "post_feedforward_layernorm") : down);
  }
  const last = normed(x, of("model.norm.weight"), epsilon, plus);
  const head = config.tie_word_embeddings ? table : of("lm_head.weight");
  const logits = project({ shape: [T, W], data: last }, head);
  const cap = config.final_logit_softcapping as number | undefined;
  return cap ? logits.map((value) => cap * Math.tanh(value / cap)) : logits;
}

/** Rows [T, W] of a mixture of experts: each token by those that its router chooses alone. */
function expertsOf(config: DecoderConfig, tensors: Tensors, path: string, x: Float64Array) {
  const { hidden_size: W, intermediate_size: F } = config;
  const [count, chosen] = [config.num_local_experts, config.num_experts_per_tok] as number[];
  const of = (name: string) => tensors[`${path}.${name}`].data;
  const limit = config.swiglu_limit as number;
  const result = new Float64Array(x.length);
  for (let row = 0; row < x.length / W; row++) {
    const own = x.subarray(row * W, (row + 1) * W);
    const logits = Array.from({ length: count }, (_, e) =>
      own.reduce((sum, v, d) => sum + v * of("router.weight")[e * W + d], of("router.bias")[e]),
    );
    const best = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, chosen);
    const total = best.reduce((sum, e) => sum + Math.exp(logits[e]), 0);
    for (const e of best) {
      const both = Array.from({ length: 2 * F }, (_, i) =>
        own.reduce(
          (sum, v, d) => sum + v * of("experts.gate_up_proj")[(e * W + d) * 2 * F + i],
          of("experts.gate_up_proj_bias")[e * 2 * F + i],
        ),
      );
      const inner = Array.from({ length: F }, (_, i) => {
        const gate = Math.min(both[2 * i], limit);
        const up = Math.max(-limit, Math.min(both[2 * i + 1], limit));
        return (up + 1) * (gate / (1 + Math.exp(-1.702 * gate)));
      });
      for (let d = 0; d < W; d++) {
        const down = inner.reduce(
          (sum, v, i) => sum + v * of("experts.down_proj")[(e * F + i) * W + d],
          of("experts.down_proj_bias")[e * W + d],
        );
        result[row * W + d] += (down * Math.exp(logits[e])) / total;
      }
    }
  }
  return result;
}

/** Whether queries of a layer see a window of keys. */
function slidesIn(config: DecoderConfig, layer: number): boolean {
  const { model_type: type, sliding_window: window } = config;
  if (!window) return false;
  if (type === "gemma2" || type === "gpt_oss") return layer % 2 === 0;
  if (type === "gemma3_text") return (layer + 1) % (config.sliding_window_pattern as number) !== 0;
  if (type === "qwen2" || type === "qwen3")
    return Boolean(config.use_sliding_window) && layer >= (config.max_window_layers as number);
  return true;
}

function ropeOf(config: DecoderConfig, slides: boolean, T: number) {
  const { head_dim: D, rope_theta: theta, max_position_embeddings: most } = config;
  if (config.model_type === "gemma3_text" && slides)
    return { base: config.rope_local_base_freq as number };
  const scaling = config.rope_scaling as Readonly<Record<string, unknown>> | undefined;
  const rotaryDim = D * ((config.partial_rotary_factor as number | undefined) ?? 1);
  if (!scaling || scaling.rope_type === "default") return { base: theta, rotaryDim };
  const original = (scaling.original_max_position_embeddings ??
    config.original_max_position_embeddings ??
    most) as number;
  const type = (scaling.rope_type ?? scaling.type) as "linear" | "llama3" | "longrope" | "yarn";
  return {
    base: theta,
    rotaryDim,
    scaling: {
      type,
      factor: (scaling.factor ?? most / original) as number,
      originalMaxPositions: original,
      betaFast: scaling.beta_fast as number,
      betaSlow: scaling.beta_slow as number,
      truncate: scaling.truncate as boolean,
      lowFreqFactor: scaling.low_freq_factor as number,
      highFreqFactor: scaling.high_freq_factor as number,
      shortFactor: scaling.short_factor as number[],
      longFactor: scaling.long_factor as number[],
      length: T,
    },
  };
}
