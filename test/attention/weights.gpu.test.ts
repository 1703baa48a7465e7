// Scores and probabilities on request: what is refused, what is allocated, and what compiles again.

import { describe, expect, it } from "vitest";
import {
  attentionWeights,
  planAttentionWeights,
  probabilityFunction,
  type Tensor,
  type TensorOptions,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const PROBABILITY = "fn probability(p: f32, at: Position) -> f32 { return p; }";

/** The device, the sizes of the buffers that it makes, and the number of pipelines. */
function counted(real: GPUDevice) {
  const sizes: number[] = [];
  const count = { pipelines: 0 };
  const device = overridden(real, {
    createBuffer(descriptor: GPUBufferDescriptor) {
      sizes.push(descriptor.size);
      return real.createBuffer(descriptor);
    },
    createComputePipelineAsync(descriptor: GPUComputePipelineDescriptor) {
      count.pipelines++;
      return real.createComputePipelineAsync(descriptor);
    },
  });
  return { device, sizes, count };
}

const random = (device: GPUDevice, seed: number, shape: number[]) =>
  tensor(device, shape, {
    data: normal(
      seed,
      shape.reduce((product, size) => product * size, 1),
    ),
  });

describe("memory", () => {
  it("of the best keys among 4096 is linear in the queries", async () => {
    const { device, sizes } = counted(await testDevice());
    const M = 4096;
    const N = 4096;
    const D = 4;
    const count = 3;
    const q = random(device, 1, [1, 1, M, D]);
    const k = random(device, 2, [1, 1, N, D]);
    sizes.length = 0;
    // A window keeps the work small, and changes nothing of the memory that the problem could need.
    const { indices, weights } = await topKKeys(q, k, { k: count, window: [31, 0] });
    const most = 4 * M * count;
    expect(Math.max(...sizes)).toBe(most);
    expect(sizes.reduce((total, size) => total + size, 0)).toBeLessThan(2 * most + 4096);
    const found = await indices.read();
    expect(found.slice(0, 6)).toEqual(Int32Array.from([0, -1, -1, ...found.slice(3, 5), -1]));
    for (let place = 300; place < found.length; place++) {
      const query = Math.floor(place / count);
      expect(query - found[place]).toBeGreaterThanOrEqual(0);
      expect(query - found[place]).toBeLessThan(32);
    }
    for (const one of [q, k, indices, weights]) one.destroy();
  });
  it("of weights is the weights, and of those that were asked for", async () => {
    const { device, sizes } = counted(await testDevice());
    const q = random(device, 1, [1, 2, 300, 4]);
    const k = random(device, 2, [1, 2, 300, 4]);
    sizes.length = 0;
    const whole = await attentionWeights(q, k);
    expect(Math.max(...sizes)).toBe(4 * 2 * 300 * 300);
    sizes.length = 0;
    const some = await attentionWeights(q, k, { heads: [1], rows: [5] });
    expect(sizes.reduce((total, size) => total + size, 0)).toBeLessThan(4096);
    const all = await whole.read();
    expect(await some.read()).toEqual(all.slice(305 * 300, 306 * 300));
    for (const one of [q, k, whole, some]) one.destroy();
  });
});

describe("compilation", () => {
  it("happens once for all stages and lists", async () => {
    const { device, count } = counted(await testDevice());
    const q = random(device, 1, [1, 2, 9, 4]);
    const k = random(device, 2, [1, 2, 9, 4]);
    const lists: [number[], number[]][] = [
      [[0], [1, 2]],
      [[1, 0], [8]],
    ];
    for (const [heads, rows] of lists) {
      for (const stage of ["raw", "capped", "scores", "probabilities"] as const) {
        (await attentionWeights(q, k, { heads, rows, stage })).destroy();
      }
      (await attentionWeights(q, k, { heads, rows, meanOverHeads: true })).destroy();
    }
    expect(count.pipelines).toBe(1);
    for (const one of [q, k]) one.destroy();
  });
});

describe("refused", () => {
  const shape = [1, 2, 5, 4];
  async function tensors() {
    const device = await testDevice();
    const make = (size: readonly number[], options?: TensorOptions) =>
      tensor(device, size, options);
    return { device, make, q: make(shape), k: make([1, 1, 7, 4]) };
  }
  const weights = async (
    options: object,
    message: string,
    code: "argument" | "overlap" = "argument",
  ) => {
    const { q, k } = await tensors();
    await expectError(() => attentionWeights(q, k, options), code, `attentionWeights: ${message}`);
  };

  it("stages that there are not, and means of scores", async () => {
    await weights(
      { stage: "logits" },
      'stage must be "raw", "capped", "scores", "probabilities", got "logits".',
    );
    await weights(
      { stage: "raw", meanOverHeads: true },
      'meanOverHeads is a mean of probabilities; it can\'t be combined with stage "raw".',
    );
  });
  it("probability functions that are none, or not of probabilities", async () => {
    await weights(
      { probabilityFunction: "p * p" },
      'probabilityFunction must come from probabilityFunction(), got "p * p".',
    );
    await weights(
      { probabilityFunction: probabilityFunction(PROBABILITY), stage: "scores" },
      'probabilityFunction changes probabilities; it can\'t be combined with stage "scores".',
    );
  });
  it("heads and rows that there are not", async () => {
    await weights(
      { heads: [0, 2] },
      "heads must list whole numbers from 0 to 1, at least one, got [0, 2].",
    );
    await weights(
      { heads: [] },
      "heads must list whole numbers from 0 to 1, at least one, got [].",
    );
    await weights(
      { rows: [1.5] },
      "rows must list whole numbers from 0 to 4, at least one, got [1.5].",
    );
    await weights({ rows: 3 }, "rows must list whole numbers from 0 to 4, at least one, got 3.");
  });
  it("tensors of other shapes and dtypes", async () => {
    const { make, q, k } = await tensors();
    await weights(
      { output: make([1, 2, 5, 6]) },
      "output must be [1, 2, 5, 7] [B, heads, rows, N], got [1, 2, 5, 6].",
    );
    await weights(
      { output: make([1, 2, 5, 7]), meanOverHeads: true },
      "output must be [1, 5, 7] [B, rows, N], got [1, 2, 5, 7].",
    );
    await weights({ lse: make([1, 2, 4]) }, "lse must be [1, 2, 5] [B, H, M], got [1, 2, 4].");
    await weights({ lse: make([1, 2, 5], { dtype: "u32" }) }, "lse must be f32, got u32.");
    await expectError(
      () => attentionWeights(q, make([1, 1, 7, 8])),
      "argument",
      "attentionWeights: q and k must have the same head dim (axes BHMD): q is [1, 2, 5, 4], k [1, 1, 7, 8].",
    );
    await expectError(
      () => attentionWeights(q, null as unknown as Tensor),
      "argument",
      "attentionWeights: k must be a Tensor; make one with tensor().",
    );
    await expectError(
      () => attentionWeights(q, k, { kvLengths: [9] }),
      "argument",
      /^attentionWeights: kvLengths/,
    );
  });
  it("an output in the memory of an input", async () => {
    const { device, make, k } = await tensors();
    const memory = make([1, 2, 5, 14]);
    const output = memory.view({ shape: [1, 2, 5, 7], strides: [140, 70, 14, 1] });
    const q = memory.view({ shape: [1, 2, 5, 4], strides: [140, 70, 14, 1] });
    await expectError(
      () => attentionWeights(q, k, { output }),
      "overlap",
      /^attentionWeights: output and q are in the/,
    );
    await expectError(
      () =>
        planAttentionWeights(device, {
          q,
          k,
          output: { shape: [1, 2, 5, 7], strides: [0, 0, 7, 1] },
        }),
      "overlap",
      /^attentionWeights: elements of output share memory/,
    );
  });
  it("numbers of keys that a list can't have", async () => {
    const { q, k } = await tensors();
    for (const count of [0, 65, 1.5, undefined]) {
      await expectError(
        () => topKKeys(q, k, { k: count as number }),
        "argument",
        `topKKeys: the number of keys must be a whole number from 1 to 64, got ${count}.`,
      );
    }
    await expectError(
      () => topKKeys(q, k, { k: 1, heads: [7] }),
      "argument",
      /^topKKeys: heads must list/,
    );
  });
});
