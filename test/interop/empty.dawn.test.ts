// Every operator with axes of no elements, in each place, gives the result of its definition, or an
// error that says what is missing.

import { afterEach, describe, expect, it } from "vitest";
import { type Dtype, type Tensor, tensor } from "../../src/index.ts";
import { type OnnxInput, operators } from "../../src/interop/onnx/index.ts";
import { operatorOf } from "../conformance/operators.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const device = await testDevice();
const made: Tensor[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
/** Makes a tensor of whatever numbers, or of one number. */
function t(shape: readonly number[], dtype: Dtype = "f32", value?: number): Tensor {
  const size = shape.reduce((product, one) => product * one, 1);
  made.push(
    tensor(device, shape, {
      dtype,
      data: Array.from({ length: size }, (_, i) => value ?? Math.sin(i + 1)),
    }),
  );
  return made[made.length - 1];
}
const i32 = (...shape: number[]) => t(shape, "i32", 0);

type Sizes = Readonly<Record<string, number>>;

/** An operator, its sizes, each of which is 0 in turn, and its inputs and outputs for them. */
interface Case {
  readonly op: string;
  readonly sizes: Sizes;
  /** Other sizes, which are never 0. */
  readonly fixed?: Sizes;
  readonly inputs: (sizes: Sizes) => readonly OnnxInput[];
  readonly attributes?: (sizes: Sizes) => object;
  readonly opset?: number;
  readonly outputs: (sizes: Sizes) => readonly (readonly number[])[];
}

const CASES: readonly Case[] = [
  {
    op: "ai.onnx.Attention",
    sizes: { B: 2, S: 3, E: 4 },
    fixed: { H: 2, L: 4, D: 8, P: 2 },
    inputs: ({ B, H, S, L, D, E, P }) => [
      t([B, H, S, D]),
      t([B, H, L, D]),
      t([B, H, L, E]),
      null,
      t([B, H, P, D]),
      t([B, H, P, E]),
    ],
    outputs: ({ B, H, S, L, D, E, P }) => [
      [B, H, S, E],
      [B, H, P + L, D],
      [B, H, P + L, E],
    ],
  },
  {
    op: "ai.onnx.Attention",
    sizes: { H: 2 },
    inputs: ({ H }) => [t([2, H, 3, 4]), t([2, H, 5, 4]), t([2, H, 5, 6])],
    outputs: ({ H }) => [
      [2, H, 3, 6],
      [2, H, 5, 4],
      [2, H, 5, 6],
      [2, H, 3, 5],
    ],
  },
  {
    op: "ai.onnx.preview.FlexAttention",
    sizes: { B: 2, H: 2, S: 3, E: 4 },
    inputs: ({ B, H, S, E }) => [t([B, H, S, 8]), t([B, H, 4, 8]), t([B, H, 4, E])],
    attributes: () => ({ prob_mod: { inputs: ["p"], outputs: ["p"], nodes: [] } }),
    outputs: ({ B, H, S, E }) => [[B, H, S, E]],
  },
  ...[1, 13].map((opset) => ({
    op: "ai.onnx.Softmax",
    sizes: { A: 2, B: 3, C: 4 },
    inputs: ({ A, B, C }: Sizes) => [t([A, B, C])],
    opset,
    outputs: ({ A, B, C }: Sizes) => [[A, B, C]],
  })),
  {
    op: "ai.onnx.LayerNormalization",
    sizes: { A: 2, B: 3, C: 4 },
    inputs: ({ A, B, C }) => [t([A, B, C]), t([B, C]), t([B, 1])],
    attributes: () => ({ axis: 1 }),
    outputs: ({ A, B, C }) => [[A, B, C]],
  },
  {
    op: "ai.onnx.SimplifiedLayerNormalization",
    sizes: { A: 2, C: 4 },
    inputs: ({ A, C }) => [t([A, C]), t([C])],
    outputs: ({ A, C }) => [[A, C]],
  },
  {
    op: "com.microsoft.SkipLayerNormalization",
    sizes: { B: 2, S: 3 },
    inputs: ({ B, S }) => [t([B, S, 4]), t([B, S, 4]), t([4]), t([4]), t([4])],
    outputs: ({ B, S }) => [
      [B, S, 4],
      [B, S, 1],
      [B, S, 1],
      [B, S, 4],
    ],
  },
  {
    op: "com.microsoft.FastGelu",
    sizes: { A: 2, C: 3 },
    inputs: ({ A, C }) => [t([A, C]), t([C])],
    outputs: ({ A, C }) => [[A, C]],
  },
  {
    op: "com.microsoft.BiasSplitGelu",
    sizes: { N: 2, S: 3, C: 2 },
    inputs: ({ N, S, C }) => [t([N, S, 2 * C]), t([2 * C])],
    outputs: ({ N, S, C }) => [[N, S, C]],
  },
  ...["ai.onnx", "com.microsoft"].map((domain) => ({
    op: `${domain}.LinearAttention`,
    sizes: { B: 2, D: 4, E: 5 },
    fixed: { T: 3, W: domain === "ai.onnx" ? 0 : 3 },
    inputs: ({ B, T, D, E, W }: Sizes) => [
      t([B, T, 2 * D]),
      t([B, T, D]),
      t([B, T, E]),
      t(W ? [W, B, 1, D, E] : [B, 1, D, E]),
      t([B, T, D]),
    ],
    attributes: ({ W }: Sizes) => ({
      q_num_heads: 2,
      kv_num_heads: 1,
      update_rule: "gated",
      ...(W && { state_window: W }),
    }),
    outputs: ({ B, T, D, E, W }: Sizes) => [[B, T, 2 * E], W ? [W, B, 1, D, E] : [B, 1, D, E]],
  })),
  {
    op: "ai.onnx.RotaryEmbedding",
    sizes: { B: 2, H: 2, S: 3, R: 2 },
    inputs: ({ B, H, S, R }) => [t([B, H, S, 2 * R]), t([B, S, R]), t([B, S, R])],
    outputs: ({ B, H, S, R }) => [[B, H, S, 2 * R]],
  },
  {
    op: "com.microsoft.RotaryEmbedding",
    sizes: { B: 2, S: 3, R: 2 },
    inputs: ({ B, S, R }) => [t([B, S, 4 * R]), [0], t([5, R]), t([5, R])],
    outputs: ({ B, S, R }) => [[B, S, 4 * R]],
  },
  {
    op: "com.microsoft.MRotaryEmbedding",
    sizes: { B: 2, S: 3, R: 3 },
    inputs: ({ B, S, R }) => [t([B, S, 4 * R]), i32(3, B, S), t([5, R]), t([5, R])],
    attributes: ({ R }) => ({ num_heads: 2, mrope_section: [R / 3, R / 3, R / 3] }),
    outputs: ({ B, S, R }) => [[B, S, 4 * R]],
  },
  {
    op: "com.microsoft.GatedRelativePositionBias",
    sizes: { B: 2, S: 3 },
    inputs: ({ B, S }) => [
      t([B, S, 8]),
      t([8]),
      t([1, 2, S, S]),
      t([4, 8]),
      t([8]),
      t([1, 2, 1, 1]),
    ],
    attributes: () => ({ num_heads: 2 }),
    outputs: ({ B, S }) => [[B, 2, S, S]],
  },
  {
    op: "com.microsoft.Attention",
    sizes: { B: 2, S: 3, D: 4 },
    fixed: { P: 2 },
    inputs: ({ B, S, D, P }) => [
      t([B, S, 4]),
      t([4, 6 * D]),
      t([6 * D]),
      i32(B, P + S),
      t([2, B, 2, P, D]),
    ],
    attributes: () => ({ num_heads: 2, do_rotary: 1 }),
    outputs: ({ B, S, D, P }) => [
      [B, S, 2 * D],
      [2, B, 2, P + S, D],
    ],
  },
  {
    op: "com.microsoft.MultiHeadAttention",
    sizes: { B: 2, S: 3, D: 4 },
    inputs: ({ B, S, D }) => [t([B, S, 2, 3, D]), null, null, t([6 * D]), i32(B)],
    attributes: () => ({ num_heads: 2 }),
    outputs: ({ B, S, D }) => [
      [B, S, 2 * D],
      [B, 2, S, D],
      [B, 2, S, D],
    ],
  },
  {
    op: "com.microsoft.GroupQueryAttention",
    sizes: { B: 2, S: 3 },
    inputs: ({ B, S }) => [
      t([B, S, 16]),
      null,
      null,
      null,
      null,
      new Array(B).fill(S - 1),
      S,
      t([5, 2]),
      t([5, 2]),
    ],
    attributes: () => ({ num_heads: 2, kv_num_heads: 1, do_rotary: 1 }),
    outputs: ({ B, S }) => [
      [B, S, 8],
      [B, 1, S, 4],
      [B, 1, S, 4],
    ],
  },
  {
    op: "com.microsoft.PackedAttention",
    sizes: { N: 4, D: 4 },
    inputs: ({ N, D }) => [t([N, 4]), t([4, 6 * D]), t([6 * D]), i32(2, 2), [0, Math.min(2, N), N]],
    attributes: () => ({ num_heads: 2 }),
    outputs: ({ N, D }) => [[N, 2 * D]],
  },
  {
    op: "com.microsoft.PackedMultiHeadAttention",
    sizes: { N: 4, D: 4 },
    inputs: ({ N, D }) => [t([N, 2, 3, D]), null, null, null, i32(2, 2), [0, Math.min(2, N), N]],
    attributes: () => ({ num_heads: 2 }),
    outputs: ({ N, D }) => [[N, 2 * D]],
  },
  {
    op: "com.microsoft.DecoderAttention",
    sizes: { S: 3, B: 2, D: 4 },
    inputs: ({ S, B, D }) => [
      t([S, B, 2 * D]),
      t([S, B, 2 * D]),
      t([2 * D, 2 * D]),
      t([2 * D, 4 * D]),
      t([6 * D]),
      null,
      null,
      null,
      [false],
      [false],
      [false],
      [false],
    ],
    attributes: () => ({ num_heads: 2 }),
    outputs: ({ S, B, D }) => [
      [S, B, 2 * D],
      [B, 2, S, D],
      [B, 2, S, D],
    ],
  },
  {
    op: "keras.Attention",
    sizes: { B: 2, M: 3, E: 6 },
    inputs: ({ B, M, E }) => [t([B, M, 5]), t([B, 4, 5]), t([B, 4, E]), null, t([B, 4], "u8", 1)],
    outputs: ({ B, M, E }) => [[B, M, E]],
  },
  {
    op: "keras.SinePositionEncoding",
    sizes: { M: 3, D: 4 },
    inputs: () => [],
    attributes: ({ M, D }) => ({ dim: D, positions: Array.from({ length: M }, (_, i) => i) }),
    outputs: ({ M, D }) => [[M, D]],
  },
  {
    op: "keras.AlibiBias",
    sizes: { H: 2, N: 4 },
    inputs: () => [],
    attributes: ({ H, N }) => ({ num_heads: H, query_length: 3, key_length: N }),
    outputs: ({ H, N }) => [[1, H, 3, N]],
  },
];

/** Runs an operator, whose outputs' shapes are compared. */
async function run(
  { op, inputs, attributes, opset, outputs }: Case,
  sizes: Sizes,
): Promise<(readonly number[])[]> {
  const shapes = outputs(sizes);
  const operator = operatorOf(op) as NonNullable<ReturnType<typeof operatorOf>>;
  const options = { device, outputs: shapes.map(() => true), ...(opset && { opset }) };
  const all = (await operator(
    inputs(sizes) as never,
    attributes?.(sizes) ?? {},
    options,
  )) as Tensor[];
  const results = all.slice(0, shapes.length);
  made.push(...results);
  expect(results.map(({ shape }) => shape)).toEqual(shapes);
  return Promise.all(results.map(async (result) => Array.from(await result.read())));
}

describe("an axis of no elements", () => {
  it.each(CASES.map((one) => [one.op, one] as const))("in %s", async (_, one) => {
    for (const empty of Object.keys(one.sizes)) {
      const results = await run(one, { ...one.sizes, ...one.fixed, [empty]: 0 });
      for (const values of results)
        expect(values.every(Number.isFinite), `${empty} = 0`).toBe(true);
    }
  });

  it("of channels makes all scores 0, so that every query gets the mean of the values", async () => {
    const V = t([1, 1, 3, 4]);
    const [Y] = await operators["ai.onnx"].Attention([t([1, 1, 2, 0]), t([1, 1, 3, 0]), V], {
      scale: 7,
    });
    made.push(Y as Tensor);
    const v = await V.read();
    const mean = [0, 1, 2, 3].map((d) => (v[d] + v[4 + d] + v[8 + d]) / 3);
    const values = await (Y as Tensor).read();
    for (const [i, value] of [...mean, ...mean].entries())
      expect(Math.abs(values[i] - value)).toBeLessThan(1e-6);
  });

  it("is refused if nothing is defined", async () => {
    const { LayerNormalization, Softmax, Attention } = operators["ai.onnx"];
    const { FastGelu } = operators["com.microsoft"];
    const cases: [() => unknown, string | RegExp][] = [
      [
        () => LayerNormalization([t([2, 0]), t([0])], {}, { outputs: 2 }),
        /have no mean and no deviation/,
      ],
      [
        () => Softmax([t([])]),
        "ai.onnx.Softmax: input must have one axis or more, got a scalar, [].",
      ],
      [
        () => LayerNormalization([t([]), t([])]),
        "ai.onnx.LayerNormalization: X must have one axis or more, got a scalar, [].",
      ],
      [
        () => Attention([t([1, 2, 3, 4]), t([1, 0, 3, 4]), t([1, 0, 3, 4])]),
        "ai.onnx.Attention: the 2 heads of Q must be a multiple of the 0 of K and V.",
      ],
      [
        () => FastGelu([t([2]), t([0])]),
        "com.microsoft.FastGelu: bias must have one element or more for X [2], got [0].",
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});

it("FastGelu takes a scalar, with a bias and without", async () => {
  const { FastGelu } = operators["com.microsoft"];
  const gelu = (x: number) =>
    0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  for (const [bias, expected] of [
    [undefined, gelu(Math.sin(1))],
    [t([1]), gelu(2 * Math.sin(1))],
    [t([3]), gelu(2 * Math.sin(1))],
  ] as const) {
    const [Y] = await FastGelu([t([]), bias]);
    made.push(Y as Tensor);
    expect((Y as Tensor).shape).toEqual([]);
    expect(Math.abs((await (Y as Tensor).read())[0] - expected)).toBeLessThan(1e-6);
  }
});
