// What planSampling and planTopTokens refuse, and what they name.

import { expect, it } from "vitest";
import { tensor } from "../../src/index.ts";
import { planSampling, planTopTokens } from "../../src/models/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { HOSTILE } from "../support/hostile_values.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const logits = { shape: [2, 40] };
const { NaN: nan, POSITIVE_INFINITY: infinite } = Number;
const RANGES = {
  repetitionPenalty: "must be a number from 0.001 up to 1000",
  temperature: "must be 0 for greedy decoding, or a number from 1e-30 up to 1e30",
  topK: "must be a whole number from 0 up",
  topP: "must be a number from 0 up to 1",
  minP: "must be a number from 0 up to 1",
  seed: "must be a whole number from 0 up to 2^53",
} as const;
const BEYOND: Readonly<Record<keyof typeof RANGES, readonly number[]>> = {
  repetitionPenalty: [0, -1, 1e4],
  temperature: [-1, 1e-31, 1e31],
  topK: [-1, 1.5, 2 ** 53],
  topP: [-0.1, 1.1],
  minP: [-0.1, 1.1],
  seed: [-1, 0.5, 2 ** 53],
};

it("settings beyond their ranges are refused by name", async () => {
  const device = idle(await testDevice());
  for (const [name, range] of Object.entries(RANGES))
    for (const value of [...BEYOND[name as keyof typeof RANGES], nan, infinite, -infinite])
      await expectError(
        () => planSampling(device, { logits, [name]: value }),
        "argument",
        `sampling: ${name} ${range}, got ${value}.`,
      );
});

it("values of any kind are refused with one error that names the option, or taken", async () => {
  const device = idle(await testDevice());
  for (const name of [...Object.keys(RANGES), "step"] as const)
    for (const value of HOSTILE) {
      const problem = { logits, [name]: value } as never;
      const outcome = await planSampling(device, problem).then(
        (plan) => plan.destroy(),
        (error: Error) => error,
      );
      if (outcome) {
        expect(outcome.name).toBe("FoveaError");
        expect(outcome.message).toMatch(new RegExp(`${name}|an option cannot be read`));
      }
    }
});

it.each<[string, object, "argument" | "limit" | "overlap", string | RegExp]>([
  ["no logits", { logits: undefined }, "argument", /logits must be a tensor/],
  [
    "logits of three axes",
    { logits: { shape: [1, 2, 40] } },
    "argument",
    /^sampling: logits must be \[B, V\] of one token or more, got \[1, 2, 40\]/,
  ],
  ["no token", { logits: { shape: [2, 0] } }, "argument", /logits must be \[B, V\]/],
  ["logits of f16", { logits: { shape: [2, 40], dtype: "f16" } }, "argument", /logits must be f32/],
  [
    "too many tokens",
    { logits: { shape: [1, 2 ** 19] } },
    "limit",
    "sampling: logits must be of fewer than 524288 tokens, got 524288.",
  ],
  ["a token of f32", { token: { shape: [2] } }, "argument", /token must be i32/],
  [
    "a logprob of another shape",
    { logprob: { shape: [2, 1] } },
    "argument",
    "sampling: logprob must be [2], got [2, 1].",
  ],
  [
    "probabilities that share memory",
    { probabilities: { shape: [2, 40], strides: [0, 1] } },
    "overlap",
    /elements of probabilities share memory/,
  ],
  [
    "seen of too few words",
    { seen: { shape: [2, 1], dtype: "u32" } },
    "argument",
    "sampling: seen must be [2, 2], got [2, 1].",
  ],
  [
    "a penalty without seen",
    { repetitionPenalty: 1.1 },
    "argument",
    "sampling: repetitionPenalty 1.1 needs seen, the tokens that were said.",
  ],
  ["a step of two numbers", { step: { shape: [2], dtype: "u32" } }, "argument", /step must be one/],
  ["a step below 0", { step: -1 }, "argument", /step must be a whole number/],
  ["another name", { topk: 3 }, "argument", /topk.*topK/],
])("%s is refused", async (_, change, code, message) => {
  const device = idle(await testDevice());
  await expectError(() => planSampling(device, { logits, ...change } as never), code, message);
});

it("k of the largest logits is from 1 up to 64 and V", async () => {
  const device = idle(await testDevice());
  for (const k of [0, 41, 1.5, nan])
    await expectError(
      () => planTopTokens(device, { logits, k }),
      "argument",
      `top tokens: k must be a whole number from 1 up to 40, got ${k}.`,
    );
  await expectError(
    () => planTopTokens(device, { logits: { shape: [1, 900] }, k: 65 }),
    "argument",
    "top tokens: k must be a whole number from 1 up to 64, got 65.",
  );
  await expectError(
    () => planTopTokens(device, { logits, k: 3, ids: { shape: [2, 4], dtype: "i32" } }),
    "argument",
    "top tokens: ids must be [2, 3], got [2, 4].",
  );
});

it("nothing is allocated when a plan is encoded", async () => {
  const device = idle(await testDevice());
  const made = {
    logits: tensor(device, [2, 40]),
    token: tensor(device, [2], { dtype: "i32" }),
    logprob: tensor(device, [2]),
    step: tensor(device, [1], { dtype: "u32" }),
  };
  const plan = await planSampling(device, { ...made, topP: 0.9 });
  expect(plan.dispatchCount).toBe(2);
  const encoder = device.createCommandEncoder();
  const { createBuffer } = device;
  device.createBuffer = () => {
    throw new Error("a buffer was made");
  };
  plan.encode(encoder);
  plan.encode(encoder);
  device.createBuffer = createBuffer;
  encoder.finish();
  plan.destroy();
  for (const one of Object.values(made)) one.destroy();
});
