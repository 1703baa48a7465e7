// LoRA adapters beside the weights of models, against float64 with weights merged by hand.

import { describe, expect, it } from "vitest";
import { writeSafetensors } from "../../src/files/safetensors.ts";
import { bytesSource, generate, Model } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { decoderLogits, type Tensors } from "../support/reference_decoder.ts";
import { type Gpt2Config, gpt2Logits, gpt2Weights } from "../support/reference_gpt2.ts";

failOnGpuErrors();

const LLAMA = smallConfig("llama", { num_hidden_layers: 2, tie_word_embeddings: false });
const GPT2: Gpt2Config = {
  model_type: "gpt2",
  n_embd: 12,
  n_head: 3,
  n_layer: 2,
  n_positions: 32,
  vocab_size: 23,
};

/** Base models, with their logits in float64. */
const BASES = {
  llama: {
    config: LLAMA,
    tensors: smallWeights(LLAMA, 3),
    transposed: false,
    logits: (tensors: Tensors, ids: readonly number[]) => decoderLogits(LLAMA, tensors, ids),
    vocab: LLAMA.vocab_size,
  },
  gpt2: {
    config: GPT2,
    tensors: gpt2Weights(GPT2, 5),
    transposed: true,
    logits: (tensors: Tensors, ids: readonly number[]) => gpt2Logits(GPT2, tensors, ids),
    vocab: GPT2.vocab_size,
  },
} as const;

type Base = (typeof BASES)[keyof typeof BASES];

interface Saved {
  readonly config: Readonly<Record<string, unknown>>;
  /** lora_A [rank, inputs] and lora_B [outputs, rank] of the modules, by their names in files. */
  readonly modules: Readonly<Record<string, { readonly a: Tensors[string]; b: Tensors[string] }>>;
  readonly scaleOf: (path: string) => number;
}

/** A seeded adapter of modules, with a rank for each. */
function saved(
  base: Base,
  seed: number,
  paths: readonly string[],
  config: Readonly<Record<string, unknown>>,
  { rankOf, scaleOf }: { rankOf: (path: string) => number; scaleOf: (path: string) => number },
): Saved {
  const made = paths.map((path, at) => {
    const { shape } = base.tensors[`${path}.weight`];
    const [outputs, inputs] = base.transposed ? [...shape].reverse() : shape;
    const rank = rankOf(path);
    const a = { shape: [rank, inputs], data: normal(seed + 2 * at, rank * inputs, 0.4) };
    const b = { shape: [outputs, rank], data: normal(seed + 2 * at + 1, outputs * rank, 0.4) };
    return [path, { a, b }] as const;
  });
  const peft = { peft_type: "LORA", task_type: "CAUSAL_LM", bias: "none", inference_mode: true };
  return {
    config: { ...peft, lora_dropout: 0.1, use_dora: false, modules_to_save: null, ...config },
    modules: Object.fromEntries(made),
    scaleOf,
  };
}

const matrices = ({ modules }: Saved) =>
  Object.entries(modules).flatMap(([path, { a, b }]) => [
    [`base_model.model.${path}.lora_A.weight`, a] as const,
    [`base_model.model.${path}.lora_B.weight`, b] as const,
  ]);

function sourceOf(adapter: Saved, tensors = matrices(adapter)) {
  const stored = tensors.map(([name, { shape, data }]) => {
    return [name, { shape, data: Float32Array.from(data as Float32Array) }] as const;
  });
  return bytesSource(
    {
      "adapter_config.json": new TextEncoder().encode(JSON.stringify(adapter.config)),
      "adapter_model.safetensors": writeSafetensors(Object.fromEntries(stored)),
    },
    "an adapter",
  );
}

/** The weights of a base with adapters merged: W + weight scale B A. */
function merged(base: Base, mix: readonly (readonly [Saved, number])[]): Tensors {
  const tensors: Record<string, Tensors[string]> = { ...base.tensors };
  for (const [adapter, weight] of mix) {
    for (const [path, { a, b }] of Object.entries(adapter.modules)) {
      const { shape, data } = tensors[`${path}.weight`];
      const [rank, inputs] = a.shape;
      const factor = weight * adapter.scaleOf(path);
      const sum = Float64Array.from(data as ArrayLike<number>);
      for (let n = 0; n < b.shape[0]; n++)
        for (let k = 0; k < inputs; k++)
          for (let r = 0; r < rank; r++)
            sum[base.transposed ? k * b.shape[0] + n : n * inputs + k] +=
              factor * Number(b.data[n * rank + r]) * Number(a.data[r * inputs + k]);
      tensors[`${path}.weight`] = { shape, data: sum };
    }
  }
  return tensors;
}

const MODULES = {
  llama: {
    letters: [0, 1].flatMap((layer) =>
      ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"].map(
        (name) => `model.layers.${layer}.${name}`,
      ),
    ),
    verse: ["model.layers.1.self_attn.v_proj", "lm_head"],
  },
  gpt2: {
    letters: [0, 1].flatMap((layer) =>
      ["attn.c_attn", "attn.c_proj"].map((name) => `transformer.h.${layer}.${name}`),
    ),
    verse: ["transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj"],
  },
} as const;

/** Two adapters of a base: one as PEFT's defaults are, one with ranks of single modules. */
function adaptersOf(name: keyof typeof BASES) {
  const base: Base = BASES[name];
  const { letters, verse } = MODULES[name];
  const fan = { fan_in_fan_out: base.transposed };
  const ends = [...new Set(letters.map((path) => path.split(".").at(-1) as string))];
  const special = verse[1].split(".").slice(-2).join(".");
  return {
    letters: saved(
      base,
      100,
      letters,
      {
        ...fan,
        r: 3,
        lora_alpha: 6,
        target_modules: name === "gpt2" ? ["attn.c_attn", "attn.c_proj"] : ends,
      },
      { rankOf: () => 3, scaleOf: () => 2 },
    ),
    verse: saved(
      base,
      200,
      verse,
      {
        ...fan,
        r: 4,
        lora_alpha: 5,
        use_rslora: true,
        target_modules: verse.map((path) => path.replaceAll(".", "\\.")).join("|"),
        rank_pattern: { [special]: 1 },
        alpha_pattern: { [special]: 0.5 },
      },
      {
        rankOf: (path) => (path === verse[1] ? 1 : 4),
        scaleOf: (path) => (path === verse[1] ? 0.5 : 2.5),
      },
    ),
  };
}

const IDS = [5, 22, 8, 1, 17, 9];

const difference = (got: ArrayLike<number>, expected: ArrayLike<number>) => {
  expect(got).toHaveLength(expected.length);
  const largest = Math.max(...Array.from(expected, Math.abs));
  return Math.max(...Array.from(expected, (one, at) => Math.abs(got[at] - one))) / largest;
};

const expectClose = (got: ArrayLike<number>, expected: ArrayLike<number>) =>
  expect(difference(got, expected)).toBeLessThan(2e-5);

describe.each(["llama", "gpt2"] as const)("adapters of %s", (name) => {
  const base: Base = BASES[name];
  const { letters, verse } = adaptersOf(name);
  const mixes = [
    { weights: { letters: 1 }, mix: [[letters, 1]] },
    {
      weights: { letters: 0.5, verse: -1.5 },
      mix: [
        [letters, 0.5],
        [verse, -1.5],
      ],
    },
    { weights: { verse: 0.25, letters: 0 }, mix: [[verse, 0.25]] },
    { weights: { verse: 1 }, mix: [[verse, 1]] },
    { weights: {}, mix: [] },
  ] as const;
  const loaded = async () => {
    const model = await Model.load(await testDevice(), checkpointOf(base.config, base.tensors));
    await model.addAdapter("letters", sourceOf(letters));
    await model.addAdapter("verse", sourceOf(verse));
    return model;
  };

  it("are those of merged weights in whole texts, mixed and swapped", async () => {
    using model = await loaded();
    const plain = base.logits(base.tensors, IDS);
    expectClose((await model.run({ ids: [IDS] })).logits.data, plain);
    for (const { weights, mix } of mixes) {
      const expected = base.logits(merged(base, mix), IDS);
      model.useAdapters(weights);
      const running = model.run({ ids: [IDS] });
      model.useAdapters({ letters: 7, verse: 7 }); // the run goes on with what it began with
      expectClose((await running).logits.data, expected);
      if (mix.length > 0) expect(difference(plain, expected)).toBeGreaterThan(1e-2);
    }
  });

  it("are those of merged weights in texts that go on, also in a session", async () => {
    using model = await loaded();
    const session = await model.session({ capacity: 32 });
    await session.append(IDS.slice(0, 3)); // read by the base, and again by each mix
    const fork = await session.fork();
    let text = IDS.slice(0, 3);
    for (const { weights, mix } of [...mixes.slice(0, 3), ...mixes.slice(4)]) {
      const tensors = merged(base, mix);
      model.useAdapters(weights);
      let count = 0;
      for await (const { token, logits } of generate(model, [], {
        session,
        maxNewTokens: 3,
        stop: [],
        logits: true,
      })) {
        model.useAdapters({ verse: 5 }); // this text goes on with what it began with
        expectClose(logits as Float32Array, base.logits(tensors, text).slice(-base.vocab));
        text = [...text, token];
        count++;
      }
      expect(count).toBe(3);
    }
    model.useAdapters({ letters: 1 });
    const options = { session: fork, maxNewTokens: 1, stop: [], logits: true };
    for await (const { logits } of generate(model, [4], options)) {
      const all = base.logits(merged(base, [[letters, 1]]), [...IDS.slice(0, 3), 4]);
      expectClose(logits as Float32Array, all.slice(-base.vocab));
    }
  });
});

it("are loaded again with a model that is recovered, and count in its bytes", async () => {
  const base = BASES.llama;
  const { verse } = adaptersOf("llama");
  const model = await Model.load(await testDevice(), checkpointOf(base.config, base.tensors));
  const before = model.bytes;
  await model.addAdapter("verse", sourceOf(verse));
  const elements = matrices(verse).reduce((sum, [, { data }]) => sum + data.length, 0);
  expect(model.bytes - before).toBe(4 * (elements + 2)); // with two scales
  model.useAdapters({ verse: 0.5 });
  using again = await model.recover(await testDevice());
  const { logits } = await again.run({ ids: [IDS] });
  expectClose(logits.data, base.logits(merged(base, [[verse, 0.5]]), IDS));
});

it("are refused with what is wrong, and leave the model as it was", async () => {
  const base = BASES.llama;
  const { letters } = adaptersOf("llama");
  using model = await Model.load(await testDevice(), checkpointOf(base.config, base.tensors));
  const before = model.bytes;
  const refused = (config: object, message: string | RegExp, tensors = matrices(letters)) =>
    expectError(
      () =>
        model.addAdapter(
          "letters",
          sourceOf({ ...letters, config: { ...letters.config, ...config } }, tensors),
        ),
      "file",
      message,
    );
  await refused({ peft_type: "IA3" }, /peft_type must be one of LORA, got "IA3"/);
  await refused({ bias: "all" }, /bias is "all"; only "none" is supported/);
  await refused({ use_dora: true }, /use_dora is true, which is not supported/);
  await refused({ modules_to_save: ["lm_head"] }, /modules_to_save is \["lm_head"\], which is not/);
  await refused({ init_lora_weights: "pissa" }, /init_lora_weights is "pissa", which changes the/);
  await refused({ use_novelty: true }, /"use_novelty" is an option that this family does not know/);
  await refused({ r: 0 }, /r must be a whole number from 1 up, got 0/);
  await refused({ target_modules: "(" }, /target_modules: "\(" is no regular expression/);
  const [first, ...others] = matrices(letters);
  const path = "model.layers.0.self_attn.q_proj";
  await refused({}, `an adapter: base_model.model.${path}.lora_A.weight is missing.`, others);
  await refused(
    {},
    "an adapter: layers.0.self_attn.q_proj is one of the config's target_modules, and has no lora_A and lora_B in adapter_model.safetensors.",
    others.slice(1),
  );
  await refused(
    { target_modules: ["v_proj", "down_proj"] },
    `an adapter: "${path}" has an adapter, and is none of the config's target_modules.`,
  );
  await refused(
    { r: 2 },
    `an adapter: base_model.model.${path}.lora_A.weight is [3,20]; by the configs it is [2,20].`,
  );
  const extra = "base_model.model.model.embed_tokens.lora_A.weight";
  await refused({}, `an adapter: ${extra} stands beside no linear layer of this llama.`, [
    first,
    ...others,
    [extra, first[1]],
  ]);
  await refused({ layers_to_transform: [1] }, /"model.layers.0.self_attn.q_proj" has an adapter/);
  await expectError(
    () => model.addAdapter("letters", bytesSource({}, "nothing")),
    "file",
    "nothing: there is no adapter_config.json.",
  );
  expect(model.bytes).toBe(before);
  await model.addAdapter("letters", sourceOf(letters));
  const wrong = (work: () => unknown, message: string) => expectError(work, "argument", message);
  await wrong(
    () => model.addAdapter("letters", sourceOf(letters)),
    'llama: there is already an adapter named "letters".',
  );
  await wrong(
    () => model.useAdapters({ verse: 1 }),
    'llama: there is no adapter "verse"; there are "letters".',
  );
  await wrong(
    () => model.useAdapters({ letters: Number.NaN }),
    "llama: the weight of an adapter is a number, got NaN for letters.",
  );
  expectClose((await model.run({ ids: [IDS] })).logits.data, base.logits(base.tensors, IDS));
});
