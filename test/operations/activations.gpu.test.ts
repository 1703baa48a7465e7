// Activations and the gradients of pointwise operations against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type Activation,
  type ActivationGradient,
  activate,
  activationBackward,
  planActivationBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  pointwise,
  pointwiseBackward,
  type ReferencePointwiseOptions,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const ACTIVATIONS = ["gelu", "gelu-tanh", "relu", "silu", "sigmoid", "tanh"] as const;
const FAR = [-3e38, -1e30, -130, -90, -60, -14, -9.5, -5, -3.2, -1e-6, -1e-30];
const POINTS = [0, ...FAR, ...FAR.map((x) => -x)];

const made = (seed: number, shape: readonly number[], dtype: Float = "f32", spread = 1) => ({
  data: normal(seed, product(shape), spread).map(ROUND[dtype]),
  shape,
  dtype,
});

/** The numbers by their magnitude: a bound by the largest of all would say nothing of the others. */
function byMagnitude(values: ArrayLike<number>): number[][] {
  const places = [...Array.from(values).keys()];
  return [
    [0, 0.3],
    [0.3, 2],
    [2, 7],
    [7, 4e38],
  ].map(([least, most]) =>
    places.filter((i) => least <= Math.abs(values[i]) && Math.abs(values[i]) < most),
  );
}

describe("activations", () => {
  const data = Float32Array.from([...normal(1, 69, 3), ...POINTS]);
  const shape = [4, 23];

  it.each(ACTIVATIONS)("%s of any numbers, and its slope", async (activation) => {
    const device = await testDevice();
    const dOutput = made(2, shape);
    const x = tensor(device, shape, { data });
    const dy = tensor(device, shape, { data: dOutput.data });
    const { output } = await activate(x, { activation });
    const { dX } = await activationBackward(x, dy, { activation });
    const results = [await output.read(), await dX.read()];
    for (const places of byMagnitude(data)) {
      const pick = (values: ArrayLike<number>) => places.map((i) => values[i]);
      const some = { data: pick(data), shape: [places.length] };
      const of = (precision: "f64" | "f32") => [
        pointwise(some, { activation, precision }),
        pointwiseBackward(some, { activation, precision, dOutput: pick(dOutput.data) }).dX,
      ];
      const f64 = of("f64");
      const plain = of("f32");
      for (const index of [0, 1]) {
        const right = {
          f64: f64[index],
          plain: plain[index].map((y, i) => (Number.isNaN(y) ? f64[index][i] : y)),
        };
        expectClose(
          `${index ? "slope" : "value"} of ${activation}`,
          pick(results[index]),
          right,
          some.shape,
        );
      }
    }
    for (const one of [x, dy, output, dX]) one.destroy();
  });

  it.each(ACTIVATIONS)("%s keeps NaN, and ends at infinity", async (activation) => {
    const device = await testDevice();
    const ends = [Number.NaN, Number.POSITIVE_INFINITY];
    const x = tensor(device, [2], { data: ends });
    const dy = tensor(device, [2], { data: [1, 1] });
    const { output } = await activate(x, { activation });
    const { dX } = await activationBackward(x, dy, { activation });
    const bounded = activation === "sigmoid" || activation === "tanh";
    expect([...(await output.read())]).toEqual([
      Number.NaN,
      bounded ? 1 : Number.POSITIVE_INFINITY,
    ]);
    expect([...(await dX.read())]).toEqual([Number.NaN, bounded ? 0 : 1]);
    for (const one of [x, dy, output, dX]) one.destroy();
  });

  it("ReLU has the slope 0 at 0", async () => {
    const device = await testDevice();
    const x = tensor(device, [4], { data: [0, -0, 1e-37, -1e-37] });
    const dy = tensor(device, [4], { data: [3, 3, 3, 3] });
    const { dX } = await activationBackward(x, dy, { activation: "relu" });
    expect(Array.from(await dX.read(), (value) => value + 0)).toEqual([0, 0, 3, 0]);
    for (const one of [x, dy, dX]) one.destroy();
  });
});

interface Case {
  readonly shape: readonly number[];
  readonly activation?: Activation;
  readonly bias?: readonly number[];
  readonly residual?: readonly number[];
  readonly factor?: readonly number[];
  readonly gradients?: readonly ActivationGradient[];
  /** Of x and dX, and of all others. */
  readonly dtypes?: readonly [Float, Float];
  /** Whether x, dOutput and the gradients are stored with the axes in the other order. */
  readonly turned?: boolean;
}

/** Runs a problem into poisoned gradients and compares them. */
async function run(problem: Case): Promise<void> {
  const device = await testDevice();
  const { shape, activation, dtypes = ["f32", "f32"], turned = false } = problem;
  const used: Tensor[] = [];
  const put = async ({ data, shape, dtype }: ReturnType<typeof made>, order = false) => {
    const stored = order ? [...shape].reverse() : shape;
    const whole = tensor(device, stored, { dtype });
    used.push(whole);
    const view = order ? whole.permute(...[...shape.keys()].reverse()) : whole;
    await view.write(data);
    return view;
  };
  const poison = (dtype: Float) => ({
    data: new Float32Array(product(shape)).fill(Number.NaN),
    shape,
    dtype,
  });
  const optional = (name: "bias" | "residual" | "factor", seed: number) => {
    const size = problem[name];
    return size && { [name]: made(seed, size, dtypes[1]) };
  };
  const others: Record<string, ReturnType<typeof made>> = {
    ...optional("bias", 11),
    ...optional("residual", 12),
    ...optional("factor", 13),
  };
  const x = made(14, shape, dtypes[0]);
  const dOutput = made(15, shape, dtypes[1]);
  const names = problem.gradients ?? (problem.factor ? ["dX", "dFactor"] : ["dX"]);
  try {
    const types = { dX: dtypes[0], dFactor: dtypes[1] } as const;
    const into: Record<string, Tensor> = {};
    for (const name of names as ActivationGradient[])
      into[name] = await put(poison(types[name]), turned);
    const given: Record<string, Tensor> = {};
    for (const [name, one] of Object.entries(others)) given[name] = await put(one);
    const results = await activationBackward(await put(x, turned), await put(dOutput, turned), {
      ...given,
      ...into,
      ...(activation && { activation }),
      ...(problem.gradients && { gradients: problem.gradients }),
    } as { factor: Tensor });
    const options = {
      ...(others as ReferencePointwiseOptions),
      activation,
      dOutput: dOutput.data,
      shape,
    };
    const f64 = pointwiseBackward(x, options);
    const plain = pointwiseBackward(x, { ...options, precision: "f32" });
    expect(Object.keys(results).sort()).toEqual([...names].sort());
    for (const name of names as ActivationGradient[]) {
      const right = { f64: f64[name], plain: plain[name].map(ROUND[types[name]]) };
      const what = `${name} of ${JSON.stringify(problem)}`;
      expectClose(what, await results[name].read(), right, shape, types[name]);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

describe("gradients of activation(x + bias + residual) * factor", () => {
  it("of sums, with a factor", async () => {
    const parts = { bias: [9], residual: [3, 9], factor: [2, 3, 9] };
    await run({ shape: [2, 3, 9], activation: "silu", ...parts });
    await run({ shape: [2, 3, 9], ...parts });
  });
  it("of one at a time", async () => {
    const factor = [2, 12];
    await run({ shape: [2, 12], activation: "silu", factor, gradients: ["dX"] });
    await run({ shape: [2, 12], activation: "silu", factor, gradients: ["dFactor"] });
  });
  it("in 16 bits, at other strides", async () => {
    const shape = [3, 5, 6];
    await run({ shape, activation: "gelu", factor: shape, dtypes: ["f16", "bf16"], turned: true });
  });
  it("of the halves of a row, as SwiGLU has them", async () => {
    const device = await testDevice();
    const { data } = made(21, [5, 16]);
    const dOutput = made(22, [5, 8]);
    const x = tensor(device, [5, 16], { data });
    const dx = tensor(device, [5, 16], { data: new Float32Array(80).fill(Number.NaN) });
    const dy = tensor(device, [5, 8], { data: dOutput.data });
    await activationBackward(x.slice(1, 0, 8), dy, {
      activation: "silu",
      factor: x.slice(1, 8, 16),
      gradients: ["dX"],
      dX: dx.slice(1, 0, 8),
    });
    await activationBackward(x.slice(1, 0, 8), dy, {
      activation: "silu",
      factor: x.slice(1, 8, 16),
      gradients: ["dFactor"],
      dFactor: dx.slice(1, 8, 16),
    });
    const half = (offset: number) => ({ data, shape: [5, 8], strides: [16, 1], offset });
    const options = { activation: "silu", factor: half(8), dOutput: dOutput.data } as const;
    const joined = (precision: "f64" | "f32") => {
      const { dX, dFactor } = pointwiseBackward(half(0), { ...options, precision });
      return Float64Array.from({ length: 80 }, (_, i) => {
        const row = Math.floor(i / 16);
        return i % 16 < 8 ? dX[8 * row + (i % 16)] : dFactor[8 * row + (i % 16) - 8];
      });
    };
    const right = { f64: joined("f64"), plain: joined("f32") };
    expectClose("dx", await dx.read(), right, [5, 16]);
    for (const one of [x, dx, dy]) one.destroy();
  });
  it("of nothing are nothing", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 0]);
    const { dX } = await activationBackward(x, x, { activation: "relu" });
    expect(await dX.read()).toEqual(new Float32Array(0));
  });
});

describe("errors of a pointwise operation's gradients", () => {
  it("name what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3]);
    const other = tensor(device, [2, 4]);
    await expectError(
      () => activationBackward(x, other),
      "argument",
      "activationBackward: x must broadcast to [2, 4], got [2, 3].",
    );
    await expectError(
      () => activationBackward(x, x, { gradients: ["dFactor" as "dX"] }),
      "argument",
      "activationBackward: dFactor is the gradient of a tensor that was not given. Gradients: dX.",
    );
    await expectError(
      () => activationBackward(x, x, { dX: other }),
      "argument",
      "activationBackward: dX must be [2, 3] as dOutput, got [2, 4].",
    );
    await expectError(
      () => planActivationBackward(device, { x, dOutput: x, activation: "elu" as "gelu" }),
      "argument",
      'activationBackward: activation must be one of gelu, gelu-tanh, relu, silu, sigmoid, tanh, got "elu".',
    );
    await expectError(
      () => activationBackward(x, x, { dX: x }),
      "overlap",
      /^activationBackward: dX and x are in the same GPUBuffer/,
    );
    for (const one of [x, other]) one.destroy();
  });
});
