// checkGradient tells right derivatives from wrong ones, and derivatives of ready functions are
// right.

import { describe, expect, it } from "vitest";
import {
  alibiScore,
  attentionBackward,
  type CheckGradientOptions,
  checkGradient,
  maskFunction,
  type ScoreFunction,
  scoreFunction,
  softcapScore,
  type Tensor,
  t5Score,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const SLOPE = "fn gradient(s: f32, at: Position) -> f32";

async function checked(
  make: (of: (count: number) => Tensor) => ScoreFunction,
  options?: CheckGradientOptions,
) {
  const device = await testDevice();
  const made: Tensor[] = [];
  const of = (count: number) => {
    const one = tensor(device, [count], { data: normal(count, count) });
    made.push(one);
    return one;
  };
  try {
    return await checkGradient(device, make(of), options);
  } finally {
    for (const one of made) one.destroy();
  }
}

const SIZES = { heads: 4, batch: 2, seqQ: 20, seqKv: 30 };

describe("checkGradient", () => {
  it.each<[name: string, make: (of: (count: number) => Tensor) => ScoreFunction]>([
    ["softcapScore", () => softcapScore(3)],
    ["alibiScore", (of) => alibiScore(of(4))],
    ["alibiScore of entries", (of) => alibiScore(of(8).view({ shape: [2, 4] }))],
    ["t5Score", (of) => t5Score({ table: of(64).view({ shape: [16, 4] }), maxDistance: 20 })],
  ])("finds the derivatives of %s right", async (_, make) => {
    const { within, compared, worst } = await checked(make, SIZES);
    expect(worst?.difference).toBeLessThanOrEqual(worst?.allowed ?? 0);
    expect(within).toBe(true);
    expect(compared).toBe(512);
  });

  const TEXT = `fn score(s: f32, at: Position) -> f32 {
  if (at.kv_idx == 3) {
    return HIDDEN;
  }
  return s * exp(c) + w[at.head] * w[at.head + 1];
}`;
  const RIGHT = {
    s: "exp(c)",
    c: "s * exp(c)",
    index: "array<u32, 2>(at.head, at.head + 1)",
    w: "array<f32, 2>(w[at.head + 1], w[at.head])",
  };
  const made = (of: (count: number) => Tensor, change: Partial<typeof RIGHT>) => {
    const { s, c, index, w } = { ...RIGHT, ...change };
    return scoreFunction(TEXT, {
      captures: { c: 0.3, w: of(5) },
      gradient: `${SLOPE} { return ${s}; }
fn gradient_c(s: f32, at: Position) -> f32 { return ${c}; }
fn index_w(at: Position) -> array<u32, 2> { return ${index}; }
fn gradient_w(s: f32, at: Position) -> array<f32, 2> { return ${w}; }`,
    });
  };

  it("leaves out scores that are hidden", async () => {
    const { within, compared } = await checked((of) => made(of, {}), SIZES);
    expect(within).toBe(true);
    expect(compared).toBeLessThan(3 * 256);
    expect(compared).toBeGreaterThan(3 * 200);
  });

  it.each<[what: string, change: Partial<typeof RIGHT>, by: string]>([
    ["a derivative by s", { s: "exp(c) * 1.05" }, "s"],
    ["a derivative by a number", { c: "s" }, "c"],
    ["a derivative by an element", { w: "array<f32, 2>(w[at.head + 1], 0.0)" }, "w"],
    ["an index", { index: "array<u32, 2>(at.head + 1, at.head)" }, "w"],
    ["a NaN", { c: "sqrt(-1.0 - abs(s))" }, "c"],
  ])("finds %s wrong, and says where", async (_, change, by) => {
    const { within, worst } = await checked((of) => made(of, change), SIZES);
    expect(within).toBe(false);
    expect(worst?.by).toBe(by);
    expect(worst?.at.head).toBeLessThan(4);
  });

  it("refuses what it can't check", async () => {
    const device = await testDevice();
    const plain = scoreFunction("fn score(s: f32, at: Position) -> f32 { return s; }");
    const mask = maskFunction("fn mask(at: Position) -> bool { return true; }");
    await expectError(
      () => checkGradient(device, plain),
      "argument",
      "checkGradient: the score function was made without the option gradient; there is nothing to check.",
    );
    await expectError(
      () => checkGradient(device, mask as never),
      "argument",
      /^checkGradient: exp/,
    );
    for (const options of [{ heads: 0 }, { samples: 2 ** 17 }, { range: -1 }, { seed: 0.5 }]) {
      const [name] = Object.keys(options);
      const work = () => checkGradient(device, softcapScore(1), options);
      await expectError(work, "argument", new RegExp(`^checkGradient: ${name} must be`));
    }
  });
});

describe("the option gradient of scoreFunction", () => {
  const SCORE = "fn score(s: f32, at: Position) -> f32 { return s; }";
  const GOOD = `${SLOPE} { return 1; }`;
  it.each<[what: string, gradient: unknown, message: string | RegExp]>([
    ["a number", 1, /gradient must be a string/],
    [
      "no function",
      "fn f() -> f32 { return 1; }",
      `gradient of the score function: expected \`${SLOPE}\`, found no function gradient.`,
    ],
    [
      "another result",
      "fn gradient(s: f32, at: Position) -> u32 { return 1; }",
      `gradient of the score function: expected \`${SLOPE}\`, found \`fn gradient(s: f32, at: Position) -> u32\`.`,
    ],
    [
      "a name that the kernel calls",
      `${GOOD} fn score_gradient() {}`,
      "gradient of the score function: score_gradient has a meaning already; take another name.",
    ],
    ["a name of the score's text", `${GOOD} fn score() {}`, /score has a meaning already/],
    [
      "a capture that there is not",
      `${GOOD} fn gradient_x(s: f32, at: Position) -> f32 { return 1; }`,
      "gradient of the score function: gradient_x belongs to a capture x, and the function has none.",
    ],
    [
      "a derivative by an integer",
      `${GOOD} fn gradient_n(s: f32, at: Position) -> f32 { return 1; }`,
      "gradient of the score function: capture n is u32; only numbers and tensors of f32 have gradients.",
    ],
    [
      "a tensor without an index",
      `${GOOD} fn gradient_w(s: f32, at: Position) -> f32 { return 1; }`,
      "gradient of the score function: expected `fn index_w(at: Position) -> u32`, which elements a score reads, found no function index_w.",
    ],
    [
      "another number of indices",
      `${GOOD} fn index_w(at: Position) -> u32 { return 1; }
fn gradient_w(s: f32, at: Position) -> array<f32, 2> { return array<f32, 2>(); }`,
      "gradient of the score function: expected `fn index_w(at: Position) -> array<u32, 2>`, which elements a score reads, found `fn index_w(at: Position) -> u32`.",
    ],
    [
      "too many elements",
      `${GOOD} fn index_w(at: Position) -> array<u32, 17> { return array<u32, 17>(); }
fn gradient_w(s: f32, at: Position) -> array<f32, 17> { return array<f32, 17>(); }`,
      "gradient of the score function: a score can have derivatives by 1 to 16 elements of w, not 17.",
    ],
    [
      "an index alone",
      `${GOOD} fn index_w(at: Position) -> u32 { return 1; }`,
      /needs a captured tensor w and `fn gradient_w\(s: f32, at: Position\) -> f32` beside it/,
    ],
    [
      "an unknown name",
      `${SLOPE} { return t; }`,
      /^gradient of the score function:1:51: there is no "t" here/,
    ],
  ])("refuses %s", async (_, gradient, message) => {
    const device = await testDevice();
    const w = tensor(device, [3]);
    const captures = { w, n: { u32: 3 }, c: 1 };
    const work = () =>
      checkGradient(device, scoreFunction(SCORE, { captures, gradient: gradient as string }));
    await expectError(work, "argument", message);
    w.destroy();
  });

  it("is asked for by attentionBackward, before the GPU sees anything", async () => {
    const device = await testDevice();
    const x = tensor(device, [1, 1, 2, 4]);
    const lse = tensor(device, [1, 1, 2]);
    const given = { output: x, lse, dOutput: x, scoreFunction: scoreFunction(SCORE) };
    await expectError(
      () => attentionBackward(x, x, x, given),
      "argument",
      "attentionBackward: the score function has no derivative. Give scoreFunction() the option gradient, WGSL with `fn gradient(s: f32, at: Position) -> f32`, the derivative of the score by s; checkGradient() tells whether it is right.",
    );
    x.destroy();
    lse.destroy();
  });
});
