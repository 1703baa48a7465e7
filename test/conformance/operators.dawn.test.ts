// Keras' and PyTorch's operators in cases that no vector of their suites has, against numbers
// worked by hand and the reference.

import { afterEach, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import { layerNorm, multiHeadAttention, pointwise, project } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
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

/** Returns all outputs of an operator. */
async function outputsOf(
  op: string,
  inputs: (Tensor | null)[],
  attributes: object,
  outputs = 1,
): Promise<number[][]> {
  const operator = operatorOf(op) as NonNullable<ReturnType<typeof operatorOf>>;
  const run = { device: await testDevice(), outputs: new Array<boolean>(outputs).fill(true) };
  const results = (await operator(inputs, { ...attributes }, run)) as Tensor[];
  used.push(...results);
  return Promise.all(results.map(async (result) => Array.from(await result.read())));
}

it("keras.Attention masks by -1e9, so that a row without a key is the mean of all", async () => {
  const q = await put([1, 2, 1], [0.5, 0.25]);
  const v = await put([1, 2, 1], [1, 3]);
  const attend = async (mask: number[], causal: number) =>
    outputsOf(
      "keras.Attention",
      [q, v, v, null, await put([1, 2], mask, "u8")],
      { use_causal_mask: causal },
      2,
    );
  expect(await attend([0, 1], 1)).toEqual([
    [2, 3],
    [0.5, 0.5, 0, 1],
  ]);
  expect((await attend([0, 0], 0))[0]).toEqual([2, 2]);
});

it("keras.Attention knows tf-keras' causal, which use_causal_mask overrules", async () => {
  const q = await put([1, 2, 1], [0.5, 0.25]);
  const v = await put([1, 2, 1], [1, 3]);
  const attend = (attributes: object) => outputsOf("keras.Attention", [q, v, v], attributes, 2);
  const masked = await attend({ use_causal_mask: true });
  expect(masked[1].slice(0, 2)).toEqual([1, 0]);
  expect(await attend({ causal: true })).toEqual(masked);
  const whole = await attend({});
  expect(await attend({ causal: true, use_causal_mask: false })).toEqual(whole);
  expect(whole).not.toEqual(masked);
});

it("keras.MultiHeadAttention has all of Keras' masks, and 0 for a query that sees no key", async () => {
  const B = 2;
  const M = 3;
  const N = 4;
  const H = 2;
  const D = 4;
  const Dv = 3;
  const widths = [5, 6, 7, 8];
  const [queryWidth, keyWidth, valueWidth, outputWidth] = widths;
  const product = (shape: readonly number[]) => shape.reduce((all, size) => all * size, 1);
  const value = (seed: number, shape: number[]) => ({ shape, data: normal(seed, product(shape)) });
  const query = value(1, [B, M, queryWidth]);
  const key = value(2, [B, N, keyWidth]);
  const values = value(3, [B, N, valueWidth]);
  const kernels = [
    value(4, [queryWidth, H, D]),
    value(5, [H, D]),
    value(6, [keyWidth, H, D]),
    value(7, [H, D]),
    value(8, [valueWidth, H, Dv]),
    value(9, [H, Dv]),
    value(10, [H, Dv, outputWidth]),
    value(11, [outputWidth]),
  ];
  const masks = {
    query: [1, 1, 0, 1, 1, 1],
    value: [1, 1, 0, 1, 1, 1, 1, 1],
    key: [1, 1, 1, 1, 0, 1, 1, 1],
  };
  const whole = Array.from({ length: M * N }, (_, i) => Number(i % 5 !== 3));
  /** [in, ...] as [.., in]. */
  const turned = ({ data, shape: [width] }: (typeof kernels)[0]) => {
    const out = data.length / width;
    return {
      shape: [out, width],
      data: Float32Array.from(data, (_, i) => data[(i % width) * out + Math.floor(i / width)]),
    };
  };
  const flat = ({ data }: (typeof kernels)[0]) => ({ data, shape: [data.length] });
  const joined = { ...kernels[6], shape: [H * Dv, outputWidth] };
  const weights = {
    query: { weight: turned(kernels[0]), bias: flat(kernels[1]) },
    key: { weight: turned(kernels[2]), bias: flat(kernels[3]) },
    value: { weight: turned(kernels[4]), bias: flat(kernels[5]) },
    output: { weight: turned(joined), bias: kernels[7] },
  };
  const seen = Array.from({ length: B * M * N }, (_, i) => {
    const n = i % N;
    const m = Math.floor(i / N) % M;
    const b = Math.floor(i / (M * N));
    return Number(
      masks.query[b * M + m] &&
        masks.value[b * N + n] &&
        masks.key[b * N + n] &&
        whole[m * N + n] &&
        n <= m,
    );
  });
  const mask = { data: seen, shape: [B, 1, M, N] };
  const expected = multiHeadAttention(query, key, values, weights, { heads: H, mask });
  const tensors = await Promise.all(
    [query, key, values].map(({ shape, data }) => put(shape, data)),
  );
  const given = await Promise.all([
    put([B, M], masks.query, "u8"),
    put([B, N], masks.value, "u8"),
    put([B, N], masks.key, "u8"),
    put([M, N], whole, "u8"),
  ]);
  const layer = await Promise.all(kernels.map(({ shape, data }) => put(shape, data)));
  const attributes = { num_heads: H, key_dim: D, value_dim: Dv, use_causal_mask: true };
  const op = "keras.MultiHeadAttention";
  const [output, scores] = await outputsOf(op, [...tensors, ...given, ...layer], attributes, 2);
  for (const [i, one] of output.entries())
    expect(Math.abs(one - expected.output[i])).toBeLessThan(2e-5);
  for (const [i, one] of scores.entries())
    expect(Math.abs(one - expected.weights[i])).toBeLessThan(1e-5);
  // only the bias is left
  expect(output.slice(2 * outputWidth, 3 * outputWidth)).toEqual(Array.from(kernels[7].data));
  await expectError(
    () => outputsOf(op, [...tensors, ...given, ...layer], { num_heads: 3 }),
    "argument",
    `${op}: query/kernel must be [in, num_heads, key_dim] = [in, 3, undefined], got [5,2,4].`,
  );
});

it("keras.AlibiBias depends on the key only", async () => {
  const attributes = { num_heads: 2, query_length: 2, key_length: 3 };
  const rows = [1 / 16, 1 / 256].flatMap((slope) => [-2 * slope, -slope, 0, -2 * slope, -slope, 0]);
  const [bias] = await outputsOf("keras.AlibiBias", [], attributes);
  expect(bias.map((value) => value + 0)).toEqual(rows);
});

it("keras.RotaryEmbedding counts from start_index", async () => {
  const [turned] = await outputsOf("keras.RotaryEmbedding", [await put([1, 1, 2], [1, 0])], {
    start_index: 2,
  });
  expect(turned[0]).toBeCloseTo(Math.cos(2), 6);
  expect(turned[1]).toBeCloseTo(Math.sin(2), 6);
});

it("torch.nn.TransformerEncoderLayer normalises first, with GELU, batch first", async () => {
  const B = 2;
  const S = 3;
  const E = 4;
  const F = 5;
  const shapes = [
    [B, S, E],
    [3 * E, E],
    [3 * E],
    [E, E],
    [E],
    [F, E],
    [F],
    [E, F],
    [E],
    [E],
    [E],
    [E],
    [E],
  ];
  const values = shapes.map((shape, index) => ({
    shape,
    data: normal(
      index + 1,
      shape.reduce((product, size) => product * size, 1),
    ),
  }));
  const [x, inWeight, inBias, outWeight, outBias, weight1, bias1, weight2, bias2, ...norms] =
    values;
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

  const inputs: (Tensor | null)[] = await Promise.all(
    values.map(({ shape, data }) => put(shape, data)),
  );
  inputs.splice(1, 0, null);
  const op = "torch.nn.TransformerEncoderLayer";
  const attributes = { nhead: 2, norm_first: true, activation: "gelu", batch_first: true };
  const [output] = await outputsOf(op, inputs, attributes);
  for (const [index, value] of output.entries())
    expect(Math.abs(value - expected[index])).toBeLessThan(2e-5);
  const tanh = () => outputsOf(op, inputs, { nhead: 2, activation: "tanh" });
  await expectError(tanh, "argument", `${op}: activation must be relu or gelu, got tanh.`);
});
