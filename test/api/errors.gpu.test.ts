// Bad input of every kind gets one clear error, before the GPU sees it, and costs nothing.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
  attention,
  planAttention,
  splitHeads,
  type Tensor,
  tensor,
  unpackQkv,
} from "../../src/index.ts";
import { failOnGpuErrors, newDevice, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const spec = (...shape: number[]) => ({ shape });
/** The tile that compiles fastest. */
const small = { variant: "8x32" } as const;
const GOOD = { q: spec(2, 4, 5, 8), k: spec(2, 2, 7, 8), v: spec(2, 2, 7, 6) };

/** Each changes one thing of a good problem; the message names it. */
const PROBLEMS: readonly [what: string, change: object, message: string | RegExp][] = [
  [
    "a shape of three axes",
    { q: spec(4, 5, 8) },
    "attention: q must have the four axes BHMD, got shape [4,5,8]. Use view() to add axes of size 1, or splitHeads() to take heads apart.",
  ],
  [
    "something that isn't a tensor",
    { k: null },
    "attention: k must be a tensor, or { shape, strides?, offset?, dtype? }, got null.",
  ],
  [
    "an axis that isn't a number",
    { v: spec(2, 2, 7, Number.NaN) },
    "attention: v: a shape is a list of whole numbers from 0 up, got [2, 2, 7, NaN].",
  ],
  [
    "other batch sizes",
    { v: spec(3, 2, 7, 6) },
    "attention: q, k and v must have the same batch size (axes BHMD): q is [2, 4, 5, 8], k [2, 2, 7, 8], v [3, 2, 7, 6].",
  ],
  [
    "other head dims",
    { k: spec(2, 2, 7, 4) },
    /^attention: q and k must have the same head dim \(axes BHMD\)/,
  ],
  [
    "other key heads",
    { v: spec(2, 4, 7, 6) },
    /^attention: k and v must have the same number of heads/,
  ],
  [
    "other key counts",
    { v: spec(2, 2, 8, 6) },
    /^attention: k and v must have the same number of keys/,
  ],
  [
    "heads that don't divide",
    { q: spec(2, 3, 5, 8) },
    /^attention: the 3 query heads must be a multiple of the 2 key heads/,
  ],
  ["no head dim", { q: spec(2, 4, 5, 0), k: spec(2, 2, 7, 0) }, /^attention: head dims start at 1/],
  [
    "no head",
    { q: spec(2, 0, 5, 8), k: spec(2, 0, 7, 8), v: spec(2, 0, 7, 6) },
    /^attention: there must be a head/,
  ],
  [
    "another dtype",
    { q: { ...GOOD.q, dtype: "u32" } },
    "attention: q must be f32, f16 or bf16, got u32.",
  ],
  [
    "an unknown dtype",
    { q: { ...GOOD.q, dtype: "f8" } },
    'attention: q: dtype must be f32, f16, bf16, u32, i32, u8, got "f8".',
  ],
  [
    "an unknown layout",
    { layout: "bhdm" },
    'attention: layout must be "bhmd" or "bmhd", got "bhdm".',
  ],
  ["a layout that the shapes don't have", { layout: "bmhd" }, /\(axes BMHD\): q is \[2, 4, 5, 8\]/],
  [
    "an unknown alignment",
    { causal: "middle" },
    'attention: causal must be a boolean, "bottom-right" or "top-left", got "middle".',
  ],
  [
    "a NaN scale",
    { scale: Number.NaN },
    "attention: scale must be a finite number of f32, got NaN. Leave it out for the default.",
  ],
  [
    "an infinite scale",
    { scale: Number.POSITIVE_INFINITY },
    /scale must be a finite number of f32, got Infinity/,
  ],
  [
    "an alignment and an offset",
    { causal: "top-left", queryOffset: 1 },
    'attention: queryOffset replaces the alignment "top-left"; give causal: true with it, or leave it out.',
  ],
  [
    "a broken offset",
    { causal: true, queryOffset: 0.5 },
    "attention: queryOffset must be a whole number, or 2 of them (one a batch entry), got 0.5.",
  ],
  [
    "too few offsets",
    { causal: true, queryOffset: [1] },
    "attention: queryOffset must be a whole number, or 2 of them (one a batch entry), got [1].",
  ],
  [
    "too few lengths",
    { kvLengths: [7] },
    "attention: kvLengths must be 2 whole numbers (one a batch entry) from 0 to 7, the keys that k has, got 7.",
  ],
  [
    "a length beyond the keys",
    { kvLengths: [8, 1] },
    /from 0 to 7, the keys that k has, got 8,1\.$/,
  ],
  ["a negative length", { kvLengths: [-1, 1] }, /got -1,1\.$/],
  [
    "an output of another shape",
    { output: spec(2, 4, 5, 8) },
    "attention: output must be [2, 4, 5, 6], got [2, 4, 5, 8].",
  ],
  [
    "an output in the other layout",
    {
      layout: "bmhd",
      q: spec(2, 5, 4, 8),
      k: spec(2, 7, 2, 8),
      v: spec(2, 7, 2, 6),
      output: spec(2, 4, 5, 6),
    },
    "attention: output must be [2, 5, 4, 6], got [2, 4, 5, 6].",
  ],
  [
    "an LSE of another shape",
    { lse: spec(2, 4, 6) },
    "attention: lse must be [2, 4, 5], got [2, 4, 6].",
  ],
  [
    "a maxDispatchFlops of 0",
    { maxDispatchFlops: 0 },
    "attention: maxDispatchFlops must be a positive number, got 0.",
  ],
  [
    "an unknown variant",
    { variant: "9x9" },
    "no variant 9x9 of the forward kernel; there are 32x4-quad, 16x4-quad, 8x4-quad, 64x64-f16, 64x32-f16, 64x64, 64x32-wide, 64x32, 32x32, 8x32, 64x4, matrix-f16, matrix-f32.",
  ],
  ["its own label", { label: "layer 3", scale: Number.NaN }, /^layer 3: scale must be/],
];

/** Each is an output whose elements share memory. */
const OVERLAPS: readonly [what: string, change: object, message: RegExp][] = [
  [
    "an output broadcast over the batch",
    { output: { shape: [2, 4, 5, 6], strides: [0, 30, 6, 1] } },
    /^attention: elements of output share memory/,
  ],
  [
    "an output with rows over each other",
    { output: { shape: [2, 4, 5, 6], strides: [120, 30, 5, 1] } },
    /share memory/,
  ],
  [
    "an LSE broadcast over heads",
    { lse: { shape: [2, 4, 5], strides: [5, 0, 1] } },
    /^attention: elements of lse share memory/,
  ],
];

describe("planAttention refuses", () => {
  it.each(PROBLEMS)("%s", async (_, change, message) => {
    const device = await testDevice();
    await expectError(
      () => planAttention(device, { ...GOOD, ...change } as AttentionProblem),
      "argument",
      message,
    );
  });
  it.each(OVERLAPS)("%s", async (_, change, message) => {
    const device = await testDevice();
    await expectError(
      () => planAttention(device, { ...GOOD, ...change } as AttentionProblem),
      "overlap",
      message,
    );
  });
  it("tensors that are larger than a binding may be, naming the limit", async () => {
    const device = withLimits(await testDevice(), { maxStorageBufferBindingSize: 2 ** 27 });
    const long = spec(1, 8, 2 ** 17, 64); // 256 MiB each
    await expectError(
      () => planAttention(device, { q: spec(1, 8, 1, 64), k: long, v: long }),
      "limit",
      "attention: k spans 268435456 bytes; this device binds at most 134217728 at a time (maxStorageBufferBindingSize). Run batch entries or heads one after the other on slices. To have the adapter's highest, request the device with deviceDescriptor(adapter).",
    );
  });
  it("a variant that the device has no room for", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupStorageSize: 16384 });
    await expectError(
      () =>
        planAttention(device, {
          q: spec(1, 1, 1, 64),
          k: spec(1, 1, 1, 64),
          v: spec(1, 1, 1, 64),
          variant: "64x64",
        }),
      "limit",
      "variant 64x64 can't run here: for this problem it takes 19460 bytes of workgroup memory; the device has 16384.",
    );
  });
  it("an axis of 2^29", async () => {
    const device = await testDevice();
    await expectError(
      () => planAttention(device, { ...GOOD, q: spec(2, 4, 2 ** 31, 8) }),
      "limit",
      "attention: q has an axis of 2^29 or more: [2,4,2147483648,8].",
    );
  });
  it("lengths on the GPU that aren't dense i32", async () => {
    const device = await testDevice();
    const floats = tensor(device, [2]);
    const message =
      "attention: kvLengths must be a dense i32 tensor [2], one number a batch entry, got f32 [2] with strides [1].";
    await expectError(
      () => planAttention(device, { ...GOOD, kvLengths: floats }),
      "argument",
      message,
    );
    const three = tensor(device, [3], { dtype: "i32" });
    await expectError(
      () => planAttention(device, { ...GOOD, causal: true, queryOffset: three }),
      "argument",
      /queryOffset must be a dense i32 tensor \[2\]/,
    );
    floats.destroy();
    three.destroy();
  });
});

describe("encode refuses, and records nothing,", () => {
  const shape = [1, 2, 9, 8];
  const set = async (): Promise<{
    device: GPUDevice;
    memory: Record<"q" | "k" | "v" | "output", Tensor>;
  }> => {
    const device = await testDevice();
    const [q, k, v, output] = ["q", "k", "v", "output"].map((label) =>
      tensor(device, shape, { label }),
    );
    return { device, memory: { q, k, v, output } };
  };
  const attempt = async (
    change: (
      memory: Record<"q" | "k" | "v" | "output", Tensor>,
      device: GPUDevice,
    ) => object | Promise<object>,
    code: Parameters<typeof expectError>[1],
    message: string | RegExp,
  ) => {
    const { device, memory } = await set();
    const plan = await planAttention(device, {
      q: spec(...shape),
      k: spec(...shape),
      v: spec(...shape),
      ...small,
    });
    const changed = { ...memory, ...(await change(memory, device)) };
    const encoder = device.createCommandEncoder();
    await expectError(() => plan.encode(encoder, changed), code, message);
    device.queue.submit([encoder.finish()]); // the encoder is as good as new
    plan.destroy();
  };

  it("a missing tensor", () =>
    attempt(
      () => ({ k: undefined }),
      "argument",
      "attention: k is missing: the plan was made without a tensor for it.",
    ));
  it("a raw buffer", () =>
    attempt(
      ({ q }) => ({ q: q.buffer }),
      "argument",
      "attention: q must be a Tensor; wrap a buffer with tensor().",
    ));
  it("a tensor of another shape", () =>
    attempt(
      (_, device) => ({ v: tensor(device, [1, 2, 8, 8]) }),
      "argument",
      "attention: v is f32 [1,2,8,8]; the plan was made for f32 [1,2,9,8].",
    ));
  it("a tensor of another dtype", () =>
    attempt(
      (_, device) => ({ v: tensor(device, shape, { dtype: "f16" }) }),
      "argument",
      "attention: v is f16 [1,2,9,8]; the plan was made for f32 [1,2,9,8].",
    ));
  it("a tensor with other strides", () =>
    attempt(
      (_, device) => ({ q: tensor(device, [1, 9, 2, 8]).permute(0, 2, 1, 3) }),
      "argument",
      "attention: q has strides [144,8,16,1]; the plan was made for [144,72,8,1].",
    ));
  it("a tensor that starts elsewhere", () =>
    attempt(
      (_, device) => ({ q: tensor(device, shape, { offset: 4 }) }),
      "argument",
      "attention: q starts 4 elements after a multiple of the binding alignment of 256 bytes; the plan was made for 0. Plan with a tensor of that offset.",
    ));
  it("a destroyed tensor", () =>
    attempt(
      ({ k }) => {
        k.destroy();
        return {};
      },
      "destroyed",
      "attention: k: the tensor was destroyed.",
    ));
  it("a tensor of another device", () =>
    attempt(
      async () => ({ q: tensor(await newDevice(), shape) }),
      "device",
      "attention: q belongs to another GPUDevice; tensors can't move between devices.",
    ));
  it("an output in the buffer of an input", () =>
    attempt(
      ({ v }) => ({ output: v }),
      "overlap",
      "attention: output and v are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give output a buffer of its own.",
    ));
  it("an output and an LSE that overlap", async () => {
    const { device, memory } = await set();
    const both = tensor(device, [1000]);
    const output = both.view({ shape });
    const lse = both.view({ shape: [1, 2, 9], offset: 64 });
    await expectError(
      () => attention(memory.q, memory.k, memory.v, { output, lse, ...small }),
      "overlap",
      "attention: output and lse overlap in their buffer (bindings start at multiples of 256 bytes).",
    );
    await attention(memory.q, memory.k, memory.v, {
      output,
      lse: both.view({ shape: [1, 2, 9], offset: 192 }),
      ...small,
    });
  });
  it("anything, once the plan is destroyed", async () => {
    const { device, memory } = await set();
    const plan = await planAttention(device, { ...memory, ...small });
    plan.destroy();
    plan.destroy();
    await expectError(
      () => plan.encode(device.createCommandEncoder()),
      "destroyed",
      "attention: the plan was destroyed.",
    );
  });
});

describe("attention refuses", () => {
  it("what isn't a device, and what isn't a problem", async () => {
    const device = await testDevice();
    const promise = Promise.resolve(device) as never;
    const message = /^expected a GPUDevice, got a Promise\. .* await it\.$/;
    await expectError(() => planAttention(promise, GOOD), "device", message);
    await expectError(() => tensor(promise, [1]), "device", message);
    await expectError(
      () => planAttention(undefined as never, GOOD),
      "device",
      /^expected a GPUDevice, got undefined\./,
    );
    await expectError(
      () => planAttention(device, undefined as never),
      "argument",
      "attention: q must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.",
    );
  });
  it("what isn't a tensor", async () => {
    const device = await testDevice();
    const q = tensor(device, [1, 1, 1, 4]);
    await expectError(
      () => attention(q, q, {} as Tensor),
      "argument",
      "attention: v must be a Tensor; make one with tensor().",
    );
    await expectError(
      () => attention(undefined as never, q, q),
      "argument",
      /attention: q must be a Tensor/,
    );
  });
  it("a buffer that its owner destroyed, with the GPU's own words", async () => {
    const device = await testDevice();
    const buffer = device.createBuffer({ size: 128, usage: 128, label: "theirs" });
    const q = tensor(device, [1, 1, 4, 8], { buffer });
    const k = tensor(device, [1, 1, 4, 8]);
    buffer.destroy();
    await expectError(() => attention(q, k, k, small), "validation", /^attention: .*destroyed/s);
  });
});

describe("views refuse", () => {
  it("rows that do not divide", async () => {
    const device = await testDevice();
    const t = tensor(device, [2, 3, 10]);
    await expectError(
      () => splitHeads(t, 3),
      "argument",
      "splitHeads: can't take 3 heads out of [2,3,10]; expected [B, M, H * D].",
    );
    await expectError(
      () => splitHeads(t.slice(2, 0, 0).view({ shape: [2, 3] }), 1),
      "argument",
      /expected \[B, M, H \* D\]/,
    );
    await expectError(
      () => unpackQkv(t, { heads: 2, headDim: 2 }),
      "argument",
      "unpackQkv: rows of 4 + 4 + 4 = 12 elements were described; the tensor is [2,3,10].",
    );
    expect(splitHeads(t, 5).shape).toEqual([2, 5, 3, 2]);
  });
});
