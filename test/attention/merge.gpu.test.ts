// mergeAttention and planMerge refuse bad input in whole sentences, and a merge leaves nothing
// behind.

import { describe, expect, it } from "vitest";
import {
  type MergeProblem,
  mergeAttention,
  planMerge,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  failOnGpuErrors,
  newDevice,
  overridden,
  testDevice,
  withLimits,
} from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const SHAPE = [2, 4, 5, 6];
const output = { shape: SHAPE };
const lse = { shape: [2, 4, 5] };
const GOOD = { output, lse };

/** Each message names what is wrong. */
const PROBLEMS: readonly [what: string, problem: unknown, message: string | RegExp][] = [
  [
    "no problem",
    undefined,
    "mergeAttention: partials must be a list of one or more results { output, lse }, got undefined.",
  ],
  [
    "no partials",
    { partials: [] },
    "mergeAttention: partials must be a list of one or more results { output, lse }, got an empty one.",
  ],
  [
    "a partial that is none",
    { partials: [GOOD, null] },
    "mergeAttention: partials[1] must be { output, lse }, got null.",
  ],
  [
    "a partial without its LSE",
    { partials: [GOOD, { output }] },
    "mergeAttention: partials[1] has no lse. attention() gives it with the option { lse: true }.",
  ],
  [
    "a partial without its output",
    { partials: [{ lse }] },
    "mergeAttention: partials[0].output must be a tensor, or { shape, strides?, offset?, dtype? }, got undefined.",
  ],
  [
    "an output of three axes",
    { partials: [{ output: lse, lse }] },
    "mergeAttention: partials[0].output must have the four axes BHMD, got shape [2,4,5]. Use view() to add axes of size 1, or splitHeads() to take heads apart.",
  ],
  [
    "no head dim",
    { partials: [{ output: { shape: [2, 4, 5, 0] }, lse }] },
    "mergeAttention: head dims start at 1: partials[0].output is [2,4,5,0].",
  ],
  [
    "outputs of different shapes",
    { partials: [GOOD, { output: { shape: [2, 4, 5, 7] }, lse }] },
    "mergeAttention: partials[1].output must be [2, 4, 5, 6] like partials[0].output, got [2, 4, 5, 7].",
  ],
  [
    "an LSE of another shape",
    { partials: [GOOD, { output, lse: { shape: [2, 5, 4] } }] },
    "mergeAttention: partials[1].lse must be [2, 4, 5] for partials[0].output [2, 4, 5, 6], got [2, 5, 4].",
  ],
  [
    "the LSE of the other layout",
    { partials: [GOOD], layout: "bmhd" },
    "mergeAttention: partials[0].lse must be [2, 5, 4] for partials[0].output [2, 4, 5, 6], got [2, 4, 5].",
  ],
  [
    "a result of another shape",
    { partials: [GOOD], output: { shape: [2, 4, 6, 5] } },
    "mergeAttention: output must be [2, 4, 5, 6] like partials[0].output, got [2, 4, 6, 5].",
  ],
  [
    "another dtype",
    { partials: [{ output: { ...output, dtype: "f16" }, lse }] },
    /partials\[0\]\.output must be f32, got f16\.$/,
  ],
  [
    "an LSE of another dtype",
    { partials: [GOOD], lse: { ...lse, dtype: "u32" } },
    "mergeAttention: lse must be f32, got u32.",
  ],
  [
    "an unknown layout",
    { partials: [GOOD], layout: "bhdm" },
    'mergeAttention: layout must be "bhmd" or "bmhd", got "bhdm".',
  ],
  ["its own label", { partials: [], label: "layer 3" }, /^layer 3: partials must be/],
];

describe("planMerge refuses", () => {
  it.each(PROBLEMS)("%s", async (_, problem, message) => {
    await expectError(
      async () => planMerge(await testDevice(), problem as MergeProblem),
      "argument",
      message,
    );
  });
  it("results whose elements share memory", async () => {
    const device = await testDevice();
    await expectError(
      () =>
        planMerge(device, { partials: [GOOD], output: { shape: SHAPE, strides: [0, 30, 6, 1] } }),
      "overlap",
      "mergeAttention: elements of output share memory (shape [2,4,5,6], strides [0,30,6,1]); an output needs a place for each.",
    );
    await expectError(
      () => planMerge(device, { partials: [GOOD], lse: { shape: [2, 4, 5], strides: [20, 4, 1] } }),
      "overlap",
      /^mergeAttention: elements of lse share memory/,
    );
  });
  it("tensors that are larger than a binding may be", async () => {
    const device = withLimits(await testDevice(), { maxStorageBufferBindingSize: 2 ** 27 });
    const long = { output: { shape: [1, 8, 2 ** 17, 64] }, lse: { shape: [1, 8, 2 ** 17] } };
    await expectError(
      () => planMerge(device, { partials: [long] }),
      "limit",
      /^mergeAttention: partials\[0\]\.output spans 268435456 bytes; this device binds at most 134217728 at a time/,
    );
  });
  it("what isn't a device", () =>
    expectError(
      () => planMerge(undefined as never, { partials: [GOOD] }),
      "device",
      /^expected a GPUDevice/,
    ));
});

type Partial = { output: Tensor; lse: Tensor };
const make = (device: GPUDevice): Partial => ({
  output: tensor(device, SHAPE),
  lse: tensor(device, [2, 4, 5]),
});

describe("mergeAttention refuses", () => {
  const attempt = async (
    change: (a: Partial, b: Partial, device: GPUDevice) => object | Promise<object>,
    code: Parameters<typeof expectError>[1],
    message: string | RegExp,
  ) => {
    const device = await testDevice();
    const a = make(device);
    const b = make(device);
    const { partials = [a, b], ...options } = (await change(a, b, device)) as {
      partials?: readonly Partial[];
    };
    await expectError(() => mergeAttention(partials, options), code, message);
    for (const used of [a, b]) for (const each of [used.output, used.lse]) each.destroy();
  };
  const SHARED = (a: string, b: string) =>
    `mergeAttention: ${a} and ${b} are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give ${a} a buffer of its own.`;

  it("no partials", () => attempt(() => ({ partials: [] }), "argument", /got an empty one\.$/));
  it("what isn't a tensor", () =>
    attempt(
      (a) => ({ partials: [a, { output: a.output, lse: a.lse.buffer }] }),
      "argument",
      "mergeAttention: partials[1].lse must be a Tensor; make one with tensor().",
    ));
  it("a partial that attention() was not asked an LSE of", () =>
    attempt(
      (a, b) => ({ partials: [a, { output: b.output }] }),
      "argument",
      "mergeAttention: partials[1] has no lse. attention() gives it with the option { lse: true }.",
    ));
  it("a destroyed tensor", () =>
    attempt(
      (_, b) => {
        b.lse.destroy();
        return {};
      },
      "destroyed",
      "mergeAttention: partials[1].lse: the tensor was destroyed.",
    ));
  it("a tensor of another device", () =>
    attempt(
      async (a) => ({ partials: [a, make(await newDevice())] }),
      "device",
      "mergeAttention: partials[1].output belongs to another GPUDevice; tensors can't move between devices.",
    ));
  it("an output in the buffer of a partial", () =>
    attempt((_, b) => ({ output: b.output }), "overlap", SHARED("output", "partials[1].output")));
  it("an LSE in the buffer of a partial", () =>
    attempt((a) => ({ lse: a.lse }), "overlap", SHARED("lse", "partials[0].lse")));
  it("an output and an LSE that overlap", () =>
    attempt(
      (_, __, device) => {
        const both = tensor(device, [1000]);
        return {
          output: both.view({ shape: SHAPE }),
          lse: both.view({ shape: [2, 4, 5], offset: 192 }),
        };
      },
      "overlap",
      "mergeAttention: output and lse overlap in their buffer (bindings start at multiples of 256 bytes).",
    ));
});

describe("encode refuses, and records nothing,", () => {
  const attempt = async (
    change: (memory: { partials: Partial[] } & Partial, device: GPUDevice) => object,
    code: Parameters<typeof expectError>[1],
    message: string,
    destroyed = false,
  ) => {
    const device = await testDevice();
    const plan = await planMerge(device, { partials: [GOOD, GOOD] });
    const memory = { partials: [make(device), make(device)], ...make(device) };
    const encoder = device.createCommandEncoder();
    if (destroyed) plan.destroy();
    await expectError(
      () => plan.encode(encoder, { ...memory, ...change(memory, device) }),
      code,
      message,
    );
    device.queue.submit([encoder.finish()]); // the encoder is as good as new
    plan.destroy();
  };

  it("another number of partials", () =>
    attempt(
      ({ partials }) => ({ partials: [...partials, partials[0]] }),
      "argument",
      "mergeAttention: the plan merges 2 partials, got 3.",
    ));
  it("a missing tensor", () =>
    attempt(
      ({ partials }) => ({ partials: [partials[0], { output: partials[1].output }] }),
      "argument",
      "mergeAttention: partials[1].lse is missing: the plan was made without a tensor for it.",
    ));
  it("a tensor with other strides", () =>
    attempt(
      (_, device) => ({ output: tensor(device, [2, 5, 4, 6]).permute(0, 2, 1, 3) }),
      "argument",
      "mergeAttention: output has strides [120,6,24,1]; the plan was made for [120,30,6,1].",
    ));
  it("an output in the buffer of a partial", () =>
    attempt(
      ({ partials }) => ({ output: partials[0].output }),
      "overlap",
      "mergeAttention: output and partials[0].output are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give output a buffer of its own.",
    ));
  it("anything, once the plan is destroyed", () =>
    attempt(() => ({}), "destroyed", "mergeAttention: the plan was destroyed.", true));
});

describe("a merge", () => {
  it("leaves no buffer but its results, and none if it fails; encode makes bind groups, once, and nothing else", async () => {
    const real = await testDevice();
    const alive = new Set<GPUBuffer>();
    const labels = new Set<string | undefined>();
    let groups = 0;
    const device = overridden(real, {
      createBuffer(descriptor: GPUBufferDescriptor) {
        const buffer = real.createBuffer(descriptor);
        const destroy = buffer.destroy.bind(buffer);
        buffer.destroy = () => {
          alive.delete(buffer);
          return destroy();
        };
        alive.add(buffer);
        labels.add(descriptor.label);
        return buffer;
      },
      createBindGroup(descriptor: GPUBindGroupDescriptor) {
        groups++;
        labels.add(descriptor.label);
        return real.createBindGroup(descriptor);
      },
    });
    const partials = [make(device), make(device), make(device)];
    const before = alive.size;
    const merged = await mergeAttention(partials, { label: "join" });
    expect(alive.size).toBe(before + 2);
    expect([...labels].sort()).toEqual([
      "join",
      "join lse",
      "join output",
      "join params",
      "join workspace",
      "tensor",
    ]);
    await expect(mergeAttention(partials, { output: partials[0].output })).rejects.toThrow(
      "GPUBuffer",
    );
    await expect(
      mergeAttention([partials[0], { output: merged.lse, lse: merged.lse }]),
    ).rejects.toThrow("like");
    expect(alive.size).toBe(before + 2);

    const plan = await planMerge(device, { partials: [GOOD, GOOD, GOOD] });
    expect(plan.workspaceBytes).toBe(4 * 2 * 4 * 5);
    const buffers = alive.size;
    const made = groups;
    const encoder = device.createCommandEncoder();
    for (let again = 0; again < 50; again++) plan.encode(encoder, { partials, ...merged });
    device.queue.submit([encoder.finish()]);
    expect([alive.size, groups]).toEqual([buffers, made + 2]); // two dispatches
    plan.destroy();
    plan.destroy();
    for (const { output, lse } of [...partials, merged])
      for (const used of [output, lse]) used.destroy();
    expect(alive.size).toBe(0);
  });
});
