// Beam search against all texts of a length, and what it refuses.

import { expect, it } from "vitest";
import { beamSearch, Model } from "../../src/models/index.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { decoderLogits } from "../support/reference_decoder.ts";

failOnGpuErrors();

const CONFIG = smallConfig("llama", { num_hidden_layers: 1, eos_token_id: 4 });
const WEIGHTS = smallWeights(CONFIG, 5);
const V = CONFIG.vocab_size;

/** Logarithms of the probabilities of what comes next. */
function logprobsAfter(ids: readonly number[]): number[] {
  const row = Array.from(decoderLogits(CONFIG, WEIGHTS, ids)).slice(-V);
  const most = Math.max(...row);
  const sum = row.reduce((total, x) => total + Math.exp(x - most), 0);
  return row.map((x) => x - most - Math.log(sum));
}

/** All texts of so many tokens, or that end before, the best first. */
function allTexts(prompt: readonly number[], count: number, stop: number, exponent: number) {
  const found: { tokens: number[]; logprob: number }[] = [];
  const visit = (tokens: number[], logprob: number) => {
    if (tokens.length === count || tokens.at(-1) === stop) {
      found.push({ tokens, logprob });
      return;
    }
    for (const [id, more] of logprobsAfter([...prompt, ...tokens]).entries())
      visit([...tokens, id], logprob + more);
  };
  visit([], 0);
  const score = ({ tokens, logprob }: (typeof found)[number]) =>
    logprob / tokens.length ** exponent;
  return found.sort((a, b) => score(b) - score(a));
}

it.each([{}, { kind: "paged", pageSize: 4 }] as const)(
  "as many beams as tokens find the best of all texts, with a cache %j",
  async (cache) => {
    const { device, bytes } = counted(await testDevice());
    const model = await Model.load(device, checkpointOf(CONFIG, WEIGHTS));
    const before = bytes();
    const prompt = [7, 21, 3];
    const options = { beams: V, maxNewTokens: 2, lengthPenalty: 0.7, cache };
    const found = await beamSearch(model, prompt, options);
    const expected = allTexts(prompt, 2, 4, 0.7);
    expect(found).toHaveLength(V);
    for (const [at, one] of found.slice(0, 8).entries()) {
      expect(one.tokens).toEqual(expected[at].tokens);
      expect(Math.abs(one.logprob - expected[at].logprob)).toBeLessThan(1e-4);
      const length = one.tokens.length ** 0.7;
      expect(one.score).toBeCloseTo(one.logprob / length, 10);
    }
    expect(bytes()).toBe(before);
    model.destroy();
  },
);

it("few beams go on from the best beginnings, and one is greedy", async () => {
  using model = await Model.load(await testDevice(), checkpointOf(CONFIG, WEIGHTS));
  const prompt = [11, 2];
  const options = { maxNewTokens: 5, stop: [] };
  const [one] = await beamSearch(model, prompt, { ...options, beams: 1 });
  const greedy: number[] = [];
  for (let at = 0; at < 5; at++) {
    const row = logprobsAfter([...prompt, ...greedy]);
    greedy.push(row.indexOf(Math.max(...row)));
  }
  expect(one.tokens).toEqual(greedy);
  // Three beams by hand, in float64.
  let beams = [{ tokens: [] as number[], logprob: 0 }];
  for (let at = 0; at < 5; at++) {
    beams = beams
      .flatMap(({ tokens, logprob }) =>
        logprobsAfter([...prompt, ...tokens]).map((more, id) => ({
          tokens: [...tokens, id],
          logprob: logprob + more,
        })),
      )
      .sort((a, b) => b.logprob - a.logprob)
      .slice(0, 3);
  }
  const found = await beamSearch(model, prompt, { ...options, beams: 3 });
  expect(found.map(({ tokens }) => tokens)).toEqual(beams.map(({ tokens }) => tokens));
});

it.each<readonly [string, unknown, object, RegExp]>([
  ["no beams", [1], { beams: 0 }, /beams must be a whole number, 1 to 32, got 0/],
  ["an empty prompt", [], {}, /a prompt has one token or more/],
  ["texts to stop at", [1], { stop: ["a"] }, /stop must be a list of ids/],
  ["a length penalty that is no number", [1], { lengthPenalty: Number.NaN }, /lengthPenalty/],
  ["a text without a tokenizer", "a", {}, /needs a tokenizer/],
])("refuses %s", async (_, prompt, options, message) => {
  using model = await Model.load(await testDevice(), checkpointOf(CONFIG, WEIGHTS));
  await expectError(() => beamSearch(model, prompt as number[], options), "argument", message);
});
