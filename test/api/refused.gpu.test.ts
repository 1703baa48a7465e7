// The GPU refuses memory to some tensor that a call touches. The call ends with "out-of-memory",
// never with zeros and never with "validation", and what has memory is freed.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  attention,
  type FoveaError,
  maskFunction,
  mergeAttention,
  multiplicativeAttention,
  planAttention,
  planMerge,
  planSoftmax,
  scoreFunction,
  softmax,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";
import { refusing } from "../support/refusing.ts";

failOnGpuErrors();

const SHAPE = [1, 1, 4, 4];
const GONE = "gone";

/** A device that refuses every buffer with a label that ends in "gone", and what is alive on it. */
async function setUp(more: (label: string) => boolean = () => false, of = idle) {
  const { device: real, buffers } = counted(of(await testDevice()));
  const device = refusing(real, (label) => label.endsWith(GONE) || more(label));
  const make = (shape: readonly number[] = SHAPE, label = "t") => {
    const count = shape.reduce((product, size) => product * size, 1);
    return tensor(device, shape, { data: normal(1, count), label });
  };
  let refused = 0;
  const gone = (shape: readonly number[] = SHAPE) => {
    refused++;
    return make(shape, GONE);
  };
  /** Buffers that are alive beside those that were refused, which are the test's. */
  return { device, make, gone, buffers: () => buffers() - refused };
}

const outOfMemory = (work: () => unknown, message: RegExp) =>
  expectError(work, "out-of-memory", message);

/** What each input of attention may be, with its shape. */
const INPUTS: readonly (readonly [
  name: string,
  shape: readonly number[],
  of: (t: Tensor) => AttentionOptions,
])[] = [
  ["bias", [1, 1, 4, 4], (bias) => ({ bias })],
  ["sinks", [1], (sinks) => ({ sinks })],
  ["output", SHAPE, (output) => ({ output })],
  ["lse", [1, 1, 4], (lse) => ({ lse })],
  [
    "a capture",
    [4],
    (t) => ({
      scoreFunction: scoreFunction(
        "fn score(s: f32, at: Position) -> f32 { return s * t[at.q_idx]; }",
        {
          captures: { t },
        },
      ),
    }),
  ],
  [
    "a capture of a mask",
    [4],
    (t) => ({
      maskFunction: maskFunction("fn mask(at: Position) -> bool { return t[at.q_idx] > 0.0; }", {
        captures: { t },
      }),
    }),
  ],
];

describe("memory refused", () => {
  it.each(["q", "k", "v"] as const)("of %s rejects the plan and the call", async (name) => {
    const { device, make, gone, buffers } = await setUp();
    const whole = make();
    const refuse = () => {
      const tensors = { q: whole, k: whole, v: whole };
      tensors[name] = gone();
      return tensors;
    };
    await outOfMemory(
      () => planAttention(device, { ...refuse(), variant: "8x32" }),
      /no memory for gone/,
    );
    const { q, k, v } = refuse();
    await outOfMemory(() => attention(q, k, v, { variant: "8x32" }), /no memory for gone/);
    whole.destroy();
    expect(buffers()).toBe(0);
  });

  it.each(INPUTS)("of %s rejects plan and call, also once it is known", async (_, shape, of) => {
    const { device, make, gone, buffers } = await setUp();
    const q = make();
    const variant = "8x32";
    await outOfMemory(
      () => attention(q, q, q, { ...of(gone(shape)), variant }),
      /no memory for gone/,
    );
    await outOfMemory(
      () => planAttention(device, { q, k: q, v: q, ...of(gone(shape)), variant }),
      /no memory for gone/,
    );
    const known = gone(shape);
    await known.allocated.catch(() => {});
    await outOfMemory(() => attention(q, q, q, { ...of(known), variant }), /no memory for gone/);
    q.destroy();
    expect(buffers()).toBe(0);
  });

  it.each([
    ["the plan's tables", " tables"],
    ["the plan's params", " params"],
    ["a new output", " output"],
  ])("of %s rejects the call", async (_, end) => {
    const { make, buffers } = await setUp((label) => label.endsWith(end));
    const q = make();
    await outOfMemory(
      () => attention(q, q, q, { kvLengths: [3], variant: "8x32" }),
      new RegExp(`no memory for .*${end}`),
    );
    q.destroy();
    expect(buffers()).toBe(0);
  });

  it("of other operations' tensors", async () => {
    const { device, make, gone, buffers } = await setUp();
    const x = make();
    await outOfMemory(() => softmax(gone()), /gone/);
    await outOfMemory(() => softmax(x, { output: gone() }), /gone/);
    await outOfMemory(() => planSoftmax(device, { x: gone() }), /gone/);
    const lse = make([1, 1, 4]);
    const partials = [
      { output: x, lse },
      { output: gone(), lse },
    ];
    await outOfMemory(() => mergeAttention(partials), /gone/);
    await outOfMemory(() => planMerge(device, { partials }), /gone/);
    await outOfMemory(() => multiplicativeAttention(x, x, x, gone([4, 4])), /gone/);
    for (const one of [x, lse]) one.destroy();
    expect(buffers()).toBe(0);
  });

  it("is thrown at encode once it is known", async () => {
    const { device, make, gone } = await setUp();
    const q = make();
    const output = make();
    const plan = await planAttention(device, { q, k: q, v: q, output, variant: "8x32" });
    const bound = gone();
    const error = await bound.allocated.catch((cause: FoveaError) => cause);
    expect(error).toMatchObject({ code: "out-of-memory", message: "gone: no memory for gone" });
    const encoder = device.createCommandEncoder();
    await outOfMemory(
      () => plan.encode(encoder, { q: bound }),
      /^attention: q: gone: no memory for gone$/,
    );
    await outOfMemory(() => plan.encode(encoder, { output: bound }), /^attention: output: gone/);
    encoder.finish();
    for (const one of [plan, q, output]) one.destroy();
  });

  it("that is known too late for encode shows where the result is read, and of what is computed from it", async () => {
    const { device, make, gone } = await setUp(undefined, (real) => real);
    const q = make();
    const output = make();
    const next = make();
    const plan = await planAttention(device, { q, k: q, v: q, output, variant: "8x32" });
    device.pushErrorScope("validation"); // catches the error of the commands that can't run
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { q: gone() });
    plan.encode(encoder, { q: output, output: next });
    device.queue.submit([encoder.finish()]);
    const validation = await device.popErrorScope();
    expect(validation).not.toBeNull();
    await outOfMemory(() => output.read(), /no memory for gone/);
    await outOfMemory(() => next.view({ shape: [16] }).read(), /no memory for gone/);
    // Written again from tensors that have memory, it is as good as new.
    const again = device.createCommandEncoder();
    plan.encode(again);
    device.queue.submit([again.finish()]);
    const { output: expected } = await attention(q, q, q, { variant: "8x32" });
    expect(await output.read()).toEqual(await expected.read());
    for (const one of [plan, q, output, next, expected]) one.destroy();
  });

  it("of a buffer that a tensor wraps is a rejection, too: another device's, and a destroyed one", async () => {
    const { device, make } = await setUp();
    const q = make();
    const buffer = (await testDevice()).createBuffer({ size: 64, usage: 128 | 8 | 4 });
    buffer.destroy();
    const wrapped = tensor(device, SHAPE, { buffer, label: "wrapped" });
    await expectError(
      () => attention(wrapped, q, q, { variant: "8x32" }),
      "validation",
      /wrapped: .*destroyed/s,
    );
    q.destroy();
  });
});
