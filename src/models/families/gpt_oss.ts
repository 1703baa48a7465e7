// gpt-oss: sinks, layers that slide in turns, and mixtures of experts.

import type { Config } from "../config.ts";
import type { DecoderTraits } from "./decoder.ts";
import { slidingIn, windowIn } from "./windows.ts";

/** What gpt-oss does otherwise than Llama. */
export function gptOss(
  config: Config,
  { layers, feedForward, biases }: DecoderTraits,
  names: ReadonlySet<string>,
): Partial<DecoderTraits> {
  const window = windowIn(config, 128);
  const slides = slidingIn(config, layers, (layer) => layer % 2 === 0);
  // An older name of the number of tokens that the rotary embedding was made for.
  config.ignore("initial_context_length", "experts_per_token");
  const has = (name: string) => [...names].some((one) => one.endsWith(`layers.0.mlp.${name}`));
  const experts = {
    count: config.whole("num_local_experts", 128, 0),
    chosen: config.whole("num_experts_per_tok", 4, 0),
    inner: feedForward,
    limit: config.number("swiglu_limit", 7),
    alpha: config.number("swiglu_alpha", 1.702),
  };
  return {
    sinks: true,
    windowOf: (layer) => (slides(layer) ? window : undefined),
    experts: has("router.weight") ? experts : undefined,
    biases: { ...biases, mlp: has("gate_proj.bias") },
  };
}
