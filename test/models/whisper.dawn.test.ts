// Whisper against float64: encoder, decoder, what can be asked for, and what is refused.

import { expect, it } from "vitest";
import { logMel, Model } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";
import { checkpointOf, drawnTensors } from "../support/checkpoints.ts";
import { expectClose } from "../support/close.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { type WhisperConfig, whisperResults, whisperShapes } from "../support/reference_whisper.ts";

failOnGpuErrors();

const config: WhisperConfig = {
  model_type: "whisper",
  vocab_size: 23,
  d_model: 18,
  num_mel_bins: 5,
  max_source_positions: 9,
  max_target_positions: 12,
  encoder_layers: 1,
  encoder_attention_heads: 3,
  encoder_ffn_dim: 14,
  decoder_layers: 2,
  decoder_attention_heads: 2,
  decoder_ffn_dim: 11,
};
const tensors = drawnTensors(whisperShapes(config), 3);
const features = { shape: [2, 5, 18], data: normal(8, 180) };
const of = (entry: number) => features.data.slice(entry * 90, (entry + 1) * 90);

it("gives the encoder's rows and the decoder's logits, also of a padded batch", async () => {
  const model = await Model.load(await testDevice(), checkpointOf(config, tensors));
  expect(model.layers).toBe(2);
  const long = [1, 20, 7, 9, 13];
  const short = [5, 2, 22];
  const found = await model.run({
    features,
    decoderIds: [long, [0, 0, ...short]],
    decoderMask: [
      [1, 1, 1, 1, 1],
      [0, 0, 1, 1, 1],
    ],
  });
  const { encoder_last_hidden_state: rows, logits } = found;
  expect(Object.keys(found)).toEqual(["encoder_last_hidden_state", "logits"]);
  expect(rows.shape).toEqual([2, 9, 18]);
  expect(logits.shape).toEqual([2, 5, 23]);
  const first = whisperResults(config, tensors, of(0), long);
  const second = whisperResults(config, tensors, of(1), short);
  expectClose(rows.data, [...first.encoded, ...second.encoded]);
  expectClose(logits.data.subarray(0, 5 * 23), first.logits);
  expectClose(logits.data.subarray(7 * 23), second.logits);
  model.destroy();
});

it("hears samples as their features, shows where it looks, and runs the encoder alone", async () => {
  const model = await Model.load(await testDevice(), checkpointOf(config, tensors));
  const samples = normal(5, 18 * 160 - 31, 0.2);
  const heard = await model.run({ audio: [samples] });
  expect(Object.keys(heard)).toEqual(["encoder_last_hidden_state"]);
  const mels = { shape: [1, 5, 18], data: logMel(samples, 5, 18) };
  const asked = { hidden: true, attention: [1], crossAttention: [0], encoderAttention: [0] };
  const seen = await model.run({ features: mels, decoderIds: [[1, 2, 3]] }, asked);
  expect(seen.encoder_last_hidden_state.data).toEqual(heard.encoder_last_hidden_state.data);
  const shapes = Object.fromEntries(Object.entries(seen).map(([name, { shape }]) => [name, shape]));
  expect(shapes).toEqual({
    "encoder_attention.0": [1, 3, 9, 9],
    "encoder_hidden.0": [1, 9, 18],
    encoder_last_hidden_state: [1, 9, 18],
    "cross_attention.0": [1, 2, 3, 9],
    "attention.1": [1, 2, 3, 3],
    "hidden.0": [1, 3, 18],
    "hidden.1": [1, 3, 18],
    logits: [1, 3, 23],
  });
  for (const name of ["encoder_attention.0", "cross_attention.0", "attention.1"]) {
    const { shape, data } = seen[name];
    const N = shape[3];
    for (let at = 0; at < data.length; at += N)
      expect(data.subarray(at, at + N).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
  }
  for (const [inputs, message] of [
    [{}, /takes features or audio, one of them/],
    [{ features, audio: [samples] }, /takes features or audio, one of them/],
    [{ features: { shape: [1, 5, 17], data: [] } }, /features are \[B, 5, 18\], got \[1, 5, 17\]/],
    [{ audio: samples }, /audio is a list of samples for each entry/],
    [{ audio: [normal(1, 18 * 160 + 1)] }, /2881 samples are more than 18 frames/],
    [{ features, decoderIds: [[1]] }, /there are 1 lists of decoderIds for 2 entries/],
    [{ features, decoderMask: [[1]] }, /decoderMask has no decoderIds/],
    [{ features, decoderIds: [[1, 23]] }, /whisper's decoder: ids are whole numbers below 23/],
    [{ features, ids: [[1]] }, /takes features, audio, decoderIds, decoderMask, and no ids/],
  ] as const)
    await expectError(() => model.run(inputs as never), "argument", message);
  const wrong = { crossAttention: [2] };
  await expectError(
    () => model.run({ features }, wrong),
    "argument",
    /layers of crossAttention are 0 to 1, got 2/,
  );
  model.destroy();
});
