// The gradients of position biases against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  gatedPositionBiasBackward,
  planPositionBiasBackward,
  relativePositionBiasBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { positionBiasBackward as reference } from "../../src/reference/index.ts";
import type { Float } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

failOnGpuErrors();

interface Relative {
  readonly buckets: number;
  /** [B, H, M, N] */
  readonly shape: readonly number[];
  readonly bidirectional?: boolean;
  readonly queryOffset?: number;
  readonly dtype?: Float;
  readonly made?: Made;
}

async function relative({ buckets, shape, dtype = "f32", made, ...options }: Relative) {
  const tensors = new GradientTensors(await testDevice());
  const table = tensors.make(1, [buckets, shape[1]], { dtype });
  const dOutput = tensors.make(2, shape, { dtype, ...made });
  const dTable = tensors.poisoned([buckets, shape[1]], { dtype });
  const given = { ...options, maxDistance: 16, dTable };
  const results = await relativePositionBiasBackward(table.gpu, dOutput.gpu, given);
  expect(results.dTable === dTable).toBe(true);
  const cpu = { ...options, maxDistance: 16, table: table.cpu };
  const f64 = reference(shape, dOutput.cpu.data, cpu);
  const plain = reference(shape, dOutput.cpu.data, { ...cpu, precision: "f32" });
  await expectGradientsClose(results, f64, plain);
  tensors.destroy();
}

interface Gated {
  readonly shape: readonly number[];
  /** Shapes of the bias and of the gates. */
  readonly bias: readonly number[];
  readonly update?: readonly number[];
  readonly dtype?: Float;
  readonly made?: Made;
  /** Whether the bias alone gets a gradient. */
  readonly only?: boolean;
}

async function gated({ shape, dtype = "f32", made, only, ...shapes }: Gated) {
  const tensors = new GradientTensors(await testDevice());
  const [B, H, M] = shape;
  const { update = [B, H, M, 1] } = shapes;
  const bias = tensors.make(1, shapes.bias, { dtype, ...made });
  const dOutput = tensors.make(2, shape, { dtype, ...made });
  const gates = {
    update: tensors.make(3, update, { dtype, spread: 3 }),
    reset: tensors.make(4, [B, H, M, 1], { dtype, spread: 3 }),
    scale: tensors.make(5, [H, 1, 1], { dtype }),
  };
  const ofGates = {
    dUpdate: tensors.poisoned(update, { dtype }),
    dReset: tensors.poisoned([B, H, M, 1], { dtype }),
    dScale: tensors.poisoned([H, 1, 1], { dtype }),
  };
  const dBias = tensors.poisoned(shapes.bias, { dtype });
  const into: Readonly<Record<string, Tensor>> = { dBias, ...(only ? {} : ofGates) };
  const { update: u, reset: r, scale: w } = gates;
  const results = await gatedPositionBiasBackward(bias.gpu, dOutput.gpu, {
    update: u.gpu,
    reset: r.gpu,
    scale: w.gpu,
    ...into,
    ...(only && { gradients: ["dBias"] }),
  });
  const present = Object.entries(results);
  expect(present.every(([name, result]) => result === into[name])).toBe(true);
  const cpu = { bias: bias.cpu, gates: { update: u.cpu, reset: r.cpu, scale: w.cpu } };
  const f64 = reference(shape, dOutput.cpu.data, cpu);
  const plain = reference(shape, dOutput.cpu.data, { ...cpu, precision: "f32" });
  await expectGradientsClose(into, f64, plain);
  tensors.destroy();
}

describe("relativePositionBiasBackward", () => {
  it("sums the places of each bucket", async () => {
    await relative({ buckets: 8, shape: [1, 2, 5, 7] });
    await relative({ buckets: 8, shape: [3, 2, 40, 30], bidirectional: false, queryOffset: 4 });
    await relative({ buckets: 8, shape: [2, 3, 1, 9], made: { spread: 1e20 } });
    await relative({ buckets: 8, shape: [2, 3, 9, 1], made: { spread: 1e-20 } });
    await relative({ buckets: 8, shape: [0, 3, 9, 1] });
    await relative({ buckets: 8, shape: [1, 3, 4, 6], dtype: "bf16" });
  });
});

describe("gatedPositionBiasBackward", () => {
  it("of a bias of all entries, and of gates", async () => {
    await gated({ shape: [2, 3, 5, 8], bias: [1, 3, 5, 8] });
    await gated({ shape: [2, 3, 5, 8], bias: [1, 3, 5, 8], made: { spread: 1e15 } });
    await gated({ shape: [2, 3, 5, 8], bias: [2, 3, 5, 8], made: { spread: 1e-15 } });
    await gated({ shape: [0, 3, 5, 8], bias: [1, 3, 5, 8] });
  });
  it("of gates that are broadcast, and of a bias in 16 bits", async () => {
    await gated({ shape: [2, 3, 5, 8], bias: [1, 3, 1, 8], update: [3, 1, 1] });
    await gated({ shape: [2, 3, 5, 8], bias: [1, 3, 5, 8], dtype: "f16", only: true });
  });
});

describe("plans of gradients of position biases", () => {
  it("have a table with gates, and a bias without", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const shape = [2, 3, 5, 7];
    const table = tensors.make(1, [8, 3]);
    const dOutput = tensors.make(2, shape);
    const update = tensors.make(3, [2, 3, 5, 1]);
    const reset = tensors.make(4, [2, 3, 5, 1]);
    const scale = tensors.make(5, [3, 1, 1]);
    const into = {
      dTable: tensors.poisoned([8, 3]),
      dUpdate: tensors.poisoned([2, 3, 5, 1]),
      dScale: tensors.poisoned([3, 1, 1]),
    };
    const plan = await planPositionBiasBackward(device, {
      table: table.gpu,
      dOutput: dOutput.gpu,
      update: update.gpu,
      reset: reset.gpu,
      scale: scale.gpu,
      gradients: ["dTable", "dUpdate", "dScale"],
      ...into,
    });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    const gates = { update: update.cpu, reset: reset.cpu, scale: scale.cpu };
    const cpu = { table: table.cpu, gates };
    const f64 = reference(shape, dOutput.cpu.data, cpu);
    const plain = reference(shape, dOutput.cpu.data, { ...cpu, precision: "f32" });
    await expectGradientsClose(into, f64, plain);
    plan.destroy();

    const bias = tensors.make(6, [1, 3, 5, 7]);
    const dBias = tensors.poisoned([1, 3, 5, 7]);
    const plainPlan = await planPositionBiasBackward(device, {
      bias: bias.gpu,
      dOutput: dOutput.gpu,
      dBias,
    });
    const next = device.createCommandEncoder();
    plainPlan.encode(next);
    device.queue.submit([next.finish()]);
    const right = reference(shape, dOutput.cpu.data, { bias: bias.cpu });
    await expectGradientsClose({ dBias }, right, right);
    plainPlan.destroy();
    tensors.destroy();
  });

  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const table = tensor(device, [8, 3]);
    const dOutput = tensor(device, [1, 3, 2, 2]);
    await expectError(
      () => planPositionBiasBackward(device, { table, dOutput, gradients: ["dBias"] }),
      "argument",
      "positionBiasBackward: dBias is the gradient of a tensor that was not given. Gradients: dTable.",
    );
    await expectError(
      () => relativePositionBiasBackward(table, table),
      "argument",
      "relativePositionBiasBackward: dOutput must have the four axes BHMN, got shape [8, 3].",
    );
    for (const one of [table, dOutput]) one.destroy();
  });
});
