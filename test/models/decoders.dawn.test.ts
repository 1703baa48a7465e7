// Families of decoders against float64, with what each does otherwise than Llama.

import { expect, it } from "vitest";
import { Model } from "../../src/models/index.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { decoderLogits } from "../support/reference_decoder.ts";

failOnGpuErrors();

const GEMMA = {
  tie_word_embeddings: true,
  query_pre_attn_scalar: 9,
  hidden_activation: "gelu_pytorch_tanh",
  sliding_window: 4,
};
const LONGROPE = {
  type: "longrope",
  short_factor: [1, 1.1, 1.3],
  long_factor: [1, 2, 5],
};

const YARN = {
  rope_type: "yarn",
  factor: 8,
  beta_fast: 4,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 16,
};

const CONFIGS = [
  smallConfig("gpt_oss", {
    rope_parameters: { ...YARN, rope_theta: 10_000 },
    rope_scaling: YARN,
    sliding_window: 4,
    num_local_experts: 5,
    num_experts_per_tok: 2,
    swiglu_limit: 0.5,
  }),
  smallConfig("smollm3", { num_hidden_layers: 4, tie_word_embeddings: true }),
  smallConfig("llama", {
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 16,
    },
  }),
  smallConfig("mistral", { sliding_window: 5, num_key_value_heads: 1 }),
  smallConfig("qwen2", { use_sliding_window: true, sliding_window: 3, max_window_layers: 1 }),
  smallConfig("qwen3", { tie_word_embeddings: true, attention_bias: false }),
  smallConfig("gemma2", { ...GEMMA, attn_logit_softcapping: 3, final_logit_softcapping: 5 }),
  smallConfig("gemma3_text", {
    ...GEMMA,
    sliding_window_pattern: 3,
    rope_local_base_freq: 1000,
    rope_theta: 1_000_000,
    rope_scaling: { rope_type: "linear", factor: 8 },
  }),
  smallConfig("phi3", { rope_scaling: LONGROPE, original_max_position_embeddings: 16 }),
  smallConfig("phi3", { rope_scaling: LONGROPE, original_max_position_embeddings: 8 }),
];

/** Ids of a text, far from each other. */
const idsOf = (length: number, vocab: number) =>
  Array.from({ length }, (_, at) => (at * 17 + 5) % vocab);

it.each(CONFIGS.map((config, at) => [config.model_type, at] as const))(
  "%s (config %d) has the logits of float64, also of a text that is padded",
  async (_, at) => {
    const config = CONFIGS[at];
    const tensors = smallWeights(config, at + 1);
    const model = await Model.load(await testDevice(), checkpointOf(config, tensors));
    const ids = idsOf(11, config.vocab_size);
    const V = config.vocab_size;
    const close = (got: ArrayLike<number>, expected: ArrayLike<number>) => {
      expect(got).toHaveLength(expected.length);
      const largest = Math.max(...Array.from(expected, Math.abs));
      for (let i = 0; i < expected.length; i++)
        expect(Math.abs(got[i] - expected[i])).toBeLessThan(1e-5 * largest);
    };
    const { logits } = await model.run({ ids: [ids] });
    expect(logits.shape).toEqual([1, 11, V]);
    close(logits.data, decoderLogits(config, tensors, ids));
    const short = ids.slice(3);
    const both = await model.run({
      ids: [ids, [0, 0, 0, ...short]],
      mask: [new Array(11).fill(1), [0, 0, 0, ...new Array(8).fill(1)]],
    });
    // A scaling that depends on the length sees that of the batch.
    if (config.model_type !== "phi3")
      close(both.logits.data.subarray(14 * V), decoderLogits(config, tensors, short));
    model.destroy();
  },
);
