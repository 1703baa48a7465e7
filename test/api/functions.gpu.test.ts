// What score and mask functions refuse, word for word, and where errors in them point.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
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
    ["no text", () => scoreFunction(((s: number) => s) as never), "score function: expected WGSL text, got function."],
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
      "mask function:1: `@group` can't be in a function: attributes belong to the kernel; pass memory as captures.",
    ],
    [
      "workgroup memory",
      () => maskFunction(`${MASK}\n\nvar<workgroup> x: u32;`),
      "mask function:3: `var<workgroup` can't be in a function: memory comes in by captures.",
    ],
    [
      "a barrier",
      () => scoreFunction("fn score(s: f32, at: Position) -> f32 {\n  workgroupBarrier();\n  return s;\n}"),
      "score function:2: `workgroupBarrier(` can't be in a function: barriers would stop the kernel.",
    ],
    [
      "a subgroup operation",
      () => scoreFunction("fn score(s: f32, at: Position) -> f32 {\n  return subgroupAdd(s);\n}"),
      "score function:2: `subgroupAdd(` can't be in a function: lanes of a subgroup may be anywhere in the scores.",
    ],
    [
      "a directive",
      () => scoreFunction(`enable f16;\n${SCORE}`),
      "score function:1: `enable` can't be in a function: directives and imports belong to the kernel.",
    ],
    [
      "an import",
      () => scoreFunction(`\n  import package::lib::work::{Work};\n${SCORE}`),
      /^score function:2: `import` can't be in a function/,
    ],
    ["braces that do not match", () => scoreFunction(`${SCORE} }`), "score function: the braces do not match."],
    ["an open brace", () => scoreFunction(SCORE.slice(0, -1)), "score function: the braces do not match."],
    ["a label of its own", () => scoreFunction("", { label: "my score" }), /^my score: expected/],
  ];
  it.each(texts)("%s", async (_, make, message) => {
    await expectError(make, "argument", message);
  });

  const captures: readonly [what: string, captures: unknown, message: string | RegExp][] = [
    ["captures that are none", null, "score function: captures must be { name: tensor or number }, got null."],
    ["a name that is none", { "a b": 1 }, "score function: capture a b: the name is no WGSL identifier."],
    [
      "a capture that is no number",
      { x: "1" },
      'score function: capture x must be a tensor, a number, { i32: n } or { u32: n }, got "1".',
    ],
    ["an array", { x: [1, 2] }, /capture x must be a tensor, .* got \[1,2\]\.$/],
    ["null", { x: null }, /got null\.$/],
    ["NaN", { x: Number.NaN }, "score function: capture x: NaN is no f32."],
    ["a number too large for f32", { x: 1e39 }, "score function: capture x: 1e+39 is no f32."],
    ["half an integer", { x: { i32: 0.5 } }, "score function: capture x: 0.5 is no i32."],
    ["an integer too large", { x: { i32: 2 ** 31 } }, "score function: capture x: 2147483648 is no i32."],
    ["a negative u32", { x: { u32: -1 } }, "score function: capture x: -1 is no u32."],
  ];
  it.each(captures)("%s", async (_, given, message) => {
    await expectError(() => scoreFunction(SCORE, { captures: given as Captures }), "argument", message);
  });
  it("tensors that are no arrays of WGSL", async () => {
    const bytes = tensor(await testDevice(), [4], { dtype: "u8" });
    const message = "score function: capture x must be a tensor of f32, i32, u32, got u8.";
    await expectError(() => scoreFunction(SCORE, { captures: { x: bytes } }), "argument", message);
    bytes.destroy();
  });
});

describe("a plan with functions refuses", () => {
  const plan = async (options: object, device?: GPUDevice) =>
    planAttention(device ?? (await testDevice()), { ...GOOD, ...options } as AttentionProblem);

  it("what is no function of its kind", async () => {
    await expectError(
      () => plan({ scoreFunction: SCORE }),
      "argument",
      `attention: scoreFunction must come from scoreFunction(), got ${SCORE}.`,
    );
    await expectError(
      () => plan({ scoreFunction: maskFunction(MASK) }),
      "argument",
      /^attention: scoreFunction must come from scoreFunction\(\)/,
    );
    await expectError(
      () => plan({ maskFunction: () => true }),
      "argument",
      "attention: maskFunction must come from maskFunction(), got () => true.",
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
    // kvLengths need a table of the plan's own, which must be gone too.
    const refused = (captured: Tensor, code: "argument" | "destroyed" | "device", message: string) =>
      expectError(
        () => plan({ scoreFunction: scoreFunction(SCORE, { captures: { x: captured } }), kvLengths: [1, 2] }, device),
        code,
        message,
      );
    await refused(
      x.slice(0, 1, 5),
      "argument",
      "attention: capture x starts at element 1 of its buffer; a captured tensor must start at a multiple of 64 (256 bytes).",
    );
    await refused(gone, "destroyed", "attention: capture x: the tensor was destroyed.");
    await refused(
      foreign,
      "device",
      "attention: capture x belongs to another GPUDevice; tensors can't move between devices.",
    );
    expect(buffers()).toBe(before);
    x.destroy();
    other.destroy();
  });
  it("captures that it does not have, or not like that, when it is encoded", async () => {
    const device = await testDevice();
    const x = tensor(device, [4]);
    const scores = scoreFunction("fn score(s: f32, at: Position) -> f32 { return s + x[at.head] + y; }", {
      captures: { x, y: 1 },
    });
    const one = await plan({ scoreFunction: scores, variant: "8x32" });
    const encode = (captures: object) => () => one.encode(device.createCommandEncoder(), { captures } as never);
    await expectError(
      encode({ z: x }),
      "argument",
      "attention: no function captured a tensor z; those captured are: x.",
    );
    await expectError(encode({ y: x }), "argument", /no function captured a tensor y/);
    const [longer, whole] = [tensor(device, [5]), tensor(device, [4], { dtype: "i32" })];
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
  it("names that two functions have, or the kernel", async () => {
    const twice = {
      scoreFunction: scoreFunction(SCORE, { captures: { x: 1 } }),
      maskFunction: maskFunction(MASK, { captures: { x: 2 } }),
    };
    await expectError(
      () => plan(twice),
      "shader",
      /^captures of the (score|mask) function:1: x is also declared at captures of the (mask|score) function:1$/,
    );
    const helper = scoreFunction(`fn sees(x: f32) -> f32 { return x; }\n${SCORE}`, { label: "mine" });
    await expectError(
      () => plan({ scoreFunction: helper }),
      "shader",
      /sees is also declared at (mine:1|lib\/score\.wesl:\d+)$/,
    );
    const hidden = "take another name";
    const select = scoreFunction(`${SCORE}\nfn max(a: f32) -> f32 { return a; }`);
    await expectError(
      () => plan({ scoreFunction: select }),
      "shader",
      new RegExp(`^score function:2: max would hide WGSL's own max, which .*; ${hidden}$`),
    );
    const bool = maskFunction(MASK, { captures: { bool: 1 } });
    await expectError(
      () => plan({ maskFunction: bool }),
      "shader",
      new RegExp(`^captures of the mask function:1: bool would hide WGSL's own bool, which .*; ${hidden}$`),
    );
  });
  it("what does not compile, at its line and column", async () => {
    const wrong = scoreFunction("fn score(s: f32, at: Position) -> f32 {\n  let far = 1u;\n  return s + at.kv_idx;\n}");
    await expectError(
      () => plan({ scoreFunction: wrong, variant: "8x32" }),
      "shader",
      /^forward 8x32 does not compile:\nscore function:3:10: .*/,
    );
    const unknown = maskFunction("fn mask(at: Position) -> bool {\n  return at.kv_idx < nowhere;\n}", {
      label: "my mask",
    });
    await expectError(
      () => plan({ maskFunction: unknown, variant: "8x32" }),
      "shader",
      /^forward 8x32 does not compile:\nmy mask:2:22: .*nowhere/,
    );
    const keyword = scoreFunction(SCORE, { captures: { loop: 1 } });
    await expectError(
      () => plan({ scoreFunction: keyword, variant: "8x32" }),
      "shader",
      /^forward 8x32 does not compile:\ncaptures of the score function:1:\d+: /,
    );
  });
  it("more buffers than the device binds", async () => {
    const device = withLimits(await testDevice(), { maxStorageBuffersPerShaderStage: 8 });
    const memory = { bias: spec(5, 7), mask: spec(5, 7), kvLengths: [1, 2] };
    const all = { ...memory, lse: true, rowMax: true, variant: "8x32" };
    await expectError(
      () => plan(all, device),
      "limit",
      "attention: this combination of options binds 9 storage buffers (q, k, v, tables, bias, o, lse, mask_tensor, row_max); the device allows 8 (maxStorageBuffersPerShaderStage). Use a device from requestFoveaDevice, which asks for the adapter's highest limit.",
    );
    const captures = Object.fromEntries(Array.from({ length: 12 }, (_, index) => [`n${index}`, index]));
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
