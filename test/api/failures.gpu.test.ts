// Calls that fail half way free what they had, and limits are checked before there is memory for
// anything.

import { describe, expect, it } from "vitest";
import {
  attention,
  blockMaskOf,
  createBlockMask,
  type MaskFunction,
  maskFunction,
  multiplicativeAttention,
  planAttention,
  planLinearAttention,
  scoreFunction,
  slidingWindow,
  type Tensor,
  t5Buckets,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

/** A function that no compiler takes. */
const BROKEN = "fn score(s: f32, at: Position) -> f32 { return s + at.head; }";

describe("a failure frees what there was", () => {
  it("when a kernel does not compile", async () => {
    const { device, buffers } = counted(await testDevice());
    const q = tensor(device, [1, 1, 4, 4]);
    const before = buffers();
    // the plan has its own tables
    const options = { scoreFunction: scoreFunction(BROKEN), kvLengths: [3] };
    await expectError(() => attention(q, q, q, options), "shader", /u32/);
    await expectError(
      () => planAttention(device, { q, k: q, v: q, kvSplits: 4, ...options }),
      "shader",
      /u32/,
    );
    const broken: MaskFunction = maskFunction("fn mask(at: Position) -> bool { return at.head; }");
    await expectError(
      () => createBlockMask(device, broken, { seqQ: 64, seqKv: 64 }),
      "shader",
      /u32/,
    );
    expect(buffers()).toBe(before);
    q.destroy();
  });
  it("when one of several plans fails", async () => {
    const { device, buffers } = counted(await testDevice());
    const q = tensor(device, [1, 2, 4, 4]);
    const weight = tensor(device, [2, 4, 4]);
    const before = buffers();
    const options = { scoreFunction: scoreFunction(BROKEN) };
    await expectError(() => multiplicativeAttention(q, q, q, weight, options), "shader", /u32/);
    await expectError(
      () => multiplicativeAttention(q, q, q, weight, { kvLengths: [9] }),
      "argument",
      /kvLengths/,
    );
    expect(buffers()).toBe(before);
    for (const one of [q, weight]) one.destroy();
  });
});

describe("outputs", () => {
  it("may share a buffer, but no part of it", async () => {
    const device = await testDevice();
    const q = tensor(device, [1, 1, 4, 4]);
    const memory = tensor(device, [256]);
    const at = (offset: number, shape: number[]): Tensor => memory.view({ shape, offset });
    const output = at(0, [1, 1, 4, 4]);
    const plan = await planAttention(device, { q, k: q, v: q, lse: true, variant: "8x32" });
    const encode = (lse: Tensor) => plan.encode(device.createCommandEncoder(), { output, lse });
    encode(at(64, [1, 1, 4]));
    // These are elements 0 to 3 of 16, in a binding that begins where the other's does.
    await expectError(
      () => encode(at(0, [1, 1, 4])),
      "overlap",
      /^attention: output and lse overlap in their buffer/,
    );
    const wide = memory.view({ shape: [1, 1, 4, 4], strides: [0, 0, 40, 1] });
    const wideOutput = () =>
      plan.encode(device.createCommandEncoder(), { output: wide, lse: at(64, [1, 1, 4]) });
    await expectError(wideOutput, "argument", /strides/);
    for (const one of [plan, q, memory]) one.destroy();
  });
  it("that overlap in part are refused: rows of one between those of the other", async () => {
    const device = await testDevice();
    const q = tensor(device, [1, 1, 4, 4]);
    const memory = tensor(device, [512]);
    // elements 0 to 303
    const output = memory.view({ shape: [1, 1, 4, 4], strides: [400, 400, 100, 1] });
    const plan = await planAttention(device, { q, k: q, v: q, output, lse: true, variant: "8x32" });
    const encode = (offset: number) =>
      plan.encode(device.createCommandEncoder(), {
        lse: memory.view({ shape: [1, 1, 4], offset }),
      });
    await expectError(
      () => encode(256),
      "overlap",
      /^attention: output and lse overlap in their buffer/,
    );
    encode(320);
    for (const one of [plan, q, memory]) one.destroy();
  });
});

describe("limits", () => {
  it("are checked before anything is allocated", async () => {
    const { device: real, count } = counted(await testDevice());
    const device = withLimits(real, {
      maxBufferSize: 2 ** 20,
      maxStorageBufferBindingSize: 2 ** 18,
    });
    const before = count.buffersMade;
    const huge = { seqQ: 2 ** 28, seqKv: 2 ** 28 };
    await expectError(
      () => createBlockMask(device, slidingWindow(1, 1), huge),
      "limit",
      /the list of blocks spans/,
    );
    const none = { seqQ: 2 ** 28, seqKv: 0, batch: 2 ** 28, heads: 2 ** 28 };
    await expectError(() => blockMaskOf(device, [], none), "limit", /the list of blocks spans/);
    const many = { shape: [1, 64, 2 ** 17, 4] };
    const cut = { q: many, k: many, v: many, variant: "8x32", maxDispatchFlops: 1 };
    await expectError(() => planAttention(real, cut), "limit", /^\d+ dispatches are too many/);
    const long = { shape: [1, 1, 2 ** 19, 1], dtype: "u8" } as never;
    await expectError(
      () => planLinearAttention(device, { q: long, k: long, v: long }),
      "argument",
      /f32, f16 or bf16/,
    );
    await expectError(() => tensor(device, [2 ** 19]), "limit", /maxBufferSize of 1048576/);
    expect(count.buffersMade).toBe(before);
  });
  it("of arrays are an error like any other", async () => {
    const device = await testDevice();
    await expectError(() => t5Buckets(2 ** 30, 2 ** 30), "limit", /^t5Buckets: /);
    const t = tensor(device, [1], { label: "t" });
    const all = t.view({ shape: [2 ** 26, 2 ** 26], strides: [0, 0] });
    await expectError(() => all.read(), "limit", /^t\.read: so many elements/);
    t.destroy();
  });
});
