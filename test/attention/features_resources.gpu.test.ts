// What masks, biases, scores and functions cost: no compilation for other values, nothing left
// behind, and no memory of size M x N.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  type AttentionProblem,
  allOf,
  attention,
  causalMask,
  createBlockMask,
  documentMask,
  planAttention,
  scoreFunction,
  slidingWindow,
  type Tensor,
  type TensorData,
  tensor,
} from "../../src/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const H = 2;
const SCORE = "fn score(s: f32, at: Position) -> f32 { return s * factor + offsets[at.head]; }";

/** Options of every kind at once, by a number that all their values depend on. */
function optionsOf(make: (shape: number[], data: TensorData, dtype?: "i32") => Tensor, n: number) {
  const numbers = normal(n, 64, 1);
  const some = (from: number, count: number) => Array.from(numbers.slice(from, from + count));
  const options = {
    variant: "8x32",
    window: [n % 7, (n % 5) - 1],
    attentionChunk: 3 + (n % 11),
    softcap: 1 + (n % 13),
    alibiSlopes: n % 2 ? some(0, H) : make([H], some(0, H)),
    sinks: n % 3 ? some(2, H) : make([H], some(2, H)),
    relativeBias: {
      table: n % 5 ? some(4, 16) : make([8, H], some(4, 16)),
      buckets: 8,
      maxDistance: 9 + (n % 50),
    },
    dropout: { p: 0.1 + (n % 8) / 10, seed: n },
    qLengths: [n % 9],
    kvLengths: n % 2 ? [n % 17] : make([1], [n % 17], "i32"),
    scoreFunction: scoreFunction(SCORE, {
      captures: { factor: n / 100, offsets: make([H], some(20, H)) },
    }),
    maskFunction: allOf(
      slidingWindow(n % 6, 3),
      documentMask(make([16], integers(n, 16, 0, 3), "i32")),
    ),
  } satisfies AttentionOptions;
  return options;
}

describe("300 calls with other values of every option", () => {
  it("compile once, and leave memory and objects as they were", async () => {
    const { device, count, buffers, bytes } = counted(await testDevice());
    const [q, k, v] = [9, 17, 17].map((rows, seed) =>
      tensor(device, [1, H, 17, 8], { data: normal(seed, H * 17 * 8, 1) }).slice(2, 0, rows),
    );
    const call = async (n: number) => {
      const made: Tensor[] = [];
      const make = (shape: number[], data: TensorData, dtype: "f32" | "i32" = "f32") => {
        made.push(tensor(device, shape, { data, dtype }));
        return made[made.length - 1];
      };
      const m = 1 + (n % 9);
      const options = { ...optionsOf(make, n), qLengths: [n % (m + 1)] };
      const result = await attention(q.slice(2, 0, m), k, v, { ...options, lse: n % 2 === 0 });
      if (n % 50 === 0)
        expect((await result.output.read()).every((value) => Number.isFinite(value))).toBe(true);
      for (const used of [...made, result.output, ...(result.lse ? [result.lse] : [])])
        used.destroy();
    };
    for (const first of [0, 1]) await call(first); // with the log-sum-exp and without
    const before = [buffers(), bytes(), count.pipelines, count.modules];
    expect(count.pipelines).toBe(3); // two kernels of attention, and the copy of tables
    for (let n = 2; n < 300; n++) await call(n);
    expect([buffers(), bytes(), count.pipelines, count.modules]).toEqual(before);
    for (const used of [q, k, v]) used.destroy();
    expect(buffers()).toBe(0);
  });
  it("find block masks by one kernel", async () => {
    const { device, count, buffers } = counted(await testDevice());
    for (let n = 0; n < 50; n++) {
      const blockMask = await createBlockMask(device, slidingWindow(n, 2 * n), {
        seqQ: 64 + n,
        seqKv: 70,
        heads: 1 + (n % 3),
      });
      blockMask.destroy();
    }
    expect(count.pipelines).toBe(1);
    expect(buffers()).toBe(0);
  });
});

describe("encode", () => {
  it("makes nothing but the bind groups of its stages, once for the same tensors", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const made: Tensor[] = [];
    const make = (shape: number[], data: TensorData, dtype: "f32" | "i32" = "f32") => {
      made.push(tensor(device, shape, { data, dtype }));
      return made[made.length - 1];
    };
    const [q, k, v, output] = [9, 17, 17, 9].map((rows, seed) =>
      make([1, H, rows, 8], normal(seed, H * rows * 8, 1)),
    );
    // Slopes, sinks, table and lengths are on the GPU, and copied into the tables in every run.
    const plan = await planAttention(device, { q, k, v, ...optionsOf(make, 30) });
    const stages = 5;
    const other = make([H], [3, 4]);
    const before = { ...count };
    const alive = buffers();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let again = 0; again < 20; again++) plan.encode(pass, { output });
    expect(count.bindGroups - before.bindGroups).toBe(stages);
    for (let again = 0; again < 20; again++)
      plan.encode(pass, { output, sinks: other, captures: { offsets: other } });
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(count).toEqual({
      ...before,
      bindGroups: before.bindGroups + 2 * stages,
      submits: before.submits + 1,
    });
    expect(buffers()).toBe(alive);
    plan.destroy();
    for (const used of made) used.destroy();
    expect(buffers()).toBe(0);
  });
});

describe("memory at 4096 keys grows with M + N, not with M * N, by", () => {
  const N = 4096;
  const range = (count: number) => Array.from({ length: count }, (_, index) => index);
  const kinds: Readonly<Record<string, AttentionOptions>> = {
    "windows, chunks and causality": {
      window: [100, 3],
      attentionChunk: 512,
      causal: true,
      lse: true,
    },
    "biases and lengths of all kinds": {
      softcap: 5,
      alibiSlopes: [1, 2],
      relativeBias: { table: range(64) },
      sinks: [1, 2],
      dropout: { p: 0.5, seed: 1 },
      qLengths: [7],
      kvLengths: [4000],
      lse: true,
      rowMax: true,
    },
    "packed sequences": { cuSeqlensQ: [0, 3, 8], cuSeqlensKv: [0, 1000, N], window: [9, 9] },
    functions: {
      scoreFunction: scoreFunction(
        "fn score(s: f32, at: Position) -> f32 { return s + f32(at.q_idx); }",
      ),
      maskFunction: allOf(causalMask(), slidingWindow(500, 0)),
    },
  };
  it.each(Object.entries(kinds))("%s", async (_, options) => {
    const { device, bytes, peakBytes } = counted(await testDevice());
    const [q, k] = [8, N].map((rows) => tensor(device, [1, H, rows, 8]));
    const inputs = bytes();
    const { output, lse, rowMax } = await attention(q, k, k, { variant: "8x32", ...options });
    // 8 x 4096 scores of two heads would be 262,144 bytes.
    expect(peakBytes() - inputs).toBeLessThan(8 * 1024);
    // With as many queries as keys there would be 134,217,728 bytes of scores. The plan is made,
    // and need not run.
    const { qLengths: _q, cuSeqlensQ, ...rest } = options;
    const many = {
      ...rest,
      ...(cuSeqlensQ && { cuSeqlensQ: [0, 3, N] }),
    } as Partial<AttentionProblem>;
    const shape = { shape: [1, H, N, 8] };
    const before = bytes();
    const plan = await planAttention(device, {
      ...many,
      q: shape,
      k: shape,
      v: shape,
      variant: "8x32",
    });
    expect(bytes() - before).toBeLessThan(16 * 1024);
    for (const used of [q, k, output, lse, rowMax, plan]) used?.destroy();
    expect(bytes()).toBe(0);
  });
  it("masks and biases that broadcast, and block masks", async () => {
    const { device, bytes } = counted(await testDevice());
    const shape = { shape: [1, H, N, 8] };
    const masks = { mask: { shape: [N], dtype: "u8" }, bias: { shape: [N] } } as const;
    const plan = await planAttention(device, {
      q: shape,
      k: shape,
      v: shape,
      ...masks,
      variant: "8x32",
    });
    expect(bytes()).toBeLessThan(2 * 1024);
    plan.destroy();
    const blockMask = await createBlockMask(device, slidingWindow(256, 0), { seqQ: N, seqKv: N });
    // a word for each block of 64 x 64 scores, and a count for each row of them
    expect(bytes()).toBe(4 * 64 * 65);
    blockMask.destroy();
  });
});
