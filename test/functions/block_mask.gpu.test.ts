// What block masks refuse, word for word.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
  allOf,
  type BlockMask,
  type BlockMaskOptions,
  blockMaskOf,
  causalMask,
  createBlockMask,
  maskFunction,
  planAttention,
  scoreFunction,
  slidingWindow,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const spec = (...shape: number[]) => ({ shape });
const GOOD = { q: spec(2, 4, 5, 8), k: spec(2, 2, 7, 8), v: spec(2, 2, 7, 6) };
const SCORE = "fn score(s: f32, at: Position) -> f32 { return s; }";
const MASK = "fn mask(at: Position) -> bool { return true; }";

describe("block masks refuse", () => {
  const good: BlockMaskOptions = { seqQ: 5, seqKv: 7 };
  const make = async (change: object, mask: unknown = causalMask()) =>
    createBlockMask(await testDevice(), mask as ReturnType<typeof causalMask>, {
      ...good,
      ...change,
    });

  it("what isn't a mask function", async () => {
    await expectError(
      () => make({}, scoreFunction(SCORE)),
      "argument",
      "createBlockMask: expected a function from maskFunction(), got an AttentionFunction.",
    );
    await expectError(() => make({}, null), "argument", /got null\.$/);
  });
  const sizes: readonly [what: string, change: object, message: string | RegExp][] = [
    [
      "a negative length",
      { seqQ: -1 },
      "block mask: seqQ must be a whole number from 0 up to 2^29, got -1.",
    ],
    ["no length", { seqKv: undefined }, /seqKv must be a whole number .* got undefined\.$/],
    ["half an entry", { batch: 1.5 }, /batch must be a whole number .* got 1\.5\.$/],
    ["as many heads as that", { heads: 2 ** 29 }, /heads must be a whole number/],
    [
      "a block that isn't a multiple of a tile",
      { blockSize: [64, 48] },
      "block mask: blockSize must be [rows, keys], multiples of 64 and 32 up to 32768, got [64, 48].",
    ],
    ["one size of a block", { blockSize: 64 }, /blockSize must be .* got 64\.$/],
    [
      "a block beyond counting",
      { blockSize: [2 ** 16, 2 ** 16] },
      /blockSize must be .* up to 32768/,
    ],
    [
      "half a position",
      { queryOffset: 0.5 },
      "block mask: queryOffset must be a whole number, got 0.5.",
    ],
    [
      "with its own label",
      { label: "doc", queryOffset: Number.NaN },
      "doc: queryOffset must be a whole number, got NaN.",
    ],
  ];
  it.each(sizes)("%s", async (_, change, message) => {
    await expectError(() => make(change), "argument", message);
  });
  it("no options", async () => {
    const device = await testDevice();
    await expectError(
      () => createBlockMask(device, causalMask(), undefined as never),
      "argument",
      "block mask: seqQ must be a whole number from 0 up to 2^29, got undefined.",
    );
  });
  it("captured tensors that they can't bind, and more than they can", async () => {
    const { device, buffers } = counted(await testDevice());
    const x = tensor(device, [70], { dtype: "i32" });
    const part = maskFunction(MASK, { captures: { x: x.slice(0, 3, 7) } });
    await expectError(
      () => createBlockMask(device, part, good),
      "argument",
      "block mask: capture x starts at element 3 of its buffer; a captured tensor must start at a multiple of 64 (256 bytes).",
    );
    x.destroy();
    await expectError(
      () => createBlockMask(device, maskFunction(MASK, { captures: { x } }), good),
      "destroyed",
      "block mask: capture x: the tensor was destroyed.",
    );
    const windows = allOf(...Array.from({ length: 6 }, () => slidingWindow(1, 1)));
    await expectError(
      () =>
        createBlockMask(withLimits(device, { maxUniformBuffersPerShaderStage: 12 }), windows, good),
      "limit",
      /^block mask: this combination of options binds 13 uniform buffers/,
    );
    expect(buffers()).toBe(0);
  });
  it("kinds that do not fit", async () => {
    const device = await testDevice();
    await expectError(
      () => blockMaskOf(device, ["full"], { seqQ: 65, seqKv: 64 }),
      "argument",
      'block mask: expected 2 kinds [B, H, blocks of queries, blocks of keys] = [1,1,2,1], got ["full"].',
    );
    await expectError(
      () => blockMaskOf(device, ["none"] as never, good),
      "argument",
      'block mask: kind 0 must be "empty", "partial" or "full", got "none".',
    );
    await expectError(
      () => blockMaskOf(device, ["full"], { ...good, maskFunction: scoreFunction(SCORE) as never }),
      "argument",
      "block mask: maskFunction must come from maskFunction(), got an AttentionFunction.",
    );
  });

  const problems: readonly [
    what: string,
    options: Partial<BlockMaskOptions>,
    change: object,
    message: string | RegExp,
  ][] = [
    [
      "problems of other lengths",
      {},
      { k: spec(2, 2, 8, 8), v: spec(2, 2, 8, 6) },
      "attention: the block mask is for B = 1, H = 1, M = 5, N = 7; the problem has B = 2, H = 4, M = 5, N = 8.",
    ],
    [
      "problems of other heads",
      { heads: 2 },
      {},
      "attention: the block mask is for B = 1, H = 2, M = 5, N = 7; the problem has B = 2, H = 4, M = 5, N = 7.",
    ],
    [
      "problems at other positions",
      {},
      { causal: "top-left" },
      "attention: the block mask puts the first query at position 2, the problem at 0. Make the block mask with the same queryOffset.",
    ],
    [
      "problems with their own positions",
      {},
      { queryOffset: [0, 2] },
      "attention: a block mask can't be combined with lengths or positions of batch entries; use its mask function.",
    ],
    [
      "problems with their own lengths",
      {},
      { kvLengths: [1, 7] },
      /a block mask can't be combined with lengths/,
    ],
    [
      "another mask function beside theirs",
      {},
      { maskFunction: causalMask() },
      "attention: a block mask brings its own mask function; leave maskFunction out, or make the block mask from both with allOf().",
    ],
  ];
  it.each(problems)("%s", async (_, options, change, message) => {
    const device = await testDevice();
    const { heads = 1 } = options;
    const blockMask = blockMaskOf(device, new Array(heads).fill("full"), { ...good, ...options });
    await expectError(
      () => planAttention(device, { ...GOOD, blockMask, ...change } as AttentionProblem),
      "argument",
      message,
    );
    blockMask.destroy();
  });
  it("to be used when they are gone, or when they are none", async () => {
    const device = await testDevice();
    const blockMask = blockMaskOf(device, ["full"], good);
    blockMask.destroy();
    await expectError(
      () => planAttention(device, { ...GOOD, blockMask }),
      "destroyed",
      "attention: blocks: the tensor was destroyed.",
    );
    const none = causalMask() as unknown as BlockMask;
    await expectError(
      () => planAttention(device, { ...GOOD, blockMask: none }),
      "argument",
      "attention: blockMask must come from createBlockMask() or blockMaskOf(), got an AttentionFunction.",
    );
    await expectError(
      () => planAttention(device, { ...GOOD, blockMask: null as never }),
      "argument",
      /got null\.$/,
    );
  });
});
