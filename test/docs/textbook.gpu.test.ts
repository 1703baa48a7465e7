// The programs that textbooks show for attention give the same shapes here.

import { expect, it } from "vitest";
import {
  type LinearWeights,
  MultiHeadAttention,
  multiHeadWeights,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceMultiHead,
  multiHeadAttention as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

/** Reads the weights for the reference. New weights have biases of zeros. */
async function onCpu({ weights }: MultiHeadAttention): Promise<ReferenceMultiHead> {
  const read = async ({ weight }: LinearWeights) => ({
    weight: { data: await weight.read(), shape: weight.shape },
  });
  const [query, key, value] = await Promise.all(
    [weights.query, weights.key, weights.value].map(read),
  );
  return { query, key, value, ...(weights.output && { output: await read(weights.output) }) };
}

it("an attention module with d_q = d_k = 512 and d_v = 2048 on (1, 10, 512)", async () => {
  const device = await testDevice();
  const sizes = {
    embedDim: 512,
    heads: 1,
    keyDim: 512,
    valueDim: 2048,
    outputWidth: "heads",
  } as const;
  const layer = new MultiHeadAttention(device, multiHeadWeights.glorot(device, sizes), {
    heads: 1,
  });
  const data = normal(1, 10 * 512);
  const x = tensor(device, [1, 10, 512], { data });
  const { output } = await layer.forward(x);
  expect(output.shape).toEqual([1, 10, 2048]);

  const cpu = await onCpu(layer);
  const input = { data, shape: [1, 10, 512] };
  const run = (precision: "f32" | "f64") =>
    reference(input, input, input, cpu, { heads: 1, precision }).output;
  expectClose("output", await output.read(), { f64: run("f64"), plain: run("f32") }, output.shape);
  for (const used of [x, output]) used.destroy();
  layer.destroy();
});

it("multi-head attention with 8 heads and key dim 64 on (32, 512, 512)", async () => {
  const device = await testDevice();
  const B = 32;
  const M = 512;
  const weights = multiHeadWeights.glorot(device, { embedDim: 512, heads: 8, keyDim: 64 });
  const layer = new MultiHeadAttention(device, weights, { heads: 8 });
  const data = normal(2, B * M * 512);
  const x = tensor(device, [B, M, 512], { data });
  const { output } = await layer.forward(x);
  expect(output.shape).toEqual([B, M, 512]);

  // All entries are computed; the CPU can check one of them.
  const last = { data: data.subarray((B - 1) * M * 512), shape: [1, M, 512] };
  const cpu = await onCpu(layer);
  const run = (precision: "f32" | "f64") =>
    reference(last, last, last, cpu, { heads: 8, precision }).output;
  const values = (await output.read()).subarray((B - 1) * M * 512);
  expectClose("output", values, { f64: run("f64"), plain: run("f32") }, last.shape);
  for (const used of [x, output]) used.destroy();
  layer.destroy();
});
