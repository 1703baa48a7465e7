// What score and mask functions refuse, word for word, and where errors in them point.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
  attention,
  type Captures,
  maskFunction,
  planAttention,
  probabilityFunction,
  scoreFunction,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, newDevice, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const spec = (...shape: number[]) => ({ shape });
const GOOD = { q: spec(2, 4, 5, 8), k: spec(2, 2, 7, 8), v: spec(2, 2, 7, 6) };
const SCORE = "fn score(s: f32, at: Position) -> f32 { return s; }";
const MASK = "fn mask(at: Position) -> bool { return true; }";

describe("scoreFunction, maskFunction and probabilityFunction refuse", () => {
  const texts: readonly [what: string, make: () => unknown, message: string | RegExp][] = [
    [
      "no text",
      () => scoreFunction(((s: number) => s) as never),
      "score function: expected WGSL text, got a JavaScript function.",
    ],
    [
      "another name",
      () => scoreFunction("fn scores(s: f32, at: Position) -> f32 { return s; }"),
      "score function: expected `fn score(s: f32, at: Position) -> f32`, found no function score.",
    ],
    [
      "no position",
      () => scoreFunction("fn score(s: f32) -> f32 { return s; }"),
      "score function: expected `fn score(s: f32, at: Position) -> f32`, found `fn score(s: f32) -> f32`.",
    ],
    [
      "another result",
      () => maskFunction("// a mask\nfn mask(at: Position) -> u32 {\n  return 1;\n}"),
      "mask function: expected `fn mask(at: Position) -> bool`, found `fn mask(at: Position) -> u32`.",
    ],
    [
      "a probability without its place",
      () => probabilityFunction("fn probability(p: f32) -> f32 { return p; }"),
      "probability function: expected `fn probability(p: f32, at: Position) -> f32`, found `fn probability(p: f32) -> f32`.",
    ],
    ["a mask for a score", () => scoreFunction(MASK), /found no function score\.$/],
    ["a function in a comment", () => maskFunction(`// ${MASK}`), /found no function mask\.$/],
    [
      "a binding",
      () => maskFunction(`@group(0) @binding(3) var<storage> x: array<u32>;\n${MASK}`),
      "mask function:1:1: `@group` can't be in a function: attributes belong to the kernel; pass memory as captures.",
    ],
    [
      "workgroup memory",
      () => maskFunction(`${MASK}\n\nvar<workgroup> x: u32;`),
      "mask function:3:1: `var` can't be in a function: outside of functions memory comes in by captures, and nothing is kept between calls.",
    ],
    [
      "a barrier",
      () =>
        scoreFunction(
          "fn score(s: f32, at: Position) -> f32 {\n  workgroupBarrier();\n  return s;\n}",
        ),
      "score function:2:3: `workgroupBarrier` can't be in a function: barriers would stop the kernel.",
    ],
    [
      "a subgroup operation",
      () => scoreFunction("fn score(s: f32, at: Position) -> f32 {\n  return subgroupAdd(s);\n}"),
      "score function:2:10: `subgroupAdd` can't be in a function: lanes of a subgroup may be anywhere in the scores.",
    ],
    [
      "a directive",
      () => scoreFunction(`enable f16;\n${SCORE}`),
      "score function:1:1: `enable` can't be in a function: directives and imports belong to the kernel.",
    ],
    [
      "an import",
      () => scoreFunction(`\n  import package::lib::work::{Work};\n${SCORE}`),
      /^score function:2:3: `import` can't be in a function/,
    ],
    [
      "a brace too many",
      () => scoreFunction(`${SCORE} }`),
      'score function:1:53: expected fn, struct, const, alias or const_assert, found "}".',
    ],
    [
      "an open brace",
      () => scoreFunction(SCORE.slice(0, -1)),
      "score function:1:39: the text ends before a `}`.",
    ],
    [
      "an output of the kernel",
      () => scoreFunction("fn score(s: f32, at: Position) -> f32 {\n  o[0] = s;\n  return s;\n}"),
      'score function:2:3: there is no "o" here; a function has its own declarations, WGSL\'s functions, and Position, HIDDEN.',
    ],
    [
      "an entry point behind a carriage return",
      () => scoreFunction(`// a comment\r@compute @workgroup_size(1) fn f() {}\n${SCORE}`),
      /^score function:2:1: `@compute` can't be in a function/,
    ],
    [
      "a label that is none",
      () => scoreFunction(SCORE, { label: 5 as never }),
      "score function: label must be a string, got 5.",
    ],
    ["its own label", () => scoreFunction("", { label: "my score" }), /^my score: expected/],
  ];
  it.each(texts)("%s", async (_, make, message) => {
    await expectError(make, "argument", message);
  });

  const captures: readonly [what: string, captures: unknown, message: string | RegExp][] = [
    [
      "captures that are none",
      null,
      "score function: captures must be { name: tensor or number }, got null.",
    ],
    [
      "a name that is none",
      { "a b": 1 },
      'score function: capture "a b": the name is no WGSL identifier.',
    ],
    [
      "a capture that isn't a number",
      { x: "1" },
      'score function: capture x must be a tensor, a number, { i32: n } or { u32: n }, got "1".',
    ],
    ["an array", { x: [1, 2] }, /capture x must be a tensor, .* got \[1, 2\]\.$/],
    [
      "a list of captures",
      [1],
      "score function: captures must be { name: tensor or number }, got [1].",
    ],
    [
      "a map",
      new Map([["x", 1]]),
      "score function: captures must be { name: tensor or number }, got a Map.",
    ],
    [
      "a keyword",
      { loop: 1 },
      "score function: capture loop: take another name; it is a keyword of WGSL.",
    ],
    [
      "a reserved word",
      { final: 1 },
      "score function: capture final: take another name; WGSL reserves the word.",
    ],
    [
      "a type",
      { u32: 1 },
      "score function: capture u32: take another name; it has a meaning already.",
    ],
    [
      "our struct",
      { Position: 1 },
      "score function: capture Position: take another name; it has a meaning already.",
    ],
    ["a bigint", { x: 1n }, /capture x must be a tensor, .* got 1n\.$/],
    ["a bigint as an integer", { x: { i32: 1n } }, "score function: capture x: 1n is no i32."],
    [
      "two integers in one",
      { x: { i32: 1, u32: 1 } },
      /capture x must be .* got \{ i32, u32 \}\.$/,
    ],
    [
      "typed arrays",
      { x: new Float32Array(2) },
      /capture x must be .* got Float32Array of 8 bytes\.$/,
    ],
    ["a symbol", { x: Symbol("x") }, "score function: x cannot be Symbol(x)."],
    [
      "what can't be read",
      Object.defineProperty({}, "x", { enumerable: true, get: () => JSON.parse("{") }),
      "score function: an option cannot be read: it throws an error.",
    ],
    [
      "thousands",
      Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`x${i}`, i])),
      "score function: there are 50000 captures; at most 64 are taken. Capture several numbers as a tensor.",
    ],
    ["null", { x: null }, /got null\.$/],
    ["NaN", { x: Number.NaN }, "score function: capture x: NaN is no f32."],
    ["a number too large for f32", { x: 1e39 }, "score function: capture x: 1e+39 is no f32."],
    ["half an integer", { x: { i32: 0.5 } }, "score function: capture x: 0.5 is no i32."],
    [
      "an integer too large",
      { x: { i32: 2 ** 31 } },
      "score function: capture x: 2147483648 is no i32.",
    ],
    ["a negative u32", { x: { u32: -1 } }, "score function: capture x: -1 is no u32."],
  ];
  it.each(captures)("%s", async (_, given, message) => {
    await expectError(
      () => scoreFunction(SCORE, { captures: given as Captures }),
      "argument",
      message,
    );
  });
  it("tensors that aren't arrays of WGSL", async () => {
    const bytes = tensor(await testDevice(), [4], { dtype: "u8" });
    const message = "score function: capture x must be a tensor of f32, i32, u32, got u8.";
    await expectError(() => scoreFunction(SCORE, { captures: { x: bytes } }), "argument", message);
    bytes.destroy();
  });
});

describe("functions with names that others have", () => {
  it("give what they say: helpers, captures and types called like the kernel's and WGSL's, and like each other's", async () => {
    const device = await testDevice();
    const q = tensor(device, [1, 1, 2, 4], { data: [1, 0, 0, 0, 0, 1, 0, 0] });
    const k = tensor(device, [1, 1, 3, 4], { data: [1, 2, 3, 4, -1, 0.5, 2, 1, 0.25, -2, 1, 0] });
    const scores = scoreFunction(
      `struct Params { q: f32, o: f32 }
fn sees(p: Params) -> f32 { return p.q + p.o; }
fn max(a: f32) -> f32 { return sees(Params(a, distance)); }
fn mask(params: f32) -> f32 { let sees_2 = max(params); return sees_2; }
fn score(s: f32, at: Position) -> f32 { return mask(s) + f32(at.kv_idx) * kv_len; }`,
      { captures: { distance: 0.5, kv_len: 0.25 } },
    );
    const all = maskFunction(
      "fn sees() -> bool { return true; }\nfn mask(at: Position) -> bool { return sees(); }",
    );
    const options = {
      scoreFunction: scores,
      maskFunction: all,
      scale: 1,
      lse: true,
      variant: "8x32",
    } as const;
    const { output, lse } = await attention(q, k, k, options);
    const products = [
      [1, -1, 0.25],
      [2, 0.5, -2],
    ];
    const found = await (lse as Tensor).read();
    for (const [row, ofRow] of products.entries()) {
      const sum = ofRow.reduce((total, s, key) => total + Math.exp(s + 0.5 + key * 0.25), 0);
      expect(found[row]).toBeCloseTo(Math.log(sum), 5);
    }
    for (const used of [q, k, output, lse as Tensor]) used.destroy();
  });
});

describe("a plan with functions refuses", () => {
  const plan = async (options: object, device?: GPUDevice) =>
    planAttention(device ?? (await testDevice()), { ...GOOD, ...options } as AttentionProblem);

  it("what isn't a function of its kind", async () => {
    await expectError(
      () => plan({ scoreFunction: SCORE }),
      "argument",
      `attention: scoreFunction must come from scoreFunction(), got "${SCORE}".`,
    );
    await expectError(
      () => plan({ scoreFunction: maskFunction(MASK) }),
      "argument",
      /^attention: scoreFunction must come from scoreFunction\(\)/,
    );
    await expectError(
      () => plan({ maskFunction: () => true }),
      "argument",
      "attention: maskFunction cannot be a JavaScript function.",
    );
    await expectError(() => plan({ maskFunction: null }), "argument", /got null\.$/);
  });
  it("captured tensors that it can't bind", async () => {
    const { device, buffers } = counted(await testDevice());
    const x = tensor(device, [70]);
    const other = await newDevice();
    const foreign = tensor(other, [4]);
    const gone = tensor(device, [4]);
    gone.destroy();
    const before = buffers();
    // kvLengths need a table that the plan owns, which must be gone too.
    const refused = (
      captured: Tensor,
      code: "argument" | "destroyed" | "device",
      message: string,
    ) =>
      expectError(
        () =>
          plan(
            {
              scoreFunction: scoreFunction(SCORE, { captures: { x: captured } }),
              kvLengths: [1, 2],
            },
            device,
          ),
        code,
        message,
      );
    await refused(
      x.slice(0, 1, 5),
      "argument",
      "attention: capture x starts at element 1 of its buffer; a captured tensor must start at a multiple of 64 (256 bytes).",
    );
    await refused(gone, "destroyed", "attention: captures.x: the tensor was destroyed.");
    await refused(
      foreign,
      "device",
      "attention: captures.x belongs to another GPUDevice; tensors can't move between devices.",
    );
    expect(buffers()).toBe(before);
    x.destroy();
    other.destroy();
  });
  it("captures that it does not have, or not like that, when it is encoded", async () => {
    const device = await testDevice();
    const x = tensor(device, [4]);
    const scores = scoreFunction(
      "fn score(s: f32, at: Position) -> f32 { return s + x[at.head] + y; }",
      {
        captures: { x, y: 1 },
      },
    );
    const one = await plan({ scoreFunction: scores, variant: "8x32" });
    const encode = (captures: object) => () =>
      one.encode(device.createCommandEncoder(), { captures } as never);
    await expectError(
      encode({ z: x }),
      "argument",
      "attention: no function captured a tensor z; those captured are: x.",
    );
    await expectError(encode({ y: x }), "argument", /no function captured a tensor y/);
    const longer = tensor(device, [5]);
    const whole = tensor(device, [4], { dtype: "i32" });
    const memory = {
      q: tensor(device, GOOD.q.shape),
      k: tensor(device, GOOD.k.shape),
      v: tensor(device, GOOD.v.shape),
      output: tensor(device, [2, 4, 5, 6]),
    };
    const full = (captures: object) => () =>
      one.encode(device.createCommandEncoder(), { ...memory, captures } as never);
    await expectError(
      full({ x: longer }),
      "argument",
      "attention: captures.x is f32 [5]; the plan was made for f32 [4].",
    );
    await expectError(
      full({ x: whole }),
      "argument",
      "attention: captures.x is i32 [4]; the plan was made for f32 [4].",
    );
    await expectError(
      full({ x: 3 }),
      "argument",
      "attention: captures.x must be a Tensor; wrap a buffer with tensor().",
    );
    await expectError(
      () => one.encode(device.createCommandEncoder(), { ...memory, output: memory.q }),
      "argument",
      /output is/,
    );
    for (const used of [x, longer, whole, ...Object.values(memory), one]) used.destroy();
  });
  it("a capture of two functions", async () => {
    const twice = {
      scoreFunction: scoreFunction(SCORE, { captures: { x: 1 } }),
      maskFunction: maskFunction(MASK, { captures: { x: 2 } }),
    };
    await expectError(
      () => plan(twice),
      "argument",
      'attention: the score function and the mask function both have a capture "x"; give one of them another name.',
    );
  });
  it("what does not compile, at its line and column", async () => {
    const wrong = scoreFunction(
      "fn score(s: f32, at: Position) -> f32 {\n  let far = 1u;\n  return s + at.kv_idx;\n}",
    );
    await expectError(
      () => plan({ scoreFunction: wrong, variant: "8x32" }),
      "shader",
      /^forward 8x32 does not compile:\nscore function:3:10: .*/,
    );
    // Names that the kernel has are replaced in what is compiled, and every column is the author's.
    const renamed = maskFunction(
      "fn sees(key: u32) -> u32 { return key; }\nfn mask(at: Position) -> bool {\n\treturn sees(at.kv_idx) < sees(1.5);\n}",
      { label: "my mask" },
    );
    await expectError(
      () => plan({ maskFunction: renamed, variant: "8x32" }),
      "shader",
      /^forward 8x32 does not compile:\nmy mask:3:32: /,
    );
  });
  it("more buffers than the device binds", async () => {
    const device = withLimits(await testDevice(), { maxStorageBuffersPerShaderStage: 8 });
    const memory = { bias: spec(5, 7), mask: spec(5, 7), kvLengths: [1, 2] };
    const all = { ...memory, lse: true, rowMax: true, variant: "8x32" };
    await expectError(
      () => plan(all, device),
      "limit",
      "attention: this combination of options binds 9 storage buffers (q, k, v, tables, bias, o, lse, mask_tensor, row_max); the device allows 8 (maxStorageBuffersPerShaderStage). Leave an option out. To have the adapter's highest, request the device with deviceDescriptor(adapter).",
    );
    const captures = Object.fromEntries(
      Array.from({ length: 12 }, (_, index) => [`n${index}`, index]),
    );
    await expectError(
      () =>
        plan(
          { scoreFunction: scoreFunction(SCORE, { captures }) },
          withLimits(device, { maxUniformBuffersPerShaderStage: 12 }),
        ),
      "limit",
      /^attention: this combination of options binds 13 uniform buffers \(params, captures\.n0, .*\); the device allows 12 \(maxUniformBuffersPerShaderStage\)\. Every captured number is one; capture several as a tensor\.$/,
    );
  });
});
