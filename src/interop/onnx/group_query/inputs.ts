// The inputs of GroupQueryAttention: refusals, heads, norms, rotations and sinks.

import {
  type RotaryRunOptions,
  rmsNorm,
  rotary,
  splitHeads,
  type Tensor,
  unpackQkv,
} from "../../../index.ts";
import { cast, expectAxes, expectBoth, expectRank } from "../attention_parts.ts";
import type { Call } from "../padding_mask.ts";
import type { Lengths } from "./lengths.ts";

/** The part of a bias of all keys that belongs to the attended keys. */
export function biasOf(call: Call, bias: Tensor, { first }: Lengths["attended"]): Tensor {
  const [begin = 0] = first;
  call.expect(
    first.every((position) => position === begin),
    () =>
      `attention_bias needs pasts that begin at the same key where sliding_window_cache is 1, got keys ${first}`,
  );
  return bias.slice(3, begin, bias.shape[3]);
}

export function checkWindow(call: Call, window: number, causal: boolean, isCache: boolean): void {
  call.expect(
    window === -1 || (window >= 1 && causal),
    () => `attribute local_window_size must be -1, or 1 or more where causal is 1, got ${window}`,
  );
  call.expect(
    !isCache || window > 0,
    () => "attribute sliding_window_cache needs a local_window_size",
  );
}

export function checkAsked(call: Call, asked: number, wanted: boolean, isWindow: boolean): void {
  call.expect(
    [0, 1, 2].includes(asked),
    () => `attribute qk_output must be 0, 1 or 2, got ${asked}`,
  );
  call.expect(
    asked > 0 || !wanted,
    () => "output_qk needs attribute qk_output: 1 for scores, 2 for probabilities",
  );
  call.expect(
    !isWindow || !wanted,
    () => "output_qk is not to be had where sliding_window_cache is 1",
  );
}

/** Refuses, by name, inputs and attributes that are not supported. */
export function refuse(
  call: Call,
  attributes: { readonly [name: string]: unknown },
  has: (name: "k_scale" | "v_scale") => boolean,
): void {
  for (const name of ["k_quant_type", "v_quant_type"] as const) {
    const type = attributes[name] ?? "NONE";
    call.expect(
      type === "NONE",
      () => `attribute ${name} must be "NONE", got "${type}"; createKvCache has quantised caches`,
    );
  }
  for (const name of ["k_scale", "v_scale"] as const) {
    call.expect(
      !has(name),
      () => `${name} is of quantised caches, which are not taken; createKvCache has them`,
    );
  }
}

export function headsOfInputs(
  call: Call,
  heads: number,
  kvHeads: number,
  query: Tensor,
  key: Tensor | undefined,
  value: Tensor | undefined,
): { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor } {
  expectRank(call, "query", query, 3, "[B, S, H * D]");
  call.expect(
    heads % kvHeads === 0,
    () => `num_heads must be a multiple of kv_num_heads, got ${heads} and ${kvHeads}`,
  );
  expectBoth(call, ["key", "value"], [key, value]);
  const [B, S, width] = query.shape;
  const parts = key ? heads : heads + 2 * kvHeads;
  const headDim = width / parts;
  call.expect(Number.isInteger(headDim), () =>
    key
      ? `query [${query.shape}] can't be split into num_heads = ${heads}`
      : `query [${query.shape}] without key must be packed, [B, S, (H + 2 Hkv) * D] with H + 2 Hkv = ${parts}`,
  );
  if (!key || !value) return unpackQkv(query, { heads, kvHeads, headDim });
  const L = key.shape[1] === 0 ? 0 : S;
  expectAxes(call, "key", key, [B, L, kvHeads * headDim], "[B, S, Hkv * D]");
  expectAxes(call, "value", value, [B, L, kvHeads * headDim], "[B, S, Hkv * D]");
  return {
    q: splitHeads(query, heads),
    k: splitHeads(key, kvHeads),
    v: splitHeads(value, kvHeads),
  };
}

/** The columns of attention_bias for the keys that there are. */
export const sliced = (bias: Tensor | undefined, total: number): Tensor | undefined =>
  bias?.shape.length === 4 && bias.shape[3] > total ? bias.slice(3, 0, total) : bias;

/**
 * Gives the functions that divide rows of heads by their root mean square, with the weights of q
 * and of k. Without weights they change nothing. Results are f32.
 */
export function normalisation(
  call: Call,
  weights: readonly [q: Tensor | undefined, k: Tensor | undefined],
  headDim: number,
  epsilon: number,
): (heads: Tensor, index: 0 | 1) => Promise<Tensor> {
  const names = ["q_norm_weight", "k_norm_weight"] as const;
  expectBoth(call, names, weights);
  for (const [index, weight] of weights.entries())
    if (weight) expectAxes(call, names[index], weight, [headDim], "[D]");
  return async (heads, index) => {
    const weight = weights[index];
    if (!weight) return heads;
    return (
      await rmsNorm(heads, { weight, epsilon, output: call.make(heads.shape), label: call.label })
    ).output;
  };
}

/**
 * Gives the function that turns heads by their positions; without the caches [cos, sin] it changes
 * nothing. Its result is f32.
 */
export function rotation(
  call: Call,
  caches: readonly [cos: Tensor | undefined, sin: Tensor | undefined] | undefined,
  options: RotaryRunOptions,
): (heads: Tensor) => Promise<Tensor> {
  if (!caches) return async (heads) => heads;
  const [cos, sin] = caches;
  call.expect(
    (cos && sin) !== undefined,
    () => "cos_cache and sin_cache are required where do_rotary is 1",
  );
  const angles = { cos: cos as Tensor, sin: sin as Tensor };
  return async (heads) =>
    (await rotary(heads, { ...options, ...angles, output: call.make(heads.shape) })).output;
}

/** The sinks, which join the sum that probabilities are divided by. */
export async function sinksOf(
  call: Call,
  heads: number,
  sink: Tensor | undefined,
  smooth: boolean,
) {
  if (!sink) return smooth ? { sinks: new Array<number>(heads).fill(0) } : {};
  expectAxes(call, "head_sink", sink, [heads], "[H]");
  return { sinks: await cast(call, sink, "f32") };
}
