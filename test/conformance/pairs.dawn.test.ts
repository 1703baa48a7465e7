// Fixtures of models with an encoder and a decoder through the runner of vectors.

import { expect, it } from "vitest";
import { drawnTensors, filesOf } from "../support/checkpoints.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { type T5Config, t5Results, t5Shapes } from "../support/reference_t5.ts";
import { Runner } from "./runner.ts";

failOnGpuErrors();

const config: T5Config = {
  model_type: "t5",
  vocab_size: 11,
  d_model: 8,
  d_kv: 4,
  d_ff: 12,
  num_layers: 1,
  num_heads: 2,
  relative_attention_num_buckets: 4,
  relative_attention_max_distance: 5,
  layer_norm_epsilon: 1e-6,
  feed_forward_proj: "relu",
};
const tensors = drawnTensors(t5Shapes(config, false), 4, 0.5);
const ids = [3, 10, 9, 1, 7];
const V = config.vocab_size;
const W = config.d_model;

const base64 = (bytes: ArrayBufferView) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
const stored = (data: ArrayLike<number>, ...shape: number[]) => ({
  dtype: "float64",
  shape,
  data: base64(Float64Array.from(data)),
});

/** Three tokens that the model says after the first one, and their logits. */
function greedy() {
  const said: number[] = [];
  const logits: number[] = [];
  for (let at = 0; at < 3; at++) {
    const row = t5Results(config, tensors, ids, [0, ...said]).logits.slice(-V);
    said.push(row.indexOf(Math.max(...row)));
    logits.push(...row);
  }
  return { new_tokens: said, logits: stored(logits, 3, V) };
}

const right = t5Results(config, tensors, ids, [0, 4, 2]);
const entry = greedy();
const golden = {
  input_ids: [[...ids, 0]],
  attention_mask: [[1, 1, 1, 1, 1, 0]],
  encoder_last_hidden_state: stored([...right.encoded, ...new Array(W).fill(5)], 1, 6, W),
  decoder: { decoder_input_ids: [[0, 4, 2]], logits: stored(right.logits, 1, 3, V) },
  greedy: { decoder_prompt_ids: [0], entries: [entry] },
};

it("passes what is right, and names what is not", async () => {
  const runner = new Runner(() => testDevice());
  const files = Object.fromEntries(
    Object.entries(filesOf(config, tensors)).map(([name, one]) => [name, base64(one)]),
  );
  const run = (given: object) =>
    runner.run(JSON.stringify({ fixture: "pair", family: "t5", files, golden: given }));
  const passed = await run(golden);
  expect(passed).toMatchObject({ status: "passed", message: "" });
  expect(Number(passed.worst?.error)).toBeGreaterThan(0);
  const moved = right.encoded.map((value, at) => (at === W ? value + 1e-2 : value));
  const encoded = stored([...moved, ...new Array(W).fill(5)], 1, 6, W);
  expect(await run({ ...golden, encoder_last_hidden_state: encoded })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^encoder_last_hidden_state at \[0, 1, 0\] is /),
  });
  const [first, ...rest] = entry.new_tokens;
  const other = { ...entry, new_tokens: [(first + 1) % V, ...rest] };
  const wrong = { decoder_prompt_ids: [0], entries: [other] };
  expect(await run({ ...golden, greedy: wrong })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^token 0 of 3 is /),
  });
  const probs = stored(new Array(2 * 3 * 6).fill(0.5), 1, 2, 3, 6);
  const looked = { layer: 0, input: "decoder", probs };
  expect(await run({ ...golden, cross_attention: looked })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^cross_attention\.0 at /),
  });
});
