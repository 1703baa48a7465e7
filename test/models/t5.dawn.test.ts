// T5 against float64: plain and gated, tied and not, old and new configs, padded batches.

import { expect, it } from "vitest";
import { Config } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/families/index.ts";
import { generate, Model } from "../../src/models/index.ts";
import { checkpointOf, drawnTensors } from "../support/checkpoints.ts";
import { expectClose } from "../support/close.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { type T5Config, t5Results, t5Shapes } from "../support/reference_t5.ts";

failOnGpuErrors();

const PLAIN: T5Config = {
  model_type: "t5",
  vocab_size: 19,
  d_model: 14,
  d_kv: 6,
  d_ff: 21,
  num_layers: 2,
  num_heads: 3,
  relative_attention_num_buckets: 8,
  relative_attention_max_distance: 6,
  layer_norm_epsilon: 1e-5,
  feed_forward_proj: "relu",
};
const GATED = { ...PLAIN, feed_forward_proj: "gated-gelu", num_decoder_layers: 1 };

const CASES: readonly (readonly [name: string, config: T5Config, hasHead: boolean])[] = [
  ["plain and tied", PLAIN, false],
  ["gated, with its own head", { ...GATED, tie_word_embeddings: false }, true],
  [
    "gated mT5, as version 5 of transformers says it",
    { ...GATED, model_type: "mt5", tie_word_embeddings: true, scale_decoder_outputs: false },
    true,
  ],
];

it.each(CASES)("%s has the rows and logits of float64", async (_, config, hasHead) => {
  const tensors = drawnTensors(t5Shapes(config, hasHead), 5, 0.3);
  const model = await Model.load(await testDevice(), checkpointOf(config, tensors));
  const ids = [3, 18, 9, 1, 7, 7, 2, 11, 5];
  const decoderIds = [0, 4, 17, 6, 6, 8, 1, 12];
  const short = ids.slice(4);
  const shortDecoder = decoderIds.slice(0, 6);
  const found = await model.run({
    ids: [ids, [...short, 0, 0, 0, 0]],
    mask: [new Array(9).fill(1), [1, 1, 1, 1, 1, 0, 0, 0, 0]],
    decoderIds: [decoderIds, [0, 0, ...shortDecoder]],
    decoderMask: [new Array(8).fill(1), [0, 0, 1, 1, 1, 1, 1, 1]],
  });
  const { encoder_last_hidden_state: rows, logits } = found;
  const W = config.d_model;
  const V = config.vocab_size;
  expect(rows.shape).toEqual([2, 9, W]);
  expect(logits.shape).toEqual([2, 8, V]);
  const first = t5Results(config, tensors, ids, decoderIds);
  const second = t5Results(config, tensors, short, shortDecoder);
  expectClose(rows.data.subarray(0, 9 * W), first.encoded);
  expectClose(rows.data.subarray(9 * W, 14 * W), second.encoded);
  expectClose(logits.data.subarray(0, 8 * V), first.logits);
  expectClose(logits.data.subarray(10 * V), second.logits);
  model.destroy();
});

it("shows where it looks", async () => {
  const tensors = drawnTensors(t5Shapes(PLAIN, false), 6);
  const model = await Model.load(await testDevice(), checkpointOf(PLAIN, tensors));
  const asked = { hidden: true, attention: [1], crossAttention: [0], encoderAttention: [1] };
  const found = await model.run({ ids: [[1, 2, 3, 4]], decoderIds: [[0, 5]] }, asked);
  const shapes = Object.entries(found).map(([name, { shape }]) => `${name} ${shape}`);
  expect(shapes.sort()).toEqual([
    "attention.1 1,3,2,2",
    "cross_attention.0 1,3,2,4",
    "encoder_attention.1 1,3,4,4",
    "encoder_hidden.0 1,4,14",
    "encoder_hidden.1 1,4,14",
    "encoder_last_hidden_state 1,4,14",
    "hidden.0 1,2,14",
    "hidden.1 1,2,14",
    "logits 1,2,19",
  ]);
  const alone = await model.run({ ids: [[1, 2, 3, 4]] });
  expect(Object.keys(alone)).toEqual(["encoder_last_hidden_state"]);
  model.destroy();
});

it("refuses other feed-forward layers, and finds the embedding under its old names", () => {
  const read = (given: object, names: readonly string[] = []) =>
    familyOf(new Config({ ...PLAIN, ...given }), new Set(names));
  expect(() => read({ feed_forward_proj: "gated-mish" })).toThrow(/feed_forward_proj is "gated-mi/);
  expect(() => read({ is_gated_act: true })).toThrow(/is_gated_act is true; only false is/);
  expect(() => read({ dense_act_fn: "gelu" })).toThrow(/dense_act_fn is "gelu"; only "relu" is/);
  expect(() => read({ is_encoder_decoder: false })).toThrow(/is_encoder_decoder is false; only/);
  const names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
  const namesOf = (given: readonly string[]) => given.map((name) => read({}, given).nameOf(name));
  expect(namesOf(["shared.weight", ...names])).toEqual(["shared.weight", undefined, undefined]);
  expect(namesOf(names)).toEqual(["shared.weight", undefined]);
  expect(namesOf(names.slice(1))).toEqual(["shared.weight"]);
});

it("goes on with texts of several sources by what a cache has of the decoder", async () => {
  const tensors = drawnTensors(t5Shapes(PLAIN, false), 8, 0.3);
  const model = await Model.load(await testDevice(), checkpointOf(PLAIN, tensors));
  const V = PLAIN.vocab_size;
  const sources = [
    [3, 18, 9, 1, 7, 7, 2, 11, 5],
    [12, 4, 16, 1, 9],
  ];
  const source = {
    ids: sources.map((ids) => [...ids, ...new Array<number>(9 - ids.length).fill(0)]),
    mask: sources.map((ids) => Array.from({ length: 9 }, (_, at) => Number(at < ids.length))),
  };
  const prompts = [[], [0, 13, 6]];
  const expected = sources.map((ids, entry) => {
    const text = prompts[entry].length ? [...prompts[entry]] : [0];
    return Array.from({ length: 6 }, () => {
      const { logits } = t5Results(PLAIN, tensors, ids, text);
      const row = Array.from(logits).slice(-V);
      text.push(row.indexOf(Math.max(...row)));
      return { row, token: text[text.length - 1] };
    });
  });
  const options = { source, maxNewTokens: 6, stop: [], logits: true };
  for await (const { entry, index, token, logits } of generate(model, prompts, options)) {
    const { row, token: right } = expected[entry][index];
    expect(token).toBe(right);
    expectClose(logits as Float32Array, row);
  }
  await expectError(
    () => model.session({}),
    "argument",
    /source is missing, what the encoder reads/,
  );
  await expectError(
    () => model.session({ source, entries: 3 }),
    "argument",
    /the source has 2 entries for 3 texts/,
  );
  model.destroy();
});
