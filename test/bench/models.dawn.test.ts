// Suite `models`: our decoder is checked against float64, its calls are counted, and the ratios of
// turns and of growths are taken.

import { PbfReader } from "pbf";
import { expect, it } from "vitest";
import { goldenOf } from "../../bench/models/decoding.ts";
import { type LlamaSizes, llamaOf, textOf } from "../../bench/models/llama.ts";
import { decodeContest, flatContests, promptContest } from "../../bench/models/suite.ts";
import { type Contest, runContests } from "../../bench/peers/contest.ts";
import { llamaGraph } from "../../bench/peers/llama_onnx.ts";
import { graphModel } from "../../bench/peers/onnx_model.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { decoderLogits, type Tensors } from "../support/reference_decoder.ts";

failOnGpuErrors();

const SIZES: LlamaSizes = {
  layers: 2,
  width: 24,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  feedForward: 20,
  vocab: 40,
  positions: 48,
};

const run = async (contests: readonly Contest[], rounds = 2) => {
  const notes: string[] = [];
  const told = { rounds, onStep: () => undefined, note: (text: string) => notes.push(text) };
  const rows = await runContests(await testDevice(), "models", contests, told);
  expect(notes).toEqual([]);
  return rows;
};

it("knows what the model gives in float64", () => {
  const llama = llamaOf(SIZES);
  const ids = textOf(SIZES, 9);
  const { logits, tokens } = goldenOf(llama, ids, 3);
  const config = {
    model_type: "llama",
    vocab_size: SIZES.vocab,
    hidden_size: SIZES.width,
    intermediate_size: SIZES.feedForward,
    num_hidden_layers: SIZES.layers,
    num_attention_heads: SIZES.heads,
    num_key_value_heads: SIZES.kvHeads,
    head_dim: SIZES.headDim,
    max_position_embeddings: SIZES.positions,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: false,
  };
  const tensors = Object.fromEntries(llama.weights) as Tensors;
  const text = [...ids];
  for (const [step, token] of tokens.entries()) {
    const row = Array.from(decoderLogits(config, tensors, text)).slice(-SIZES.vocab);
    if (step === 0) for (const [at, x] of row.entries()) expect(logits.f64[at]).toBeCloseTo(x, 9);
    expect(row.indexOf(Math.max(...row))).toBe(token);
    text.push(token);
  }
});

it("times tokens behind others, in one submission each that makes no buffer", async () => {
  const contest = decodeContest(SIZES, 20);
  const [row] = await run([contest]);
  expect(row).toMatchObject({ case: "decode at position 20", impl: "fovea", correct: true });
  expect(row.maxError).toBeGreaterThan(0);
  expect(row.calls).toMatchObject({ submissions: 1, buffers: 0 });
  expect(Number.isInteger(row.calls?.dispatches)).toBe(true);
  expect(row.calls?.readShare).toBeCloseTo(1, 6);

  // Another token would be noticed.
  const [logits, tokens] = [contest.expected()].flat();
  const others = Array.from(tokens.f64, (token) => (token + 1) % SIZES.vocab);
  const wrong = { ...contest, expected: () => [logits, { ...tokens, f64: others, plain: others }] };
  expect(await run([wrong], 1)).toMatchObject([{ correct: false }]);
});

it("times prompts, read in chunks and at once", async () => {
  const rows = await run([promptContest(SIZES, 30)], 1);
  expect(rows.map(({ impl, correct }) => [impl, correct])).toEqual([
    ["fovea", true],
    ["fovea:one chunk", true],
  ]);
});

it("compares the growth of a token with that of its attention", async () => {
  const contests = flatContests({ ...SIZES, layers: 1 }, [8, 32]);
  const rows = await run(contests);
  expect(rows.map(({ correct }) => correct)).toEqual([true, true, true, true]);
  expect(rows[0].ratios).toBeUndefined();
  const [growth, beside] = rows[2].ratios ?? [];
  const [own] = rows[3].ratios ?? [];
  expect(growth.name).toBe("growth of fovea");
  expect(beside).toMatchObject({ name: "growth of a token / of its attention", atMost: 1.2 });
  expect(own.name).toBe("growth of fovea:attention");
  // Of two turns the nearest ranks are the least and the largest.
  expect(beside.min * beside.p90).toBeCloseTo((growth.min * growth.p90) / (own.min * own.p90), 6);
});

it("writes the graph of several nodes, with its weights", () => {
  const llama = llamaOf(SIZES);
  const { nodes, initialisers, inputs, outputs } = llamaGraph(llama, true);
  const counts = new Map<number, number>();
  new PbfReader(graphModel({ nodes, initialisers, inputs, outputs })).readFields(
    (tag, _, model) => {
      if (tag !== 7) return;
      model.readMessage((field) => counts.set(field, (counts.get(field) ?? 0) + 1), undefined);
    },
    undefined,
  );
  // Nodes, the name, numbers, inputs and outputs.
  const made = [nodes.length, 1, initialisers.length, inputs.length, outputs.length];
  expect([1, 2, 5, 11, 12].map((field) => counts.get(field))).toEqual(made);
  // Weights, the tables of cos and sin, and which row is the last.
  expect(initialisers).toHaveLength(llama.weights.size + 3);
  expect(nodes.filter(({ operator }) => operator === "GroupQueryAttention")).toHaveLength(2);
});
