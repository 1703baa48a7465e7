// Keras' and PyTorch's operators where no vector of their suites goes: numbers worked by hand, and the reference.

import { afterEach, expect, it } from "vitest";
import { normal } from "../../bench/data.ts";
import { type Tensor, tensor } from "../../src/index.ts";
import { layerNorm, multiHeadAttention, pointwise, project } from "../../src/reference/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { operatorOf } from "./operators.ts";

failOnGpuErrors();

const used: Tensor[] = [];
afterEach(() => {
  for (const one of used.splice(0)) one.destroy();
});
const put = async (shape: number[], data: ArrayLike<number>, dtype: "f32" | "u8" = "f32") => {
  used.push(tensor(await testDevice(), shape, { data: Array.from(data), dtype }));
  return used[used.length - 1];
};

/** The outputs of an operator, all of them. */
async function outputsOf(op: string, inputs: (Tensor | null)[], attributes: object, outputs = 1): Promise<number[][]> {
  const operator = operatorOf(op) as NonNullable<ReturnType<typeof operatorOf>>;
  const run = { device: await testDevice(), outputs: new Array<boolean>(outputs).fill(true) };
  const results = (await operator(inputs, { ...attributes }, run)) as Tensor[];
  used.push(...results);
  return Promise.all(results.map(async (result) => Array.from(await result.read())));
}

it("keras.Attention masks by -1e9, so that a row without a key is the mean of all", async () => {
  const [q, v] = [await put([1, 2, 1], [0.5, 0.25]), await put([1, 2, 1], [1, 3])];
  const attend = async (mask: number[], causal: number) =>
    outputsOf("keras.Attention", [q, v, v, null, await put([1, 2], mask, "u8")], { use_causal_mask: causal }, 2);
  expect(await attend([0, 1], 1)).toEqual([
    [2, 3],
    [0.5, 0.5, 0, 1],
  ]);
  expect((await attend([0, 0], 0))[0]).toEqual([2, 2]);
});

it("keras.AlibiBias depends on the key only", async () => {
  const attributes = { num_heads: 2, query_length: 2, key_length: 3 };
  const rows = [1 / 16, 1 / 256].flatMap((slope) => [-2 * slope, -slope, 0, -2 * slope, -slope, 0]);
  const [bias] = await outputsOf("keras.AlibiBias", [], attributes);
  expect(bias.map((value) => value + 0)).toEqual(rows);
});

it("keras.RotaryEmbedding counts from start_index", async () => {
  const [turned] = await outputsOf("keras.RotaryEmbedding", [await put([1, 1, 2], [1, 0])], { start_index: 2 });
  expect(turned[0]).toBeCloseTo(Math.cos(2), 6);
  expect(turned[1]).toBeCloseTo(Math.sin(2), 6);
});

it("torch.nn.TransformerEncoderLayer normalises first, with GELU, batch first", async () => {
  const [B, S, E, F] = [2, 3, 4, 5];
  const shapes = [[B, S, E], [3 * E, E], [3 * E], [E, E], [E], [F, E], [F], [E, F], [E], [E], [E], [E], [E]];
  const values = shapes.map((shape, index) => ({
    shape,
    data: normal(
      index + 1,
      shape.reduce((product, size) => product * size, 1),
    ),
  }));
  const [x, inWeight, inBias, outWeight, outBias, weight1, bias1, weight2, bias2, ...norms] = values;
  const third = ({ shape: [, ...rest], data }: typeof x, index: number) => ({
    shape: [E, ...rest],
    data: data.slice((index * data.length) / 3, ((index + 1) * data.length) / 3),
  });
  const [query, key, value] = [0, 1, 2].map((index) => ({
    weight: third(inWeight, index),
    bias: third(inBias, index),
  }));
  const weights = { query, key, value, output: { weight: outWeight, bias: outBias } };
  const rows = (data: ArrayLike<number>, width = E) => ({ shape: [B, S, width], data });
  const norm = (of: typeof x | ReturnType<typeof rows>, index: number) =>
    rows(layerNorm(of, { weight: norms[index], bias: norms[index + 1] }).output);

  const normed = norm(x, 0);
  const attended = multiHeadAttention(normed, normed, normed, weights, { heads: 2 }).output;
  const first = rows(pointwise(x, { bias: rows(attended) }));
  const hidden = rows(project(norm(first, 2), weight1, bias1), F);
  const fed = project(rows(pointwise(hidden, { activation: "gelu" }), F), weight2, bias2);
  const expected = pointwise(first, { bias: rows(fed) });

  const inputs: (Tensor | null)[] = await Promise.all(values.map(({ shape, data }) => put(shape, data)));
  inputs.splice(1, 0, null);
  const op = "torch.nn.TransformerEncoderLayer";
  const attributes = { nhead: 2, norm_first: true, activation: "gelu", batch_first: true };
  const [output] = await outputsOf(op, inputs, attributes);
  for (const [index, value] of output.entries()) expect(Math.abs(value - expected[index])).toBeLessThan(2e-5);
  const tanh = () => outputsOf(op, inputs, { nhead: 2, activation: "tanh" });
  await expectError(tanh, "argument", `${op}: activation must be relu or gelu, got tanh.`);
});
