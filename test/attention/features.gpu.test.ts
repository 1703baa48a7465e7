// What masks, biases, lengths and scores refuse, word for word, before the GPU sees any of it.

import { describe, expect, it } from "vitest";
import {
  type AttentionProblem,
  attention,
  planAttention,
  type Tensor,
  type TensorOptions,
  tensor,
} from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const spec = (...shape: number[]) => ({ shape });
const GOOD = { q: spec(2, 4, 5, 8), k: spec(2, 2, 7, 8), v: spec(2, 2, 7, 6) };
const PACKED = { q: spec(1, 4, 9, 8), k: spec(1, 2, 7, 8), v: spec(1, 2, 7, 6) };

type Make = (shape: number[], options?: TensorOptions) => Tensor;
type Refusals = readonly [
  what: string,
  change: object | ((make: Make) => object),
  message: string | RegExp,
][];

const OPTIONS: Refusals = [
  [
    "half a key of a window",
    { window: [1.5, 0] },
    "attention: window must be two whole numbers [left, right], keys before and after a query's own or -1 for no bound, got [1.5, 0].",
  ],
  [
    "one number for a window",
    { window: 3 },
    /^attention: window must be two whole numbers .* got 3\.$/,
  ],
  ["a window of three", { window: [1, 2, 3] }, /got \[1, 2, 3\]\.$/],
  ["a window below -1", { window: [-2, 0] }, /got \[-2, 0\]\.$/],
  [
    "no positions in a chunk",
    { attentionChunk: 0 },
    "attention: attentionChunk must be a whole number of positions from 1 up, got 0.",
  ],
  [
    "a negative number of sink tokens",
    { sinkTokens: -1 },
    "attention: sinkTokens must be a whole number of keys from 0 up, got -1.",
  ],
  ["half a position in a chunk", { attentionChunk: 2.5 }, /attentionChunk must be .* got 2\.5\.$/],
  [
    "a cap below 0",
    { softcap: -1 },
    "attention: softcap must be a positive number of f32, or 0 for none, got -1.",
  ],
  [
    "an infinite cap",
    { softcap: Number.POSITIVE_INFINITY },
    /softcap must be a positive number of f32, or 0 for none, got Infinity/,
  ],
  [
    "dropout by a number",
    { dropout: 0.1 },
    "attention: dropout must be { p, seed, step }, got 0.1.",
  ],
  [
    "a probability above 1",
    { dropout: { p: 1.5, seed: 1 } },
    "attention: dropout.p must be a probability from 0 to 1, got 1.5.",
  ],
  [
    "no probability",
    { dropout: { p: Number.NaN, seed: 1 } },
    /dropout\.p must be a probability from 0 to 1, got NaN/,
  ],
  [
    "no seed",
    { dropout: { p: 0.5 } },
    "attention: dropout.seed must be a whole number from 0 up to 2^53, got undefined.",
  ],
  [
    "a seed of 2^53",
    { dropout: { p: 0.5, seed: 2 ** 53 } },
    /dropout\.seed must be .* got 9007199254740992\.$/,
  ],
  [
    "too few query lengths",
    { qLengths: [5] },
    "attention: qLengths must be 2 whole numbers (one a batch entry) from 0 to 5, the queries that q has, got 5.",
  ],
  ["a query length beyond the queries", { qLengths: [6, 1] }, /qLengths must be .* got 6,1\.$/],
  [
    "query lengths that are floats on the GPU",
    (make) => ({ qLengths: make([2]) }),
    "attention: qLengths must be a dense i32 tensor [2], one number a batch entry, got f32 [2] with strides [1].",
  ],
];

const SEQUENCES: Refusals = [
  [
    "cumulative lengths of queries only",
    { cuSeqlensQ: [0, 9] },
    "attention: cuSeqlensQ and cuSeqlensKv belong together; only one was given.",
  ],
  [
    "a batch of packed sequences",
    { ...GOOD, cuSeqlensQ: [0, 5], cuSeqlensKv: [0, 7] },
    "attention: sequences that lie one after the other are one batch, but q has a batch axis of 2.",
  ],
  [
    "no cumulative length",
    { cuSeqlensQ: [], cuSeqlensKv: [] },
    "attention: cuSeqlensQ must have one number more than there are sequences, as many as the other: got 0 and 0.",
  ],
  [
    "more sequences of queries than of keys",
    { cuSeqlensQ: [0, 4, 9], cuSeqlensKv: [0, 7] },
    "attention: cuSeqlensKv must have one number more than there are sequences, as many as the other: got 3 and 2.",
  ],
  [
    "cumulative lengths that fall",
    { cuSeqlensQ: [0, 5, 4], cuSeqlensKv: [0, 3, 7] },
    "attention: cuSeqlensQ must be whole numbers that never fall, from 0 to the 9 rows of the tensor, got 0,5,4.",
  ],
  [
    "cumulative lengths beyond the rows",
    { cuSeqlensQ: [0, 5, 9], cuSeqlensKv: [0, 3, 8] },
    /cuSeqlensKv must be .* to the 7 rows of the tensor, got 0,3,8\.$/,
  ],
  [
    "a negative cumulative length",
    { cuSeqlensQ: [-1, 9], cuSeqlensKv: [0, 7] },
    /cuSeqlensQ must be .* got -1,9\.$/,
  ],
  [
    "used lengths beyond the longest sequence",
    { cuSeqlensQ: [0, 4, 9], cuSeqlensKv: [0, 3, 7], kvLengths: [3, 5] },
    /kvLengths must be 2 whole numbers .* from 0 to 4,/,
  ],
  [
    "cumulative lengths on the GPU without the longest",
    (make) => ({ cuSeqlensQ: make([3], { dtype: "i32" }), cuSeqlensKv: [0, 3, 7] }),
    "attention: cuSeqlensQ is on the GPU, so maxSeqlenQ, the rows of the longest sequence, must be given; got undefined.",
  ],
  [
    "cumulative lengths on the GPU that are floats",
    (make) => ({ cuSeqlensQ: make([3]), cuSeqlensKv: [0, 3, 7], maxSeqlenQ: 9 }),
    /cuSeqlensQ must be a dense i32 tensor \[3\], .* got f32 \[3\]/,
  ],
];

const MEMORY: Refusals = [
  [
    "a mask that isn't a tensor",
    { mask: [1, 0] },
    "attention: mask must be a tensor, or { shape, strides?, offset?, dtype? }, got [1, 0].",
  ],
  ["null for a mask", { mask: null }, /mask must be a tensor, .* got null\.$/],
  ["null for a bias", { bias: null }, /bias must be a tensor, .* got null\.$/],
  [
    "a mask of floats",
    { mask: { shape: [5, 7], dtype: "f32" } },
    "attention: mask must be u8 (a byte each, 0 for masked) or u32 (32 keys a word), got f32.",
  ],
  [
    "a bias of bytes",
    { bias: { shape: [5, 7], dtype: "u8" } },
    "attention: bias must be f32, got u8.",
  ],
  [
    "a mask of other sizes",
    { mask: spec(2, 2, 5, 7) },
    "attention: mask must broadcast to the scores [B, H, M, N] = [2, 4, 5, 7], got [2, 2, 5, 7].",
  ],
  [
    "a mask of five axes",
    { mask: spec(1, 1, 1, 5, 7) },
    /mask must broadcast to the scores .* got \[1, 1, 1, 5, 7\]/,
  ],
  [
    "a mask of bits with a word too many",
    { mask: { shape: [5, 7], dtype: "u32" } },
    "attention: mask must broadcast to the scores [B, H, M, ceil(N / 32)] = [2, 4, 5, 1], got [5, 7].",
  ],
  [
    "a mask of bits for one of many keys",
    { k: spec(2, 2, 70, 8), v: spec(2, 2, 70, 6), mask: { shape: [5, 1], dtype: "u32" } },
    /\[2, 4, 5, 3\], got \[5, 1\]/,
  ],
  [
    "a bias of other sizes",
    { bias: spec(7, 5) },
    "attention: bias must broadcast to the scores [B, H, M, N] = [2, 4, 5, 7], got [7, 5].",
  ],
  [
    "a bias for all rows of packed sequences",
    { ...PACKED, cuSeqlensQ: [0, 4, 9], cuSeqlensKv: [0, 3, 7], bias: spec(9, 7) },
    /bias must broadcast to the scores \[B, H, M, N\] = \[2, 4, 5, 4\]/,
  ],
  [
    "too few slopes",
    { alibiSlopes: [1, 2] },
    "attention: alibiSlopes must be a tensor or an array of numbers [4] or [2, 4], got 2.",
  ],
  [
    "slopes that are NaN",
    { alibiSlopes: [1, 2, Number.NaN, 3] },
    "attention: alibiSlopes must be finite numbers of f32, got NaN at 2.",
  ],
  ["a number for slopes", { alibiSlopes: 0 }, /alibiSlopes must be .* got 0\.$/],
  ["null for slopes", { alibiSlopes: null }, /alibiSlopes must be .* got null\.$/],
  [
    "slopes on the GPU of other shape",
    (make) => ({ alibiSlopes: make([4, 2]) }),
    "attention: alibiSlopes must be an f32 tensor [4] or [2, 4], got f32 [4, 2].",
  ],
  [
    "sinks on the GPU that are integers",
    (make) => ({ sinks: make([4], { dtype: "i32" }) }),
    "attention: sinks must be an f32 tensor [4], got i32 [4].",
  ],
  [
    "sinks of batch entries",
    { sinks: [1, 2, 3, 4, 5, 6, 7, 8] },
    "attention: sinks must be a tensor or an array of numbers [4], got 8.",
  ],
  [
    "an infinite sink",
    { sinks: [0, 0, 0, Number.NEGATIVE_INFINITY] },
    /sinks must be finite numbers of f32 of at most 2e\+38, got -Infinity at 3/,
  ],
  [
    "a table for a relative bias",
    (make) => ({ relativeBias: make([8, 4]) }),
    "attention: relativeBias must be { table, bidirectional?, maxDistance? }, got a Tensor.",
  ],
  [
    "null for a relative bias",
    { relativeBias: null },
    /relativeBias must be \{ table, .* got null\.$/,
  ],
  [
    "a table of other heads",
    (make) => ({ relativeBias: { table: make([8, 3]) } }),
    "attention: relativeBias.table must be an f32 tensor [8, 4], got f32 [8, 3].",
  ],
  [
    "a table of other buckets",
    { relativeBias: { table: new Array(32).fill(0), buckets: 16 } },
    "attention: relativeBias.table must be a tensor or an array of numbers [16, 4], got 32.",
  ],
  [
    "an odd number of buckets",
    { relativeBias: { table: new Array(28).fill(0) } },
    "attention: relativeBias needs at least 4 buckets, an even number, got 7.",
  ],
  [
    "one bucket",
    { relativeBias: { table: [1, 2, 3, 4], bidirectional: false } },
    "attention: relativeBias needs at least 2 buckets, got 1.",
  ],
  [
    "a distance below the buckets",
    { relativeBias: { table: new Array(128).fill(0), maxDistance: 8 } },
    "attention: relativeBias.maxDistance must be a whole number above 8 and up to 65536, got 8.",
  ],
  [
    "a distance beyond all",
    { relativeBias: { table: new Array(128).fill(0), maxDistance: 65537 } },
    /maxDistance must be .* got 65537/,
  ],
];

/** A problem's change, and what it takes to undo it. */
async function refuse(
  base: object,
  change: Refusals[number][1],
  message: string | RegExp,
): Promise<void> {
  const { device, buffers } = counted(await testDevice());
  const made: Tensor[] = [];
  const changed =
    typeof change === "function"
      ? change((shape, options) => {
          made.push(tensor(device, shape, options));
          return made[made.length - 1];
        })
      : change;
  await expectError(
    () => planAttention(device, { ...base, ...changed } as AttentionProblem),
    "argument",
    message,
  );
  expect(buffers()).toBe(made.length);
  for (const used of made) used.destroy();
}

describe("a plan refuses", () => {
  it.each(OPTIONS)("%s", async (_, change, message) => refuse(GOOD, change, message));
  it.each(SEQUENCES)("%s", async (_, change, message) => refuse(PACKED, change, message));
  it.each(MEMORY)("%s", async (_, change, message) => refuse(GOOD, change, message));
  it("dropout of more rows than it has numbers for", async () => {
    const many = {
      q: spec(2 ** 14, 2 ** 14, 16, 1),
      k: spec(2 ** 14, 1, 1, 1),
      v: spec(2 ** 14, 1, 1, 1),
    };
    await expectError(
      async () => planAttention(await testDevice(), { ...many, dropout: { p: 0.5, seed: 1 } }),
      "limit",
      "attention: dropout numbers rows of B * H * M below 2^32; there are 4294967296.",
    );
  });
});

describe("encode refuses", () => {
  it("other masks, biases and lengths than the plan was made for", async () => {
    const device = idle(await testDevice());
    const used: Tensor[] = [];
    const make = (shape: number[], options?: TensorOptions) => {
      used.push(tensor(device, shape, options));
      return used[used.length - 1];
    };
    const q = make([1, 2, 5, 8]);
    const k = make([1, 2, 7, 8]);
    const mask = make([5, 7], { dtype: "u8" });
    const kvLengths = make([1], { dtype: "i32" });
    const options = { mask, bias: spec(7), kvLengths, variant: "8x32" };
    const plan = await planAttention(device, { q, k, v: k, ...options });
    const attempt = (bindings: object, message: string) =>
      expectError(
        () =>
          plan.encode(device.createCommandEncoder(), { output: make([1, 2, 5, 8]), ...bindings }),
        "argument",
        message,
      );
    await attempt({}, "attention: bias is missing: the plan was made without a tensor for it.");
    await attempt(
      { bias: make([6]) },
      "attention: bias is f32 [6]; the plan was made for f32 [1,1,1,7].",
    );
    await attempt(
      { bias: make([7, 2]).slice(1, 0, 1) },
      "attention: bias is f32 [7,1]; the plan was made for f32 [1,1,1,7].",
    );
    await attempt(
      { mask: make([5, 7]) },
      "attention: mask is f32 [5,7]; the plan was made for u8 [1,1,5,7].",
    );
    await attempt(
      { bias: make([7]), kvLengths: make([1]) },
      "attention: kvLengths is f32 [1]; the plan was made for i32 [1].",
    );
    const output = make([1, 2, 5, 8]);
    const inside = output.view({ shape: [7], offset: 64 });
    await expectError(
      () => plan.encode(device.createCommandEncoder(), { output, bias: inside }),
      "overlap",
      /^attention: output and bias are in the same GPUBuffer/,
    );
    // leading axes of 1 are the same
    plan.encode(device.createCommandEncoder(), { output, bias: make([1, 1, 1, 7]) });
    for (const one of [...used, plan]) one.destroy();
  });
});

describe("attention refuses", () => {
  it("features that are wrong, and then has allocated nothing", async () => {
    const { device, buffers } = counted(await testDevice());
    const q = tensor(device, [1, 1, 4, 4]);
    const before = buffers();
    for (const wrong of [
      { window: [0] },
      { sinks: [] },
      { mask: q },
      { dropout: { p: 2, seed: 1 } },
      { kvLengths: [3], bias: q.slice(3, 0, 3) },
    ]) {
      await expect(attention(q, q, q, wrong as object)).rejects.toThrow(
        /^attention: (window|sinks|mask|dropout|bias)/,
      );
    }
    expect(buffers()).toBe(before);
    q.destroy();
  });
});
