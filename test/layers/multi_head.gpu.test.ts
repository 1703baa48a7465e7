// The layer as users meet it: weights in other libraries' layouts, plans, what they own, and what
// is refused.

import { describe, expect, it } from "vitest";
import {
  MultiHeadAttention,
  type MultiHeadOptions,
  type MultiHeadProblem,
  type MultiHeadWeights,
  multiHeadWeights,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const B = 2;
const M = 5;
const E = 16;
const H = 2;
const D = 8;
const SMALL = { variant: "8x32" } as const; // takes the least time to compile

/** Transposes rows by columns. */
const transposed = (data: Float32Array, rows: number, columns: number) =>
  Float32Array.from(data, (_, index) => data[(index % rows) * columns + Math.floor(index / rows)]);
const part = (data: Float32Array, index: number) =>
  data.slice((index * data.length) / 3, ((index + 1) * data.length) / 3);

describe("weights", () => {
  const packed = normal(1, 3 * E * E, 0.3);
  const bias = normal(2, 3 * E, 0.3);
  const out = normal(3, E * E, 0.3);
  const outBias = normal(4, E, 0.3);
  const input = normal(5, B * M * E);

  async function outputOf(
    make: (device: GPUDevice) => MultiHeadWeights,
  ): Promise<ArrayLike<number>> {
    const device = await testDevice();
    const layer = new MultiHeadAttention(device, make(device), { heads: H });
    const x = tensor(device, [B, M, E], { data: input });
    const { output } = await layer.forward(x, SMALL);
    const values = await output.read();
    for (const used of [x, output]) used.destroy();
    layer.destroy();
    return values;
  }
  const pytorch = (device: GPUDevice) =>
    multiHeadWeights.fromPyTorch(device, {
      in_proj_weight: packed,
      in_proj_bias: bias,
      "out_proj.weight": out,
      "out_proj.bias": outBias,
    });

  it("are the same layer from every layout", async () => {
    const expected = await outputOf(pytorch);
    const same = async (make: (device: GPUDevice) => MultiHeadWeights) => {
      const { error } = worstElement(await outputOf(make), expected, [B, M, E]);
      // strides decide which kernel sums, and in which order it rounds
      expect(error).toBeLessThan(1e-6);
    };
    await same((device) =>
      multiHeadWeights.fromPyTorch(device, {
        q_proj_weight: tensor(device, [E, E], { data: part(packed, 0) }),
        k_proj_weight: part(packed, 1),
        v_proj_weight: { data: part(packed, 2), shape: [E, E] },
        in_proj_bias: bias,
        "out_proj.weight": { data: out, shape: [E, E] },
        "out_proj.bias": outBias,
      }),
    );
    // [E, H * D], which is [E, H, D]
    const kernel = (index: number) => transposed(part(packed, index), E, E);
    const keras = {
      "query/kernel": kernel(0),
      "query/bias": part(bias, 0),
      "key/kernel": { data: kernel(1), shape: [E, H, D] },
      "key/bias": { data: part(bias, 1), shape: [H, D] },
      "value/kernel": kernel(2),
      "value/bias": part(bias, 2),
      "attention_output/kernel": transposed(out, E, E),
      "attention_output/bias": outBias,
    };
    await same((device) => multiHeadWeights.fromKeras(device, keras, { heads: H, keyDim: D }));
    const node = (index: number) => ({
      weight: { data: kernel(index), shape: [E, E] },
      bias: part(bias, index),
    });
    const behind = { weight: { data: transposed(out, E, E), shape: [E, E] }, bias: outBias };
    await same((device) =>
      multiHeadWeights.fromOnnxMatMuls(device, {
        query: node(0),
        key: node(1),
        value: node(2),
        output: behind,
      }),
    );
    const columns = transposed(packed, 3 * E, E); // [E, 3 E]
    await same((device) =>
      multiHeadWeights.fromOnnxAttention(device, { weights: columns, bias, output: behind }),
    );
  });

  it("on the GPU are looked at, not copied", async () => {
    const { device, count } = counted(await testDevice());
    const tensors = {
      weight: tensor(device, [3 * E, E], { data: packed }),
      out: tensor(device, [E, E], { data: out }),
    };
    const made = count.buffersMade;
    const weights = multiHeadWeights.fromPyTorch(device, {
      in_proj_weight: tensors.weight,
      "out_proj.weight": tensors.out,
    });
    expect(count.buffersMade).toBe(made);
    expect(weights.value.weight.buffer).toBe(tensors.weight.buffer);
    expect(weights.value.weight.offset).toBe(2 * E * E);
    for (const used of Object.values(tensors)) used.destroy();
  });

  it("that are refused leave nothing behind", async () => {
    const { device, buffers } = counted(await testDevice());
    const refuse = (work: () => unknown, message: string) => expectError(work, "argument", message);
    await refuse(
      () =>
        multiHeadWeights.fromPyTorch(device, {
          in_proj_weight: packed,
          "out_proj.weight": out.subarray(1),
        }),
      "multiHeadWeights: out_proj.weight must be square, [E, E], got 255 elements.",
    );
    await refuse(
      () => multiHeadWeights.fromPyTorch(device, { in_proj_weight: out, "out_proj.weight": out }),
      "multiHeadWeights: in_proj_weight must be [48, 16], got 256 elements.",
    );
    await refuse(
      () => multiHeadWeights.fromPyTorch(device, { q_proj_weight: out, "out_proj.weight": out }),
      "multiHeadWeights: give in_proj_weight, or q_proj_weight, k_proj_weight and v_proj_weight.",
    );
    const kernel = { data: out, shape: [E, H, D] };
    const keras = { "query/kernel": kernel, "key/kernel": out, "value/kernel": kernel };
    await refuse(
      () =>
        multiHeadWeights.fromKeras(device, {
          ...keras,
          "attention_output/kernel": { data: out, shape: [H, D, E] },
        }),
      "multiHeadWeights: key/kernel is an array without a shape; say { heads, keyDim, valueDim } too, or give { data, shape }.",
    );
    await refuse(
      () => multiHeadWeights.fromOnnxAttention(device, { weights: { data: out, shape: [E, E] } }),
      "multiHeadWeights: 16 columns of weights are no q, k and v of one width; say qkvHiddenSizes.",
    );
    await refuse(
      () => multiHeadWeights.glorot(device, { embedDim: 10, heads: 4 }),
      "multiHeadWeights: keyDim must be a whole number from 1 up, got 2.5.",
    );
    expect(buffers()).toBe(0);
  });

  it("new ones are the same for a seed, within Glorot's bounds", async () => {
    const device = await testDevice();
    const valuesOf = async (seed: number) => {
      const layer = new MultiHeadAttention(
        device,
        multiHeadWeights.glorot(device, { embedDim: E, heads: H, seed }),
        {
          heads: H,
        },
      );
      const values = await layer.weights.query.weight.read();
      layer.destroy();
      return values;
    };
    const one = await valuesOf(1);
    const again = await valuesOf(1);
    const other = await valuesOf(2);
    expect(one).toEqual(again);
    expect(one).not.toEqual(other);
    const limit = Math.sqrt(6 / (2 * E));
    expect(Math.max(...one.map(Math.abs))).toBeLessThanOrEqual(limit);
    const squares = Array.from(one, (x) => x * x).reduce((sum, x) => sum + x, 0);
    // 4 standard deviations of 256 draws
    expect(Math.abs(squares / one.length - limit ** 2 / 3)).toBeLessThan(0.015);
  });
});

describe("a plan", () => {
  it("states its memory, is encoded without allocating, and frees it", async () => {
    const real = await testDevice();
    const { device, count, buffers, bytes } = counted(real);
    const layer = new MultiHeadAttention(
      device,
      multiHeadWeights.glorot(device, { embedDim: E, heads: H }),
      {
        heads: H,
      },
    );
    const before = { buffers: buffers(), bytes: bytes() };
    const plan = await layer.plan({ query: { shape: [B, M, E] }, ...SMALL });
    // q, k, v and the output of the heads, f32.
    expect(plan.workspaceBytes).toBe(4 * 4 * B * M * E);
    const params = 5 * 1024; // the uniforms of four projections and attention take less
    expect(bytes() - before.bytes).toBeGreaterThanOrEqual(plan.workspaceBytes);
    expect(bytes() - before.bytes).toBeLessThanOrEqual(plan.workspaceBytes + params);

    const query = tensor(device, [B, M, E], { data: normal(6, B * M * E) });
    const outputs = [0, 1].map(() => tensor(device, [B, M, E]));
    const made = count.buffersMade;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass, { query, output: outputs[0] });
    const groups = count.bindGroups;
    plan.encode(pass, { query, output: outputs[0] });
    expect(count.bindGroups).toBe(groups);
    plan.encode(pass, { query, output: outputs[1] });
    pass.end();
    device.queue.submit([encoder.finish()]);
    expect(count.buffersMade).toBe(made);
    expect(await outputs[0].read()).toEqual(await outputs[1].read());
    expect(count.submits).toBeGreaterThan(0);

    const fresh = () => plan.encode(device.createCommandEncoder(), { query });
    await expectError(
      fresh,
      "argument",
      "multiHeadAttention: output is missing: the plan was made without a tensor for it.",
    );
    const wrong = () => plan.encode(device.createCommandEncoder(), { query, output: query });
    await expectError(
      wrong,
      "overlap",
      /^multiHeadAttention: output and query are in the same GPUBuffer/,
    );
    plan.destroy();
    plan.destroy();
    await expectError(fresh, "destroyed", "multiHeadAttention: the plan was destroyed.");
    for (const used of [query, ...outputs]) used.destroy();
    expect(buffers()).toBe(before.buffers);
    layer.destroy();
    expect(buffers()).toBe(0);
  });
});

describe("packed sequences", () => {
  it("are the entries one by one", async () => {
    const device = await testDevice();
    const layer = new MultiHeadAttention(
      device,
      multiHeadWeights.glorot(device, { embedDim: E, heads: H }),
      {
        heads: H,
      },
    );
    const x = tensor(device, [1, 7, E], { data: normal(7, 7 * E) });
    const cuSeqlens = { cuSeqlensQ: [0, 3, 7], cuSeqlensKv: [0, 3, 7] };
    const { output } = await layer.forward(x, { ...SMALL, ...cuSeqlens, causal: true });
    const values = await output.read();
    for (const [begin, end] of [
      [0, 3],
      [3, 7],
    ]) {
      const { output: alone } = await layer.forward(x.slice(1, begin, end), {
        ...SMALL,
        causal: true,
      });
      const { error } = worstElement(values.slice(begin * E, end * E), await alone.read(), [
        end - begin,
        E,
      ]);
      expect(error).toBeLessThan(1e-6);
      alone.destroy();
    }
    const refuse = (problem: Partial<MultiHeadProblem>, message: string) =>
      expectError(() => layer.plan({ query: x, ...cuSeqlens, ...problem }), "argument", message);
    await refuse(
      { weights: "mean" },
      "multiHeadAttention: weights can't be combined with packed sequences.",
    );
    await refuse(
      { keyMask: { shape: [1, 7] } },
      "multiHeadAttention: keyMask can't be combined with packed sequences.",
    );
    for (const used of [x, output]) used.destroy();
    layer.destroy();
  });
});

describe("what is refused", () => {
  async function layerOf(
    options: Partial<MultiHeadOptions> = {},
    change: (weights: MultiHeadWeights) => object = (w) => w,
  ) {
    const { device, buffers } = counted(await testDevice());
    const weights = multiHeadWeights.glorot(device, { embedDim: E, heads: H });
    const make = () =>
      new MultiHeadAttention(device, change(weights) as MultiHeadWeights, { heads: H, ...options });
    return { device, buffers, weights, make };
  }

  it("weights that do not go together", async () => {
    const { device, make } = await layerOf({ heads: 3 });
    await expectError(
      make,
      "argument",
      "multiHeadAttention: the 16 rows of weights.query.weight must be a multiple of the 3 heads.",
    );
    const refuse = async (
      options: Partial<MultiHeadOptions>,
      change: (w: MultiHeadWeights) => object,
      message: string,
    ) => expectError((await layerOf(options, change)).make, "argument", message);
    const odd = (shape: readonly number[]) => tensor(device, shape);
    await refuse(
      { heads: 0 },
      (w) => w,
      "multiHeadAttention: heads must be a whole number from 1 up, got 0.",
    );
    await refuse(
      { kvHeads: 1 },
      (w) => w,
      "multiHeadAttention: weights.key.weight has 2 heads of 8; expected 1.",
    );
    await refuse(
      {},
      (w) => ({ ...w, key: { weight: odd([24, E]) } }),
      "multiHeadAttention: weights.key.weight has 3 heads of 8; expected a number that divides 2.",
    );
    await refuse(
      {},
      (w) => ({ ...w, output: { weight: odd([E, 8]) } }),
      "multiHeadAttention: weights.output.weight must be [any, 16] for 2 heads of 8, got [16, 8].",
    );
    await refuse(
      {},
      (w) => ({ ...w, query: { weight: w.query.weight, bias: odd([8]) } }),
      "multiHeadAttention: weights.query.bias must be [16] for weights.query.weight [16, 16], got [8].",
    );
    await refuse(
      {},
      (w) => ({ ...w, biasK: odd([16]) }),
      "multiHeadAttention: weights.biasK and weights.biasV go together; one is missing.",
    );
    await refuse(
      {},
      (w) => ({ ...w, value: undefined }),
      "multiHeadAttention: weights.value must be { weight, bias? }, got undefined.",
    );
  });

  it("problems that do not fit the layer, with nothing left behind", async () => {
    const { device, buffers, make } = await layerOf();
    const layer = make();
    const before = buffers();
    const query = { shape: [B, M, E] };
    const refuse = (problem: Partial<MultiHeadProblem>, message: string | RegExp) =>
      expectError(() => layer.plan({ query, ...problem }), "argument", message);
    await refuse(
      { query: { shape: [B, M, 8] } },
      "multiHeadAttention: query must be [B, M, 16], got [2, 5, 8].",
    );
    await refuse(
      { key: { shape: [B, 7, 8] } },
      "multiHeadAttention: key must be [B, N, 16], got [2, 7, 8].",
    );
    await refuse(
      { key: { shape: [B, 7, E] }, value: { shape: [B, 6, E] } },
      "multiHeadAttention: value must be [2, 7, 16] as the query's batch and the keys say, got [2, 6, 16].",
    );
    await refuse(
      { output: { shape: [B, M, 8] } },
      "multiHeadAttention: output must be [2, 5, 16], got [2, 5, 8].",
    );
    await refuse(
      { mask: { shape: [M, M] }, ignoreMask: { shape: [M, M] } },
      "multiHeadAttention: give mask or ignoreMask, not both: they are the same mask in two conventions.",
    );
    await refuse(
      { keyMask: { shape: [B, M] }, ignoreKeyMask: { shape: [B, M] } },
      "multiHeadAttention: give keyMask or ignoreKeyMask, not both: they are the same mask in two conventions.",
    );
    await refuse(
      { keyMask: { shape: [B, 4] } },
      "multiHeadAttention: keyMask must be [B, N] = [2, 5], got [2, 4].",
    );
    await refuse(
      { keyMask: { shape: [B, M], dtype: "f32" } },
      "multiHeadAttention: keyMask must be u8 or u32, got f32.",
    );
    await refuse(
      { ignoreMask: { shape: [3, M] } },
      "multiHeadAttention: ignoreMask must broadcast to the scores [B, H, M, N] = [2, 2, 5, 5], got [3, 5].",
    );
    await refuse(
      { weights: "all" as never },
      'multiHeadAttention: weights must be "perHead" or "mean", got "all".',
    );
    await refuse(
      { storage: "f64" as never },
      'multiHeadAttention: storage must be "f32", "f16" or "bf16", got "f64".',
    );
    // Only attention itself knows this to be wrong, when memory is there already.
    await refuse({ window: [-5, 0] }, /^multiHeadAttention: window must be/);
    await refuse(
      { ignoreMask: { shape: [M, M] }, scale: Number.NaN },
      /^multiHeadAttention: scale must be a finite number/,
    );
    await expectError(
      () => layer.forward(query as unknown as Tensor),
      "argument",
      "multiHeadAttention: query must be a Tensor; make one with tensor().",
    );
    const other = tensor(await testDevice(), [B, M, E]);
    await expectError(
      () => layer.forward(other),
      "device",
      /^multiHeadAttention: query belongs to another GPUDevice/,
    );
    other.destroy();
    expect(buffers()).toBe(before);
    layer.weights.key.weight.destroy();
    await expectError(
      () => layer.plan({ query }),
      "destroyed",
      "multiHeadAttention: weights.key.weight: the tensor was destroyed.",
    );
    expect(device).toBeDefined();
  });
});
