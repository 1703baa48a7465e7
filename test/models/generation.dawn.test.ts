// Generation with caches: the tokens and logits of a text that is read whole, again for each token.

import { expect, it } from "vitest";
import { type CacheOptions, generate, Model, type Tokenizer } from "../../src/models/index.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, newDevice, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { type DecoderConfig, decoderLogits } from "../support/reference_decoder.ts";

failOnGpuErrors();

const LLAMA = smallConfig("llama", { num_hidden_layers: 2, eos_token_id: [29, 30] });
const LONGROPE = { type: "longrope", short_factor: [1, 1.1, 1.3], long_factor: [1, 2, 5] };
const GEMMA = smallConfig("gemma2", {
  num_hidden_layers: 2,
  tie_word_embeddings: true,
  query_pre_attn_scalar: 9,
  hidden_activation: "gelu_pytorch_tanh",
  sliding_window: 4,
  attn_logit_softcapping: 3,
  final_logit_softcapping: 5,
});
const PHI = smallConfig("phi3", {
  num_hidden_layers: 2,
  rope_scaling: LONGROPE,
  original_max_position_embeddings: 9,
});

const GPT_OSS = smallConfig("gpt_oss", {
  num_hidden_layers: 2,
  rope_scaling: { rope_type: "default" },
  sliding_window: 4,
  num_local_experts: 3,
  num_experts_per_tok: 2,
  swiglu_limit: 2,
});
const SMOLLM3 = smallConfig("smollm3", { num_hidden_layers: 4, tie_word_embeddings: true });

const modelOf = async (config: DecoderConfig, device?: GPUDevice) =>
  Model.load(device ?? (await testDevice()), checkpointOf(config, smallWeights(config, 3)));

const best = (row: ArrayLike<number>) => {
  const all = Array.from(row);
  return all.indexOf(Math.max(...all));
};

/** The greedy tokens of a text by float64, with their logits. */
function greedy(config: DecoderConfig, prompt: readonly number[], count: number) {
  const tensors = smallWeights(config, 3);
  const V = config.vocab_size;
  const ids = [...prompt];
  const logits: Float64Array[] = [];
  for (let at = 0; at < count; at++) {
    const row = decoderLogits(config, tensors, ids).slice(-V);
    logits.push(Float64Array.from(row));
    ids.push(best(row));
  }
  return { tokens: ids.slice(prompt.length), logits };
}

function expectClose(got: ArrayLike<number>, expected: ArrayLike<number>) {
  expect(got).toHaveLength(expected.length);
  const largest = Math.max(...Array.from(expected, Math.abs));
  for (let at = 0; at < expected.length; at++)
    expect(Math.abs(got[at] - expected[at])).toBeLessThan(5e-6 * largest);
}

const logSoftmax = (row: Float64Array, id: number) => {
  const most = Math.max(...row);
  return row[id] - most - Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
};

const PROMPTS = [
  [5, 22, 8],
  [17, 1, 9, 30, 4, 12, 25, 3, 28, 7, 2, 19, 6, 14, 21, 11, 10, 26],
  [3],
];

it.each<readonly [string, DecoderConfig, CacheOptions]>([
  ["llama, in one piece", LLAMA, {}],
  ["gpt-oss, with sinks", GPT_OSS, {}],
  ["smollm3, of which a layer does not turn", SMOLLM3, {}],
  ["llama, in pages", LLAMA, { kind: "paged", pageSize: 4 }],
  ["gemma2, whose layers slide", GEMMA, {}],
])("texts of several lengths go on as in float64: %s", async (_, config, cache) => {
  using model = await modelOf(config);
  const count = 7;
  const options = { maxNewTokens: count, stop: [], logits: true, cache, chunk: 5 };
  const expected = PROMPTS.map((prompt) => greedy(config, prompt, count));
  const got = PROMPTS.map((): number[] => []);
  for await (const item of generate(model, PROMPTS, options)) {
    const { logits, tokens } = expected[item.entry];
    const row = logits[item.index];
    expectClose(item.logits as Float32Array, row);
    expect(Math.abs(item.logprob - logSoftmax(row, tokens[item.index]))).toBeLessThan(1e-4);
    expect(item.finish).toBe(item.index === count - 1 ? "length" : undefined);
    got[item.entry].push(item.token);
  }
  expect(got).toEqual(expected.map(({ tokens }) => tokens));
});

it.each(["int8", "int4"] as const)("a cache of %s stays near float64", async (dtype) => {
  using model = await modelOf(LLAMA);
  const prompt = PROMPTS[1];
  const { logits } = greedy(LLAMA, prompt, 1);
  const errors: number[] = [];
  for (const cache of [{ dtype: "f32" }, { dtype }] as const) {
    const options = { maxNewTokens: 1, stop: [], logits: true, cache };
    for await (const item of generate(model, prompt, options)) {
      const row = item.logits as Float32Array;
      const squares = Array.from(row, (x, at) => (x - logits[0][at]) ** 2);
      const total = logits[0].reduce((sum, x) => sum + x * x, 0);
      errors.push(Math.sqrt(squares.reduce((sum, x) => sum + x) / total));
    }
  }
  expect(errors[0]).toBeLessThan(1e-5);
  expect(errors[1]).toBeGreaterThan(1e-4); // the cache does hold integers
  expect(errors[1]).toBeLessThan(dtype === "int8" ? 0.02 : 0.2);
});

it("reads all again where the rotary embedding changes, as longrope's does", async () => {
  using model = await modelOf(PHI);
  const prompt = [4, 9, 1, 16, 25];
  const tokens: number[] = [];
  const expected = greedy(PHI, prompt, 10);
  for await (const item of generate(model, prompt, { maxNewTokens: 10, stop: [], logits: true })) {
    expectClose(item.logits as Float32Array, expected.logits[item.index]);
    tokens.push(item.token);
  }
  expect(tokens).toEqual(expected.tokens);
});

it("allocates nothing from step to step, and leaves nothing", async () => {
  const { device, count, bytes } = counted(await testDevice());
  const model = await modelOf(LLAMA, device);
  const before = bytes();
  const made: number[] = [];
  const submits: number[] = [];
  for await (const { index } of generate(model, [1, 2, 3], { maxNewTokens: 12, stop: [] })) {
    made.push(count.buffersMade);
    submits.push(count.submits);
    expect(made).toHaveLength(index + 1);
  }
  expect(new Set(made).size).toBe(1);
  // Each step is one submission, and the one after it is submitted before its token has come back.
  expect(submits.slice(1, 10)).toEqual(submits.slice(0, 9).map((one) => one + 1));
  expect(bytes()).toBe(before);
  model.destroy();
  expect(bytes()).toBe(0);
});

it("goes on from a session, from its forks, and from what is left after tokens are taken back", async () => {
  using model = await modelOf(LLAMA);
  const prompt = [7, 3, 19, 23];
  for (const cache of [{}, { kind: "paged", pageSize: 4, forks: 1 }] as const) {
    const session = await model.session({ capacity: 40, cache });
    await session.append(prompt.slice(0, 3));
    const fork = await session.fork();
    const tokensOf = async (own: typeof session, more: readonly number[], count: number) => {
      const tokens: number[] = [];
      for await (const { token } of generate(model, more, {
        session: own,
        maxNewTokens: count,
        stop: [],
      }))
        tokens.push(token);
      return tokens;
    };
    const expected = greedy(LLAMA, prompt, 6).tokens;
    expect(await tokensOf(session, [23], 3)).toEqual(expected.slice(0, 3));
    expect(await tokensOf(session, [], 3)).toEqual(expected.slice(3));
    expect(session.tokens()).toEqual([...prompt, ...expected]);
    expect(await tokensOf(fork, [11], 4)).toEqual(greedy(LLAMA, [7, 3, 19, 11], 4).tokens);
    await session.truncate(2);
    expect(await tokensOf(session, [11], 4)).toEqual(greedy(LLAMA, [7, 3, 11], 4).tokens);
    fork.destroy();
    const after = greedy(LLAMA, [7, 3, 11], 6).tokens;
    expect(await tokensOf(session, [], 2)).toEqual(after.slice(4));
    await session.truncate(5); // after the second of the tokens
    expect(await tokensOf(session, [], 4)).toEqual(after.slice(2));
    session.destroy();
  }
});

it("a loop that is left early leaves its session with the tokens that came", async () => {
  using model = await modelOf(LLAMA);
  using session = await model.session({ capacity: 30 });
  const expected = greedy(LLAMA, [7, 3], 8).tokens;
  for await (const { index } of generate(model, [7, 3], { session, stop: [] })) {
    if (index === 0)
      await expectError(() => session.append([1]), "argument", /generate\(\) goes on with it/);
    if (index === 2) break;
  }
  expect(session.tokens()).toEqual([7, 3, ...expected.slice(0, 3)]);
  const tokens: number[] = [];
  for await (const { token } of generate(model, [], { session, maxNewTokens: 5, stop: [] }))
    tokens.push(token);
  expect(tokens).toEqual(expected.slice(3));
});

it("shows where tokens look and what layers give, as a run of the whole text does", async () => {
  using model = await modelOf(LLAMA);
  const prompt = [4, 18, 27];
  const asked = { attention: [1], hidden: true };
  const ids = [...prompt];
  for await (const { index, token, results = {} } of generate(model, prompt, {
    ...asked,
    maxNewTokens: 3,
    stop: [],
  })) {
    const T = prompt.length + index;
    const whole = await model.run({ ids: [ids] }, asked);
    expect(results["attention.1"].shape).toEqual([4, T]);
    const weights = whole["attention.1"].data;
    const rows = [0, 1, 2, 3].flatMap((head) => [
      ...weights.subarray((head * T + T - 1) * T, (head + 1) * T * T),
    ]);
    expectClose(results["attention.1"].data, rows);
    expect(results["hidden.0"].shape).toEqual([20]);
    expectClose(results["hidden.0"].data, whole["hidden.0"].data.slice(-20));
    ids.push(token);
  }
});

/** Letters for ids; id 30 begins a character of two tokens. */
const LETTERS: Tokenizer = {
  encode: (text) => ({ ids: Array.from(text, (one) => one.charCodeAt(0) - 97) }),
  decode: (ids) => ids.map((id) => String.fromCharCode(97 + id)).join(""),
};

it("gives text, and ends at ids and at texts that spread over tokens", async () => {
  using model = await modelOf(LLAMA);
  const { tokens } = greedy(LLAMA, [7, 3], 12);
  const text = LETTERS.decode(tokens);
  const said = async (options: Parameters<typeof generate>[2]) => {
    const items = [];
    for await (const item of generate(model, "hd", {
      tokenizer: LETTERS,
      maxNewTokens: 12,
      ...options,
    }))
      items.push(item);
    const { finish } = items[items.length - 1];
    return { text: items.map((item) => item.text).join(""), count: items.length, finish };
  };
  expect(await said({ stop: [] })).toEqual({ text, count: 12, finish: "length" });
  const at = tokens.findIndex((id, index) => index > 2 && tokens.indexOf(id) === index);
  expect(await said({ stop: [tokens[at]] })).toEqual({
    text: text.slice(0, at),
    count: at + 1,
    finish: "stop",
  });
  const stop = text.slice(4, 7);
  const end = text.indexOf(stop);
  expect(await said({ stop: [stop] })).toEqual({
    text: text.slice(0, end),
    count: end + 3,
    finish: "stop",
  });
});

it("draws the same tokens again by the same seed, and others by another", async () => {
  using model = await modelOf(LLAMA);
  const drawn = async (seed: number) => {
    const tokens: number[] = [];
    const options = { temperature: 1.5, topK: 20, seed, maxNewTokens: 16, stop: [] };
    for await (const { token } of generate(model, [7, 3], options)) tokens.push(token);
    return tokens;
  };
  const first = await drawn(5);
  expect(await drawn(5)).toEqual(first);
  expect(await drawn(6)).not.toEqual(first);
});

it("a token that was said is said less under a penalty", async () => {
  using model = await modelOf(LLAMA);
  const { tokens } = greedy(LLAMA, [7, 3], 20);
  const said: number[] = [];
  const options = { repetitionPenalty: 1e3, maxNewTokens: 20, stop: [] };
  for await (const { token } of generate(model, [7, 3], options)) said.push(token);
  expect(new Set(tokens).size).toBeLessThan(20);
  // Positive logits of what was said are nearly 0 and negative ones far below.
  expect(new Set([7, 3, ...said.slice(0, 6)]).size).toBe(8);
});

it.each([0, 1])("a draft changes no token, whether it guesses well or badly (%d)", async (seed) => {
  using model = await modelOf(LLAMA);
  const device = await testDevice();
  const weights = smallWeights(LLAMA, seed === 0 ? 3 : 8);
  using draft = await Model.load(device, checkpointOf(LLAMA, weights));
  const prompt = [7, 3, 12];
  const expected = greedy(LLAMA, prompt, 14);
  for (const draftTokens of [1, 3]) {
    const tokens: number[] = [];
    const options = { draft, draftTokens, maxNewTokens: 14, stop: [] };
    for await (const { token, index, logprob } of generate(model, prompt, options)) {
      const row = expected.logits[index];
      expect(Math.abs(logprob - logSoftmax(row, token))).toBeLessThan(1e-4);
      tokens.push(token);
    }
    expect(tokens).toEqual(expected.tokens);
  }
});

it.each<readonly [string, unknown, object, string, RegExp]>([
  ["an empty prompt", [], {}, "argument", /one token or more to go on from/],
  ["a text without a tokenizer", "a", {}, "argument", /which needs a tokenizer/],
  ["ids beyond the vocabulary", [31], {}, "argument", /ids are whole numbers below 31, got 31/],
  [
    "a prompt that is too long",
    [1],
    { maxNewTokens: 64 },
    "limit",
    /65 tokens are more than the 64/,
  ],
  ["an unknown option", [1], { top_k: 3 }, "argument", /no option "top_k"/],
  ["a temperature below 0", [1], { temperature: -1 }, "argument", /temperature must be/],
  ["no tokens", [1], { maxNewTokens: 0 }, "argument", /maxNewTokens must be/],
  ["a layer that is not there", [1], { attention: [2] }, "argument", /layers, 0 to 1/],
  ["a text to stop at", [1], { stop: ["a"] }, "argument", /needs a tokenizer/],
  ["too many guesses", [1], { draftTokens: 17 }, "argument", /draftTokens must be a whole number/],
  ["a kind of cache", [1], { cache: { kind: "ring" } }, "argument", /"contiguous" or "paged"/],
])("refuses %s", async (_, prompt, options, code, message) => {
  const { device, bytes } = counted(await testDevice());
  const model = await modelOf(LLAMA, device);
  const before = bytes();
  await expectError(
    async () => {
      for await (const _token of generate(model, prompt as number[], options)) break;
    },
    code as "argument",
    message,
  );
  expect(bytes()).toBe(before);
  model.destroy();
});

it("goes on with the same text on another device after a loss", async () => {
  const lost = await newDevice();
  const config = checkpointOf(LLAMA, smallWeights(LLAMA, 3));
  const model = await Model.load(lost, config);
  const session = await model.session({ capacity: 30, cache: { kind: "paged", pageSize: 4 } });
  const options = { temperature: 0.8, seed: 9, maxNewTokens: 12, stop: [] };
  const expected: number[] = [];
  for await (const { token } of generate(model, [7, 3], options)) expected.push(token);
  const tokens: number[] = [];
  await expectError(
    async () => {
      for await (const { token } of generate(model, [7, 3], { ...options, session })) {
        tokens.push(token);
        if (tokens.length === 5) lost.destroy();
      }
    },
    "device-lost",
    /request a new device/,
  );
  expect(tokens).toEqual(expected.slice(0, tokens.length));
  using again = await model.recover(await testDevice());
  const other = await again.session({ resume: session });
  const more = { ...options, session: other, maxNewTokens: 12 - tokens.length };
  for await (const { token } of generate(again, [], more)) tokens.push(token);
  expect(tokens).toEqual(expected);
});

it("a call that is refused leaves its session as it was", async () => {
  using model = await modelOf(LLAMA);
  using session = await model.session({ entries: 2, capacity: 20 });
  const start = (given: readonly number[][], options: object) => async () => {
    for await (const _ of generate(model, given, { session, ...options })) break;
  };
  await expectError(start([[4, 9], []], {}), "argument", /one token or more to go on from/);
  await expectError(start([[4], [9]], { draft: model }), "argument", /one text at a time/);
  expect(session.lengths).toEqual([0, 0]);
});

it("ends with the reason of its signal", async () => {
  using model = await modelOf(LLAMA);
  const controller = new AbortController();
  const reason = new Error("enough");
  let count = 0;
  await expect(async () => {
    for await (const _ of generate(model, [1], { signal: controller.signal, stop: [] })) {
      count++;
      if (count === 3) controller.abort(reason);
    }
  }).rejects.toBe(reason);
  expect(count).toBe(3);
});
