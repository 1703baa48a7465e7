// GPT-2 in float64, from a config of transformers and its tensors, a text at a time.

import { ACTIVATIONS } from "../../src/reference/activations.ts";
import { attention, layerNorm, project, type ReferenceTensor } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { Tensors } from "./reference_decoder.ts";

/** What the reference reads of a config. */
export interface Gpt2Config {
  readonly model_type: "gpt2";
  readonly n_embd: number;
  readonly n_head: number;
  readonly n_layer: number;
  readonly n_positions: number;
  readonly vocab_size: number;
}

/** Seeded weights for a config, by the names of Hugging Face's files. */
export function gpt2Weights(config: Gpt2Config, seed: number): Tensors {
  const { n_embd: W, n_layer: layers, n_positions: P, vocab_size: V } = config;
  const shapes: [string, readonly number[]][] = [
    ["wte.weight", [V, W]],
    ["wpe.weight", [P, W]],
  ];
  const add = (path: string, ...shape: readonly number[]) =>
    shapes.push([`${path}.weight`, shape], [`${path}.bias`, shape.slice(-1)]);
  for (let layer = 0; layer < layers; layer++) {
    const path = `h.${layer}`;
    add(`${path}.ln_1`, W);
    add(`${path}.attn.c_attn`, W, 3 * W);
    add(`${path}.attn.c_proj`, W, W);
    add(`${path}.ln_2`, W);
    add(`${path}.mlp.c_fc`, W, 4 * W);
    add(`${path}.mlp.c_proj`, 4 * W, W);
  }
  add("ln_f", W);
  const made = shapes.map(([name, shape], at) => {
    const size = shape.reduce((product, one) => product * one, 1);
    const data = normal(seed * 1000 + at, size, 0.4);
    return [`transformer.${name}`, { shape, data }] as const;
  });
  return Object.fromEntries(made);
}

/** The logits [T, V] of a text. */
export function gpt2Logits(config: Gpt2Config, tensors: Tensors, ids: readonly number[]) {
  const { n_embd: W, n_head: H, n_layer: layers } = config;
  const T = ids.length;
  const D = W / H;
  const of = (name: string) => tensors[`transformer.${name}`];
  const rows = (data: Float64Array, width = W): ReferenceTensor => ({ shape: [T, width], data });
  const norm = (x: Float64Array, path: string) => {
    const options = { weight: of(`${path}.weight`), bias: of(`${path}.bias`) };
    return layerNorm(rows(x), options).output;
  };
  const layer = (x: Float64Array, path: string) => {
    const { shape, data } = of(`${path}.weight`);
    const [inputs, outputs] = shape;
    const turned = Float64Array.from({ length: data.length }, (_, at) =>
      Number(data[(at % inputs) * outputs + Math.floor(at / inputs)]),
    );
    const weight = { shape: [outputs, inputs], data: turned };
    return project(rows(x, inputs), weight, of(`${path}.bias`));
  };
  const sum = (a: Float64Array, b: Float64Array) => a.map((value, at) => value + b[at]);
  let x: Float64Array = Float64Array.from({ length: T * W }, (_, at) => {
    const t = Math.floor(at / W);
    const d = at % W;
    return Number(of("wte.weight").data[ids[t] * W + d]) + Number(of("wpe.weight").data[t * W + d]);
  });
  for (let at = 0; at < layers; at++) {
    const qkv = layer(norm(x, `h.${at}.ln_1`), `h.${at}.attn.c_attn`);
    const [q, k, v] = [0, 1, 2].map((part) => ({
      shape: [1, H, T, D],
      data: Float64Array.from({ length: T * W }, (_, i) => {
        const h = Math.floor(i / (T * D));
        const t = Math.floor(i / D) % T;
        return qkv[t * 3 * W + part * W + h * D + (i % D)];
      }),
    }));
    const { output } = attention(q, k, v, { causal: true });
    const joined = Float64Array.from({ length: T * W }, (_, i) => {
      const h = Math.floor((i % W) / D);
      return output[(h * T + Math.floor(i / W)) * D + (i % D)];
    });
    x = sum(x, layer(joined, `h.${at}.attn.c_proj`));
    const inner = layer(norm(x, `h.${at}.ln_2`), `h.${at}.mlp.c_fc`);
    const active = inner.map((value) => ACTIVATIONS["gelu-tanh"].apply(value, (one) => one));
    x = sum(x, layer(active, `h.${at}.mlp.c_proj`));
  }
  return project(rows(norm(x, "ln_f")), of("wte.weight"));
}
