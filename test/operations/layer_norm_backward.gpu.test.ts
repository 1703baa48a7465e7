// The gradients of layer and root mean square normalisation against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type LayerNormBackwardOptions,
  type LayerNormGradients,
  layerNormBackward,
  planLayerNormBackward,
  rmsNormBackward,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceLayerNormBackwardOptions,
  layerNormBackward as reference,
} from "../../src/reference/index.ts";
import type { Float } from "../support/cases.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

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
  readonly gradients?: LayerNormBackwardOptions["gradients"];
  /** Whether the sum has a gradient, too. */
  readonly dSum?: boolean;
  /** How x, and the gradient of the output, are made. */
  readonly x?: Made;
  readonly dOutput?: Made;
  /** How dX lies in memory. */
  readonly dX?: Made;
}

const GRADIENT_OF = {
  x: "dX",
  residual: "dResidual",
  residualBias: "dResidualBias",
  weight: "dWeight",
  bias: "dBias",
} as const;

async function run(device: GPUDevice, one: Case): Promise<void> {
  const { shape, axis, epsilon, rms = false, dtype = "f32", parts = {}, gradients } = one;
  const tensors = new GradientTensors(device);
  const x = tensors.make(1, shape, { dtype, ...one.x });
  const dOutput = tensors.make(2, shape, { dtype, ...one.dOutput });
  const dSum = one.dSum ? tensors.make(3, shape, { dtype }) : undefined;
  const beside = Object.entries(parts).map(([name, size], index) => {
    const spread = name.startsWith("residual") ? (one.x?.spread ?? 1) : 1;
    return [name, tensors.make(4 + index, size, { dtype, spread })] as const;
  });
  const shared = {
    ...(axis !== undefined && { axis }),
    ...(epsilon !== undefined && { epsilon }),
  };
  const asked = gradients ?? ["dX", ...beside.map(([name]) => GRADIENT_OF[name as Part])];
  const into = Object.fromEntries(
    [["x", shape] as const, ...Object.entries(parts)]
      .map(([name, size]) => [GRADIENT_OF[name as Part | "x"], size] as const)
      .filter(([name]) => (asked as readonly string[]).includes(name))
      .map(([name, size]) => [
        name,
        tensors.poisoned(size, { dtype, ...(name === "dX" && one.dX) }),
      ]),
  );
  const results = await (rms ? rmsNormBackward : layerNormBackward)(x.gpu, dOutput.gpu, {
    ...shared,
    ...(gradients && { gradients }),
    ...(dSum && { dSum: dSum.gpu }),
    ...Object.fromEntries(beside.map(([name, { gpu }]) => [name, gpu])),
    ...into,
  });
  const present = Object.entries(results).filter(([, result]) => result);
  expect(present.map(([name]) => name).sort()).toEqual(Object.keys(into).sort());
  for (const [name, result] of present) expect(result === into[name], name).toBe(true);
  const options: ReferenceLayerNormBackwardOptions = {
    ...shared,
    rms,
    dOutput: dOutput.cpu.data,
    dSum: dSum?.cpu.data,
    ...Object.fromEntries(beside.map(([name, { cpu }]) => [name, cpu])),
  };
  const f64 = reference(x.cpu, options);
  const plain = reference(x.cpu, { ...options, precision: "f32" });
  await expectGradientsClose({ ...results }, f64, plain);
  tensors.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(await testDevice(), one);
};
const BOTH = { parts: { weight: [64], bias: [64] } };

describe("layerNormBackward", () => {
  it("of short rows, with weight and bias", () =>
    all(
      { shape: [3, 64], ...BOTH },
      { shape: [2, 67, 64], ...BOTH, epsilon: 0.1 },
      { shape: [600, 8], parts: { weight: [8], bias: [8] } },
    ));
  it("of rows of 32 lanes and of a workgroup", () =>
    all(
      { shape: [5, 768], parts: { weight: [768], bias: [768] } },
      { shape: [2, 4096], parts: { weight: [4096], bias: [4096] }, gradients: ["dX"] },
    ));
  it("of rows of any length", () =>
    all({ shape: [3, 1] }, { shape: [5, 7] }, { shape: [70, 63] }, { shape: [1, 2] }));
  it("of rows of any mean and magnitude", () =>
    all(
      { shape: [4, 63], x: { mean: 3000 } },
      { shape: [4, 64], ...BOTH, x: { spread: 1e-20 }, epsilon: 0, dOutput: { spread: 1e-10 } },
      { shape: [4, 64], ...BOTH, x: { spread: 1e25 }, dOutput: { spread: 1e10 } },
    ));
  it("over several axes", () =>
    all({ shape: [2, 3, 5, 4], axis: 1, parts: { weight: [3, 5, 4], bias: [3, 5, 4] } }));
  it("of a sum that goes on", () =>
    all(
      {
        shape: [2, 5, 64],
        dSum: true,
        parts: { residual: [5, 64], residualBias: [64], weight: [64], bias: [64] },
      },
      { shape: [2, 5, 64], parts: { residual: [2, 5, 64], residualBias: [5, 1] } },
    ));
  it("of those gradients that are asked for", () =>
    all(
      { shape: [3, 64], ...BOTH, gradients: ["dX"] },
      { shape: [3, 64], ...BOTH, gradients: ["dWeight"] },
      { shape: [300, 64], parts: { bias: [1] }, gradients: ["dBias"] },
    ));
  it("at strides", () =>
    all({ shape: [3, 5, 64], ...BOTH, dX: { order: [1, 0, 2], gap: 3 }, dOutput: { gap: 3 } }));
  it("in 16 bits", () =>
    all(
      { shape: [3, 64], dtype: "f16", ...BOTH },
      { shape: [3, 5], dtype: "bf16", parts: { weight: [5] }, gradients: ["dWeight"] },
    ));
  it("of no rows, whose sums are 0", () =>
    all(
      { shape: [0, 64], parts: { weight: [64], bias: [1] } },
      { shape: [2, 0], parts: { residual: [2, 1] } },
    ));
});

describe("rmsNormBackward", () => {
  it("of rows of any magnitude", () =>
    all(
      { shape: [3, 64], rms: true, parts: { weight: [64] } },
      { shape: [2, 3, 64], rms: true, axis: 1, epsilon: 0.5, parts: { weight: [3, 64] } },
      { shape: [6, 64], rms: true, x: { spread: 1e-24 }, epsilon: 0, parts: { weight: [64] } },
      {
        shape: [6, 64],
        rms: true,
        parts: { weight: [64] },
        x: { spread: 1e30 },
        dOutput: { spread: 1e30 },
      },
    ));
});

describe("plans of gradients of normalisations", () => {
  it("cover more rows than a dimension of a grid has workgroups", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { shape: [700, 64], ...BOTH });
  });

  it("have the same bits again", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const x = tensors.make(1, [600, 64]).gpu;
    const dOutput = tensors.make(2, [600, 64]).gpu;
    const weight = tensors.make(3, [64]).gpu;
    const bits = async () => {
      const results = await layerNormBackward(x, dOutput, { weight, bias: weight });
      const { dX, dWeight } = results as Required<LayerNormGradients>;
      const values = [await dX.read(), await dWeight.read()];
      for (const one of Object.values(results)) one?.destroy();
      return values;
    };
    expect(await bits()).toEqual(await bits());
    tensors.destroy();
  });

  it("rows without deviation and epsilon pass the gradient of the sum on, and nothing else", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const x = tensors.of(new Float32Array(128).fill(7), [2, 64]).gpu;
    const dOutput = tensors.make(2, [2, 64]).gpu;
    const dSum = tensors.make(3, [2, 64]);
    const given = { epsilon: 0, dSum: dSum.gpu };
    const { dX } = await layerNormBackward(x, dOutput, given);
    expect(await dX?.read()).toEqual(dSum.cpu.data);
    dX?.destroy();
    tensors.destroy();
  });

  it("a NaN stays in its row, and shows in the sums over rows", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const x = tensors.make(1, [3, 64]);
    x.cpu.data[64 + 5] = Number.NaN;
    const given = tensors.of(x.cpu.data, [3, 64]).gpu;
    const dOutput = tensors.make(2, [3, 64]).gpu;
    const weight = tensors.make(3, [64]).gpu;
    const options = { weight, bias: weight };
    const { dX, dWeight, dBias } = await layerNormBackward(given, dOutput, options);
    const rows = Array.from((await dX?.read()) ?? [], Number.isNaN);
    expect(rows).toEqual(Array.from({ length: 192 }, (_, at) => at >= 64 && at < 128));
    expect(Array.from((await dWeight?.read()) ?? []).every(Number.isNaN)).toBe(true);
    for (const one of [dX, dWeight, dBias]) one?.destroy();
    tensors.destroy();
  });

  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3, 4]);
    const weight = tensor(device, [4]);
    await expectError(
      () => layerNormBackward(x, x, { gradients: ["dWeight"] }),
      "argument",
      "layerNormBackward: dWeight is the gradient of a tensor that was not given. Gradients: dX.",
    );
    await expectError(
      () => rmsNormBackward(x, x, { weight, gradients: ["weight" as "dWeight"] }),
      "argument",
      'rmsNormBackward: there is no gradient "weight". Gradients: dX, dWeight.',
    );
    await expectError(
      () => layerNormBackward(x, x, { gradients: [] }),
      "argument",
      "layerNormBackward: gradients must be a list of one or more of dX, got [].",
    );
    await expectError(
      () => layerNormBackward(x, weight),
      "argument",
      "layerNormBackward: dOutput must be [2, 3, 4] like x, got [4].",
    );
    await expectError(
      () => planLayerNormBackward(device, { x, dOutput: x, weight, dWeight: { shape: [3] } }),
      "argument",
      "layerNormBackward: dWeight must be [4] like weight, got [3].",
    );
    for (const one of [x, weight]) one.destroy();
  });
});
