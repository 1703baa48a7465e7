// Fixtures of models through the runner of vectors: right ones pass, wrong ones are named.

import { expect, it } from "vitest";
import { filesOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { decoderLogits } from "../support/reference_decoder.ts";
import { Runner } from "./runner.ts";

failOnGpuErrors();

const config = smallConfig("llama", { num_hidden_layers: 1 });
const tensors = smallWeights(config);
const base64 = (bytes: ArrayBufferView) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
const stored = (data: Float64Array, ...shape: number[]) => ({
  dtype: "float64",
  shape,
  data: base64(data),
});
const files = Object.fromEntries(
  Object.entries(filesOf(config, tensors)).map(([name, bytes]) => [name, base64(bytes)]),
);
const ids = [3, 9, 27, 19, 4];
const V = config.vocab_size;

/** Two tokens that the model says after the ids, and their logits. */
function greedy() {
  const said: number[] = [];
  const logits: number[] = [];
  for (let at = 0; at < 2; at++) {
    const all = decoderLogits(config, tensors, [...ids, ...said]);
    const row = all.slice(-V);
    said.push(row.indexOf(Math.max(...row)));
    logits.push(...row);
  }
  return { new_tokens: said, logits: stored(Float64Array.from(logits), 2, V) };
}

const right = decoderLogits(config, tensors, ids);
const golden = {
  prompt: { input_ids: [ids], logits: stored(right, 1, ids.length, V) },
  greedy: greedy(),
};

it("passes what is right, names what is not, and skips other families", async () => {
  const runner = new Runner(() => testDevice());
  const run = (given: object, family = "llama") =>
    runner.run(JSON.stringify({ fixture: "small", family, files, golden: given }));
  const passed = await run(golden);
  expect(passed).toMatchObject({ status: "passed", message: "" });
  expect(Number(passed.worst?.error)).toBeLessThan(1e-5);
  const left = { ...golden, other: { deep: stored(Float64Array.of(1), 1) } };
  expect(await run(left)).toMatchObject({
    status: "passed",
    message: "nothing was compared with other.deep",
  });
  const changed = right.map((value, at) => (at === 7 ? value + 1e-2 : value));
  const wrong = { ...golden.prompt, logits: stored(changed, 1, ids.length, V) };
  expect(await run({ ...golden, prompt: wrong })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^logits at \[0, 0, 7\] is .*, expected /),
  });
  const [first, second] = golden.greedy.new_tokens;
  const other = { ...golden.greedy, new_tokens: [first, (second + 1) % V] };
  expect(await run({ ...golden, greedy: other })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^token 1 of 7 is /),
  });
  expect(await run(golden, "mamba")).toMatchObject({
    status: "skipped",
    message: "no family of models mamba",
  });
});

it("runs distributions of tokens, and names what is wrong with them", async () => {
  const runner = new Runner(() => testDevice());
  const logits = { ...stored(Float64Array.of(2, 1, 0, -1), 4) };
  const sum = Math.E + 1;
  const sampling = {
    name: "top-k",
    logits,
    options: { top_k: 2 },
    probabilities: stored(Float64Array.of(Math.E / sum, 1 / sum, 0, 0), 4),
    kept: [0, 1],
    order_dependent: false,
  };
  const run = (change: object) =>
    runner.run(
      JSON.stringify({ fixture: "sampling: top-k", sampling: { ...sampling, ...change } }),
    );
  const passed = await run({});
  expect(passed).toMatchObject({ status: "passed", message: "" });
  expect(Number(passed.worst?.error)).toBeLessThan(1e-7);
  expect(await run({ kept: [0, 1, 2] })).toMatchObject({
    status: "failed",
    message: "tokens that stay are [0, 1], expected [0, 1, 2]",
  });
  const others = stored(Float64Array.of(1 / sum, Math.E / sum, 0, 0), 4);
  expect(await run({ probabilities: others })).toMatchObject({
    status: "failed",
    message: expect.stringMatching(/^output 0 at \[[01]\] is /),
  });
  const alike = { probabilities: others, order_dependent: true };
  expect(await run(alike)).toMatchObject({ status: "passed" });
  expect(await run({ ...alike, kept: [0] })).toMatchObject({
    status: "failed",
    message: "2 stay, not 1",
  });
});
