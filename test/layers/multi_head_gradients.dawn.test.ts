// The gradients of the multi-head layer as users meet them: their layouts, plans, what is asked for
// and what is refused.

import { describe, expect, it } from "vitest";
import {
  MultiHeadAttention,
  type MultiHeadBackwardOptions,
  multiHeadAttentionBackward,
  multiHeadWeights,
  planMultiHeadAttentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const SHAPE = [2, 5, 16];

/** A layer of two heads of 8, and its input and dOutput. */
function problemOf(device: GPUDevice) {
  const make = (seed: number, shape: readonly number[]) =>
    tensor(device, shape, { data: normal(seed, product(shape), 0.5) });
  const weights = multiHeadWeights.fromPyTorch(device, {
    in_proj_weight: make(1, [48, 16]),
    in_proj_bias: make(2, [48]),
    "out_proj.weight": make(3, [16, 16]),
    "out_proj.bias": make(4, [16]),
  });
  const layer = new MultiHeadAttention(device, weights, { heads: 2 });
  return { layer, x: make(5, SHAPE), dOutput: make(6, SHAPE), make };
}

const poisoned = (device: GPUDevice, shape: readonly number[]) =>
  tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });

const valuesOf = async (...tensors: readonly (Tensor | undefined)[]) => {
  const all: number[] = [];
  for (const one of tensors) all.push(...Array.from(one ? await one.read() : [Number.NaN]));
  return all;
};

describe("gradients of a layer", () => {
  it("go into packed tensors, from plans too, in parts, and with the same bits", async () => {
    const device = await testDevice();
    const { layer, x, dOutput } = problemOf(device);
    const found = await multiHeadAttentionBackward(layer, x, { causal: true, dOutput });
    const { query, key, value, output } = found.parameters ?? {};
    const packed = {
      in_proj_weight: poisoned(device, [48, 16]),
      in_proj_bias: poisoned(device, [48]),
      "out_proj.weight": poisoned(device, [16, 16]),
    };
    const parameters = multiHeadWeights.fromPyTorch(device, packed);
    const dQuery = poisoned(device, SHAPE);
    const problem = { query: { shape: SHAPE }, causal: true, parameters, dQuery };
    const plan = await planMultiHeadAttentionBackward(layer, problem);
    expect(plan.workspaceBytes).toBeGreaterThan(0);
    const dBias = poisoned(device, [16]);
    const encoder = device.createCommandEncoder();
    // The gradient of one bias is none of those that the plan was made with.
    const bound = { query: x, dOutput, parameters: { output: { bias: dBias } } };
    plan.encode(encoder, bound);
    device.queue.submit([encoder.finish()]);
    expect(await valuesOf(packed.in_proj_weight)).toEqual(
      await valuesOf(query?.weight, key?.weight, value?.weight),
    );
    expect(await valuesOf(packed.in_proj_bias)).toEqual(
      await valuesOf(query?.bias, key?.bias, value?.bias),
    );
    expect(await valuesOf(packed["out_proj.weight"], dBias)).toEqual(
      await valuesOf(output?.weight, output?.bias),
    );
    expect(await valuesOf(dQuery)).toEqual(await valuesOf(found.dQuery));
    plan.destroy();

    const only = await multiHeadAttentionBackward(layer, x, {
      causal: true,
      dOutput,
      gradients: ["dQuery"],
    });
    expect(Object.keys(only)).toEqual(["dQuery"]);
    expect(await valuesOf(only.dQuery)).toEqual(await valuesOf(found.dQuery));
    layer.destroy();
  });

  it("of 16 bits are rounded once", async () => {
    const device = await testDevice();
    const { layer, x, dOutput } = problemOf(device);
    const dQuery = tensor(device, SHAPE, { dtype: "f16" });
    const options = { dOutput, gradients: ["dQuery"] } as const;
    const full = await multiHeadAttentionBackward(layer, x, options);
    await multiHeadAttentionBackward(layer, x, { ...options, dQuery });
    const expected = await valuesOf(full.dQuery);
    for (const [at, value] of (await valuesOf(dQuery)).entries())
      expect(Math.abs(value - expected[at])).toBeLessThanOrEqual(
        2 ** -11 * Math.abs(expected[at]) + 2 ** -25,
      );
  });
});

describe("multiHeadAttentionBackward refuses", () => {
  const refused = async (
    options: (device: GPUDevice, x: Tensor) => object,
    message: string | RegExp,
    code: "argument" | "overlap" = "argument",
  ) => {
    const { device, buffers } = counted(idle(await testDevice()));
    const { layer, x, dOutput } = problemOf(device);
    const given = { dOutput, ...options(device, x) } as MultiHeadBackwardOptions;
    const before = buffers();
    await expectError(() => multiHeadAttentionBackward(layer, x, given), code, message);
    expect(buffers()).toBe(before);
  };

  it.each<[what: string, options: object, message: string | RegExp]>([
    [
      "no dOutput",
      { dOutput: undefined },
      /: dOutput must be a Tensor; make one with tensor\(\)\.$/,
    ],
    [
      "a gradient that there is not",
      { gradients: ["dKey"] },
      "multiHeadAttention backward: dKey is the gradient of a tensor that was not given. Gradients: dQuery, parameters.",
    ],
    [
      "a gradient of an option that is not there",
      { dBias: true },
      "multiHeadAttention backward: dBias is the gradient of bias, which is not given.",
    ],
    [
      "gradients of options by other names",
      { parameters: { query: { kernel: 1 } } },
      "multiHeadAttention backward: parameters.query.kernel is the gradient of a weight that the layer doesn't have. It has query.weight, query.bias, key.weight, key.bias, value.weight, value.bias, output.weight, output.bias.",
    ],
    [
      "parameters that are none",
      { parameters: 3 },
      "multiHeadAttention backward: parameters must be { name: tensor }, got 3.",
    ],
    ["an option of attention that is wrong", { kvLengths: [9, 9] }, /kvLengths/],
  ])("%s", (_, options, message) => refused(() => options, message));

  it("tensors of another shape", async () => {
    await refused(
      (device) => ({ dOutput: tensor(device, [2, 5, 15]) }),
      "multiHeadAttention backward: dOutput must be [2, 5, 16], got [2, 5, 15].",
    );
    await refused(
      (device) => ({ dWeights: tensor(device, [2, 5, 4]) }),
      "multiHeadAttention backward: dWeights must be [2, 5, 5] for the mean over the heads, got [2, 5, 4].",
    );
    await refused(
      (device) => ({ parameters: { key: { weight: tensor(device, [16, 15]) } } }),
      "multiHeadAttention backward: parameters.key.weight must be [16, 16], got [16, 15].",
    );
  });

  it("results that share memory with what is read, or elements with each other", async () => {
    await refused(
      (_, x) => ({ dQuery: x }),
      /^multiHeadAttention backward: dQuery and query are in the same GPUBuffer/,
      "overlap",
    );
    await refused(
      (device) => {
        const whole = tensor(device, [40, 16]);
        const rows = (from: number) => ({ weight: whole.slice(0, from, from + 16) });
        return { parameters: { query: rows(0), key: rows(15), value: rows(24) } };
      },
      "multiHeadAttention backward: parameters.key.weight and parameters.query.weight have elements in common.",
      "overlap",
    );
  });

  it("what is no layer", () =>
    expectError(
      async () =>
        multiHeadAttentionBackward({} as never, tensor(await testDevice(), SHAPE), {} as never),
      "argument",
      /^multiHeadAttentionBackward: layer must be a MultiHeadAttention, got/,
    ));

  it("nothing of columns that lie side by side", async () => {
    const device = idle(await testDevice());
    const { layer, x, dOutput } = problemOf(device);
    const whole = tensor(device, [16, 48]);
    const columns = (from: number) => ({ weight: whole.slice(1, from, from + 16).permute(1, 0) });
    const parameters = { query: columns(0), key: columns(16), value: columns(32) };
    await multiHeadAttentionBackward(layer, x, { dOutput, parameters });
    const key = columns(8);
    await expectError(
      () => multiHeadAttentionBackward(layer, x, { dOutput, parameters: { ...parameters, key } }),
      "overlap",
      /key\.weight and parameters\.query\.weight have elements in common/,
    );
  });
});
