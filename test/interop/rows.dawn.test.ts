// ONNX' operators of rows, in cases that no vector of another suite has, against the float64
// reference or numbers worked by hand.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import {
  BiasAdd,
  BiasSplitGelu,
  FastGelu,
  Gelu,
  LayerNormalization,
  LogSoftmax,
  MicrosoftGelu,
  RMSNormalization,
  SimplifiedLayerNormalization,
  SkipLayerNormalization,
  SkipSimplifiedLayerNormalization,
  Softmax,
} from "../../src/interop/onnx/index.ts";
import { layerNorm, pointwise, softmaxAlong } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

async function made(seed: number, shape: readonly number[], dtype: Float = "f32") {
  const data = normal(seed, product(shape)).map(ROUND[dtype]);
  return { gpu: tensor(await testDevice(), shape, { data, dtype }), cpu: { data, shape } };
}

async function compare(
  what: string,
  given: Tensor | undefined,
  reference: (precision: "f64" | "f32") => Float64Array,
  shape: readonly number[],
  dtype: Float = "f32",
): Promise<void> {
  expect(given?.shape, what).toEqual(shape);
  const both = { f64: reference("f64"), plain: reference("f32").map(ROUND[dtype]) };
  expectClose(what, await (given as Tensor).read(), both, shape, dtype);
  given?.destroy();
}

describe("Softmax and LogSoftmax", () => {
  it("take all axes from the axis on as one before opset 13", async () => {
    const { gpu, cpu } = await made(1, [2, 3, 4]);
    const flat = (rows: number) => ({ data: cpu.data, shape: [rows, 24 / rows] });
    for (const [axis, rows] of [
      [undefined, 2],
      [2, 6],
      [0, 1],
      [-1, 6],
      [3, 24],
    ] as const) {
      const attributes = axis === undefined ? {} : { axis };
      const [output] = await Softmax([gpu], attributes, { opset: 11 });
      await compare(
        `axis ${axis}`,
        output,
        (precision) => softmaxAlong(flat(rows), { precision }),
        [2, 3, 4],
      );
    }
    const turned = gpu.permute(2, 0, 1); // not in order: [4, 2, 3]
    const data = Array.from({ length: 24 }, (_, i) => cpu.data[(i % 6) * 4 + Math.floor(i / 6)]);
    const [output] = await LogSoftmax([turned], {}, { opset: 11 });
    const rows = { data, shape: [4, 6] };
    await compare(
      "turned",
      output,
      (precision) => softmaxAlong(rows, { log: true, precision }),
      [4, 2, 3],
    );
  });
  it("name an axis that there is not", async () => {
    const { gpu } = await made(1, [2, 3]);
    await expectError(
      () => Softmax([gpu], { axis: 2 }),
      "argument",
      "ai.onnx.Softmax: attribute axis must be from -2 up to 1 for input [2,3], got 2.",
    );
  });
});

describe("LayerNormalization and RMSNormalization", () => {
  it("broadcast Scale and B to rows of several axes", async () => {
    const X = await made(2, [2, 3, 4]);
    for (const [scale, bias] of [
      [[4], [3, 1]],
      [[1], [2, 1, 1]],
      [
        [3, 4],
        [2, 1, 4],
      ],
    ] as const) {
      const Scale = await made(3, scale);
      const B = await made(4, bias);
      const [Y] = await LayerNormalization([X.gpu, Scale.gpu, B.gpu], { axis: 1 });
      const options = { axis: 1, weight: Scale.cpu, bias: B.cpu };
      await compare(
        "Y",
        Y,
        (precision) => layerNorm(X.cpu, { ...options, precision }).output,
        [2, 3, 4],
      );
    }
    const scale = await made(5, [3, 1]);
    const [Y] = await RMSNormalization([X.gpu, scale.gpu], { axis: -2, epsilon: 0.5 });
    const options = { axis: 1, epsilon: 0.5, rms: true, weight: scale.cpu };
    await compare(
      "Y",
      Y,
      (precision) => layerNorm(X.cpu, { ...options, precision }).output,
      [2, 3, 4],
    );
  });
  it("give statistics that can be destroyed one by one, of inputs in any order", async () => {
    const { gpu, cpu } = await made(6, [4, 2, 3]);
    const X = {
      data: Array.from({ length: 24 }, (_, i) => cpu.data[(i % 4) * 6 + Math.floor(i / 4)]),
      shape: [2, 3, 4],
    };
    const weight = await made(7, [3, 4]);
    const inputs = [gpu.permute(1, 2, 0), weight.gpu];
    const [Y, Mean, InvStdDev] = await LayerNormalization(inputs, { axis: 1 }, { outputs: 3 });
    const found = (precision: "f64" | "f32") =>
      layerNorm(X, { axis: 1, weight: weight.cpu, precision });
    await compare("Y", Y, (precision) => found(precision).output, [2, 3, 4]);
    await compare("Mean", Mean, (precision) => found(precision).mean, [2, 1, 1]);
    await compare(
      "InvStdDev",
      InvStdDev,
      (precision) => found(precision).inverseDeviation,
      [2, 1, 1],
    );
  });
  it("give statistics of the type that is asked for, and refuse others and what does not broadcast", async () => {
    const { gpu, cpu } = await made(8, [2, 3]);
    for (const [stash_type, dtype] of [
      [1, "f32"],
      [10, "f16"],
      [16n, "bf16"],
    ] as const) {
      const [Y, Mean] = await LayerNormalization(
        [gpu, (await made(9, [1])).gpu],
        { stash_type },
        { outputs: 2 },
      );
      expect((Mean as Tensor).dtype).toBe(dtype);
      await compare("Mean", Mean, (precision) => layerNorm(cpu, { precision }).mean, [2, 1], dtype);
      Y?.destroy();
    }
    await expectError(
      () => LayerNormalization([gpu, gpu], { stash_type: 11 }),
      "argument",
      "ai.onnx.LayerNormalization: attribute stash_type must be 1 (float), 10 (float16) or 16 (bfloat16), got 11.",
    );
    await expectError(
      () => RMSNormalization([gpu, tensor(gpu.device, [2])], {}),
      "argument",
      "ai.onnx.RMSNormalization: scale must broadcast to [2,3], got [2].",
    );
  });
  it("SimplifiedLayerNormalization has the dtype of its scale, and the inverse root mean square", async () => {
    const X = await made(27, [2, 3, 4], "f16");
    const scale = await made(28, [3, 4]);
    const [Y, inverse] = await SimplifiedLayerNormalization(
      [X.gpu, scale.gpu],
      { axis: 1, epsilon: 0.25 },
      { outputs: 2 },
    );
    const options = { axis: 1, epsilon: 0.25, rms: true, weight: scale.cpu };
    const found = (precision: "f64" | "f32") => layerNorm(X.cpu, { ...options, precision });
    expect(Y?.dtype).toBe("f32");
    await compare("Y", Y, (precision) => found(precision).output, [2, 3, 4]);
    await compare(
      "inv_std_var",
      inverse,
      (precision) => found(precision).inverseDeviation,
      [2, 1, 1],
    );
  });
});

describe("SkipLayerNormalization and SkipSimplifiedLayerNormalization", () => {
  it("have the sum and its statistics as outputs", async () => {
    const input = await made(9, [2, 3, 8]);
    const skip = await made(10, [3, 8]);
    const gamma = await made(11, [8]);
    const beta = await made(12, [8]);
    const bias = await made(13, [8]);
    const inputs = [input, skip, gamma, beta, bias].map(({ gpu }) => gpu);
    const results = await SkipLayerNormalization(inputs, {}, { outputs: 4 });
    const shared = {
      residual: skip.cpu,
      residualBias: bias.cpu,
      weight: gamma.cpu,
      epsilon: 1e-12,
    };
    const names = ["output", "mean", "inverseDeviation", "sum"] as const;
    const shapes = [
      [2, 3, 8],
      [2, 3, 1],
      [2, 3, 1],
      [2, 3, 8],
    ];
    for (const [index, name] of names.entries()) {
      const found = (precision: "f64" | "f32") =>
        layerNorm(input.cpu, { ...shared, bias: beta.cpu, precision })[name];
      await compare(name, results[index], found, shapes[index]);
    }
    const rms = await SkipSimplifiedLayerNormalization(
      [input.gpu, skip.gpu, gamma.gpu, bias.gpu],
      { epsilon: 0.1 },
      { outputs: [true, false, true, true] },
    );
    for (const [index, name] of names.entries()) {
      if (name === "mean") expect(rms[index]).toBeUndefined();
      else {
        const options = { ...shared, rms: true, epsilon: 0.1 };
        const found = (precision: "f64" | "f32") =>
          layerNorm(input.cpu, { ...options, precision })[name];
        await compare(name, rms[index], found, shapes[index]);
      }
    }
  });
  it("name what is wrong", async () => {
    const device = await testDevice();
    const input = tensor(device, [2, 3, 8]);
    const gamma = tensor(device, [8]);
    const cases: [() => unknown, string][] = [
      [
        () => SkipLayerNormalization([input, tensor(device, [2, 1, 8]), gamma]),
        "com.microsoft.SkipLayerNormalization: skip must be like input [2,3,8], [1, S, C] or [S, C], got [2,1,8].",
      ],
      [
        () => SkipLayerNormalization([input, input, tensor(device, [1])]),
        "com.microsoft.SkipLayerNormalization: gamma must be [C] = [8], got [1].",
      ],
      [
        () => SkipSimplifiedLayerNormalization([input, input, gamma], {}, { outputs: 2 }),
        "com.microsoft.SkipSimplifiedLayerNormalization: output mean: a root mean square normalisation has none.",
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});

describe("the gelu family", () => {
  it("is that of the engine", async () => {
    const X = await made(14, [3, 5], "f16");
    for (const [output, activation] of [
      [(await Gelu([X.gpu]))[0], "gelu"],
      [(await MicrosoftGelu([X.gpu]))[0], "gelu"],
      [(await Gelu([X.gpu], { approximate: "tanh" }))[0], "gelu-tanh"],
    ] as const) {
      await compare(
        "Y",
        output,
        (precision) => pointwise(X.cpu, { activation, precision }),
        [3, 5],
        "f16",
      );
    }
    await expectError(
      () => Gelu([X.gpu], { approximate: "erf" }),
      "argument",
      'ai.onnx.Gelu: attribute approximate must be "none" or "tanh", got "erf".',
    );
  });
  it("repeats the bias of FastGelu along all elements", async () => {
    const X = await made(15, [3, 4]);
    for (const width of [4, 6, 5, 20, 1]) {
      const bias = await made(16, [width]);
      const repeated = {
        data: Array.from({ length: 12 }, (_, i) => bias.cpu.data[i % width]),
        shape: [3, 4],
      };
      const options = { activation: "gelu-tanh", bias: repeated } as const;
      const [Y] = await FastGelu([X.gpu, bias.gpu]);
      await compare(
        `bias [${width}]`,
        Y,
        (precision) => pointwise(X.cpu, { ...options, precision }),
        [3, 4],
      );
    }
  });
  it("has BiasAdd, whose shapes are checked", async () => {
    const X = await made(17, [2, 3, 4]);
    const skip = await made(18, [2, 3, 4]);
    const bias = await made(19, [4]);
    const [Y] = await BiasAdd([X.gpu, bias.gpu, skip.gpu]);
    const options = { bias: bias.cpu, residual: skip.cpu };
    await compare("Y", Y, (precision) => pointwise(X.cpu, { ...options, precision }), [2, 3, 4]);
    await expectError(
      () => BiasAdd([X.gpu, bias.gpu, bias.gpu]),
      "argument",
      "com.microsoft.BiasAdd: skip must be like X = [2,3,4], got [4].",
    );
  });
  it("has BiasSplitGelu: one half times the activation of the other", async () => {
    for (const dtype of ["f32", "f16"] as const) {
      const X = await made(29, [2, 3, 10], dtype);
      const bias = await made(30, [10], dtype);
      const [Y] = await BiasSplitGelu([X.gpu, bias.gpu]);
      const half = ({ data, shape }: typeof X.cpu, first: number) => ({
        data,
        shape: [...shape.slice(0, -1), 5],
        strides: shape.length > 1 ? [30, 10, 1] : [1],
        offset: first,
      });
      const found = (precision: "f64" | "f32") => {
        const left = {
          data: pointwise(half(X.cpu, 0), { bias: half(bias.cpu, 0), precision }),
          shape: [2, 3, 5],
        };
        const options = {
          activation: "gelu",
          bias: half(bias.cpu, 5),
          factor: left,
          precision,
        } as const;
        return pointwise(half(X.cpu, 5), options);
      };
      await compare(dtype, Y, found, [2, 3, 5], dtype);
    }
    const { gpu } = await made(31, [2, 3, 5]);
    await expectError(
      () => BiasSplitGelu([gpu, gpu]),
      "argument",
      "com.microsoft.BiasSplitGelu: X must be [N, S, C] with C even, got [2,3,5].",
    );
  });
});
