// The kernel of layer and root mean square normalisation against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type LayerNormOptions,
  layerNorm,
  planLayerNorm,
  rmsNorm,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceLayerNormOptions,
  layerNorm as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

type Part = "residual" | "residualBias" | "weight" | "bias";

interface Case {
  readonly shape: readonly number[];
  readonly axis?: number;
  readonly epsilon?: number;
  readonly rms?: boolean;
  readonly dtype?: Float;
  /** Shapes of the tensors beside x. */
  readonly parts?: Readonly<Partial<Record<Part, readonly number[]>>>;
  /** Whether sum and statistics are asked for. */
  readonly more?: boolean;
  /** What is added to every element of x. */
  readonly far?: number;
  /** The order of the axes of the output in memory. */
  readonly order?: readonly number[];
}

async function run(
  device: GPUDevice,
  { shape, axis, epsilon, rms = false, dtype = "f32", ...rest }: Case,
) {
  const { parts = {}, more = false, far = 0, order = shape.map((_, i) => i) } = rest;
  const used: Tensor[] = [];
  const made = (seed: number, size: readonly number[], offset = 0) => {
    const data = normal(seed, product(size)).map((value) => ROUND[dtype](value + offset));
    used.push(tensor(device, size, { data, dtype }));
    return { gpu: used.at(-1) as Tensor, cpu: { data, shape: size } };
  };
  const x = made(1, shape, far);
  const beside = Object.entries(parts).map(([name, size], i) => [name, made(2 + i, size)] as const);
  const sizes = order.map((i) => shape[i]);
  const nan = new Float32Array(product(shape)).fill(Number.NaN);
  const output = tensor(device, sizes, { data: nan, dtype }).permute(
    ...shape.map((_, i) => order.indexOf(i)),
  );
  const shared = { ...(axis !== undefined && { axis }), ...(epsilon !== undefined && { epsilon }) };
  const options: LayerNormOptions = {
    ...shared,
    output,
    sum: more,
    statistics: more,
    ...Object.fromEntries(beside.map(([name, { gpu }]) => [name, gpu])),
  };
  const result = await (rms ? rmsNorm : layerNorm)(x.gpu, options);
  expect(result.output).toBe(output);
  const cpu: ReferenceLayerNormOptions = {
    ...shared,
    rms,
    ...Object.fromEntries(beside.map(([name, values]) => [name, values.cpu])),
  };
  const f64 = reference(x.cpu, cpu);
  const plain = reference(x.cpu, { ...cpu, precision: "f32" });
  const compare = async (name: keyof typeof f64, given: Tensor | undefined, stored: Float) => {
    const values = await (given as Tensor).read();
    expectClose(
      name,
      values,
      { f64: f64[name], plain: plain[name].map(ROUND[stored]) },
      [values.length],
      stored,
    );
  };
  await compare("output", output, dtype);
  if (more) {
    await compare("sum", result.sum, dtype);
    await compare("inverseDeviation", result.inverseDeviation, "f32");
    if (rms) expect(result.mean).toBeUndefined();
    else await compare("mean", result.mean, "f32");
    expect(result.inverseDeviation?.shape).toHaveLength(shape.length);
  }
  for (const one of [...used, ...Object.values(result)]) one.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(await testDevice(), one);
};
const SCALED = { parts: { weight: [64], bias: [64] } };

describe("layerNorm", () => {
  it("of short rows, with weight and bias", () =>
    all(
      { shape: [3, 64], ...SCALED },
      { shape: [2, 67, 64], ...SCALED, epsilon: 0.1 },
      { shape: [0, 64], ...SCALED },
    ));
  it("of rows of 32 lanes and of a workgroup", () =>
    all(
      { shape: [5, 768], parts: { weight: [768], bias: [768] } },
      { shape: [3, 4096], parts: { weight: [4096], bias: [4096] } },
      { shape: [1, 100_000], parts: { weight: [100_000], bias: [1] } },
    ));
  it("of rows of any length", () =>
    all({ shape: [3, 1] }, { shape: [5, 7] }, { shape: [70, 63] }, { shape: [1, 2] }));
  it("far from 0, where the mean square would cancel", () => all({ shape: [4, 63], far: 3000 }));
  it("over several axes", () =>
    all(
      { shape: [2, 3, 5, 4], axis: 1 },
      { shape: [2, 3, 5], axis: -2 },
      { shape: [3, 9], axis: 0 },
    ));
  it("of a sum, with what it found on the way", () =>
    all(
      {
        shape: [2, 5, 64],
        more: true,
        parts: { residual: [5, 64], residualBias: [64], weight: [64], bias: [64] },
      },
      {
        shape: [2, 5, 64],
        more: true,
        parts: { residual: [2, 5, 64], residualBias: [1], weight: [64], bias: [2, 1, 64] },
      },
    ));
  it("to another order of rows", () =>
    all({ shape: [3, 5, 64], order: [1, 0, 2], more: true, parts: { residual: [3, 5, 64] } }));
  it("in 16 bits", () =>
    all(
      { shape: [3, 64], dtype: "f16", ...SCALED },
      { shape: [3, 5], dtype: "bf16", parts: { weight: [5], residual: [5] }, more: true },
    ));
});

describe("rmsNorm", () => {
  it("of rows of any length", () =>
    all(
      { shape: [3, 64], rms: true, parts: { weight: [64] } },
      { shape: [2, 3, 64], rms: true, axis: 1, parts: { weight: [3, 64] } },
      { shape: [3, 7], rms: true, epsilon: 0.5, parts: { weight: [7] } },
      { shape: [2, 700], rms: true, parts: { weight: [700] } },
    ));
  it("of a sum, with what it found on the way", () =>
    all({ shape: [2, 3, 64], rms: true, more: true, parts: { residual: [3, 64], weight: [64] } }));
});

describe("plans of normalisations", () => {
  it("cover more rows than a dimension of a grid has workgroups", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { shape: [700, 64], ...SCALED });
  });
  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3, 4]);
    await expectError(
      () => layerNorm(x, { weight: tensor(device, [3]) }),
      "argument",
      "layerNorm: weight must broadcast to [2, 3, 4], got [3].",
    );
    await expectError(
      () => layerNorm(x, { axis: 1, weight: tensor(device, [4]) }),
      "argument",
      "layerNorm: the strides of x, weight, output leave 2 axes of a row of [3, 4], and a kernel takes one; copy them with copyTensor() first.",
    );
    await expectError(
      () => rmsNorm(x, { epsilon: -1 }),
      "argument",
      "rmsNorm: epsilon must be a finite number from 0 up, got -1.",
    );
    await expectError(
      () => planLayerNorm(device, { x, statistics: { shape: [2, 2, 3] } }),
      "argument",
      "layerNorm: statistics must be [2, 2, 3, 1] for mean and inverse deviation of each row of x, got [2, 2, 3].",
    );
    await expectError(
      () => layerNorm(x, { sum: tensor(device, [4]) }),
      "argument",
      "layerNorm: sum must be [2, 3, 4] like x, got [4].",
    );
  });
});
