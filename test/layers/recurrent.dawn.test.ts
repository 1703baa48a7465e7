// LSTM and GRU on the GPU with their gradients, against the float64 reference, and as users meet
// them: plans, what is kept, and what is refused.

import { describe, expect, it } from "vitest";
import {
  gru,
  gruBackward,
  lstm,
  lstmBackward,
  planGruBackward,
  planLstm,
  type RecurrentWeights,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";
import { type RecurrentCase, recurrentShapes, runRecurrentCase } from "../support/recurrent.ts";

failOnGpuErrors();

const BOTH = ["lstm", "gru"] as const;

const CASES: Readonly<Record<string, Omit<RecurrentCase, "cell">>> = {
  "one step of one unit": { B: 1, T: 1, I: 1, H: 1, starts: true },
  "a few units, all options off": { B: 2, T: 5, I: 3, H: 8, biases: "none" },
  "units that fill no vec4": { B: 5, T: 6, I: 5, H: 7, starts: true },
  "two layers in both directions, lengths": {
    B: 3,
    T: 6,
    I: 4,
    H: 5,
    layers: 2,
    bidirectional: true,
    starts: true,
    lengths: [6, 0, 3],
  },
  "three layers, time first": { B: 2, T: 4, I: 6, H: 4, layers: 3, batchFirst: false },
  "three layers in both directions, biases of inputs": {
    B: 1,
    T: 3,
    I: 2,
    H: 3,
    layers: 3,
    bidirectional: true,
    biases: "ih",
  },
  "lengths in memory, only the last state's gradient": {
    B: 4,
    T: 5,
    I: 4,
    H: 8,
    starts: true,
    lengths: [5, 1, 0, 4],
    lengthsOnGpu: true,
    incoming: ["dHN"],
  },
  "views, both directions, time first": {
    B: 3,
    T: 4,
    I: 5,
    H: 6,
    bidirectional: true,
    batchFirst: false,
    starts: true,
    strided: true,
    lengths: [2, 4, 1],
  },
};

describe.each(BOTH)("%s and its gradients", (cell) => {
  it.each(Object.entries(CASES))("of %s", async (_, problem) => {
    await runRecurrentCase(await testDevice(), { cell, ...problem });
  });
});

describe("kernels of recurrent layers", () => {
  it.each<[string, RecurrentCase]>([
    ["of 100 units in a workgroup", { cell: "lstm", B: 5, T: 3, I: 4, H: 100 }],
    ["of 260 units in several workgroups", { cell: "gru", B: 3, T: 3, I: 4, H: 260, starts: true }],
    [
      "of 260 units backwards",
      { cell: "lstm", B: 2, T: 3, I: 4, H: 260, bidirectional: true, lengths: [1, 3] },
    ],
    [
      "that are cut into dispatches",
      { cell: "lstm", B: 9, T: 4, I: 4, H: 8, maxDispatchFlops: 100 },
    ],
    ["of f16", { cell: "lstm", B: 2, T: 4, I: 8, H: 8, dtype: "f16" }],
    ["of bf16 in views", { cell: "gru", B: 2, T: 4, I: 6, H: 6, dtype: "bf16", strided: true }],
  ])("%s", async (_, problem) => {
    await runRecurrentCase(await testDevice(), problem);
  });
});

/** Random tensors of a small network. */
function networkOf(device: GPUDevice, cell: "lstm" | "gru", more: Partial<RecurrentCase> = {}) {
  const shapes = recurrentShapes({ cell, B: 2, T: 3, I: 4, H: 4, ...more });
  const make = (seed: number, shape: readonly number[]) =>
    tensor(device, shape, { data: normal(seed, product(shape), 0.5) });
  const weights = Object.fromEntries(
    Object.entries(shapes.weights).map(([name, shape], index) => [name, make(index + 1, shape)]),
  );
  return { x: make(91, shapes.x), dOutput: make(92, shapes.output), weights, shapes, make };
}

const poisoned = (device: GPUDevice, shape: readonly number[]) =>
  tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });

const valuesOf = async (one: Tensor | undefined) => Array.from((await one?.read()) ?? [Number.NaN]);

describe("plans of recurrent layers", () => {
  it("run again and again, allocate nothing, and give the bits of a call", async () => {
    const { device, count } = counted(await testDevice());
    const more = { layers: 2, bidirectional: true } as const;
    const { x, weights, shapes } = networkOf(device, "lstm", more);
    const called = await lstm(x, weights);
    const plan = await planLstm(device, { x: { shape: shapes.x }, weights });
    expect(plan.workspaceBytes).toBeGreaterThan(0);
    const output = poisoned(device, shapes.output);
    const hN = poisoned(device, shapes.ends);
    const cN = poisoned(device, shapes.ends);
    for (let run = 0; run < 2; run++) {
      const before = { ...count };
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { x, output, hN, cN });
      const { buffersMade, pipelines, modules } = before;
      expect(count).toMatchObject({ buffersMade, pipelines, modules, submits: before.submits });
      if (run) expect(count.bindGroups).toBe(before.bindGroups);
      device.queue.submit([encoder.finish()]);
      expect(await valuesOf(output)).toEqual(await valuesOf(called.output));
      expect(await valuesOf(hN)).toEqual(await valuesOf(called.hN));
      expect(await valuesOf(cN)).toEqual(await valuesOf(called.cN));
    }
    plan.destroy();
    await expectError(
      () => plan.encode(device.createCommandEncoder(), { x, output, hN, cN }),
      "destroyed",
      "lstm: the plan was destroyed.",
    );
  });

  it("compute what is asked for only", async () => {
    const device = await testDevice();
    const { x, weights, dOutput, shapes } = networkOf(device, "gru", { layers: 2 });
    const { gates, states } = await gru(x, weights, { keep: true });
    if (!gates || !states) throw new Error("nothing was kept");
    const all = await gruBackward(x, weights, { gates, states, dOutput });
    expect(Object.keys(all)).toEqual(["dX", "dH0", "parameters"]);
    const options = { gates, states, dOutput };
    const onlyX = await gruBackward(x, weights, { ...options, gradients: ["dX"] });
    expect(Object.keys(onlyX)).toEqual(["dX"]);
    expect(await valuesOf(onlyX.dX)).toEqual(await valuesOf(all.dX));
    const onlyStart = await gruBackward(x, weights, { ...options, gradients: ["dH0"] });
    expect(await valuesOf(onlyStart.dH0)).toEqual(await valuesOf(all.dH0));
    const ofWeights = await gruBackward(x, weights, { ...options, gradients: ["parameters"] });
    for (const name of Object.keys(weights) as (keyof RecurrentWeights)[])
      expect(await valuesOf(ofWeights.parameters?.[name])).toEqual(
        await valuesOf(all.parameters?.[name]),
      );

    const plan = await planGruBackward(device, {
      x: { shape: shapes.x },
      weights,
      dOutput: { shape: shapes.output },
      gradients: ["dX"],
    });
    const dX = poisoned(device, shapes.x);
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { x, weights, gates, states, dOutput, dX });
    device.queue.submit([encoder.finish()]);
    expect(await valuesOf(dX)).toEqual(await valuesOf(all.dX));
    plan.destroy();
  });

  it("read nothing past an entry's length but x", async () => {
    const device = await testDevice();
    const { x, weights, dOutput, shapes } = networkOf(device, "lstm", { bidirectional: true });
    const lengths = [3, 1];
    const { gates, states } = await lstm(x, weights, { lengths, keep: true });
    if (!gates || !states) throw new Error("nothing was kept");
    const expected = await lstmBackward(x, weights, { gates, states, dOutput, lengths });
    const data = await dOutput.read();
    const width = shapes.output[2];
    const dirty = tensor(device, shapes.output, { data: data.fill(Number.NaN, 4 * width) });
    const found = await lstmBackward(x, weights, { gates, states, dOutput: dirty, lengths });
    expect(await valuesOf(found.dX)).toEqual(await valuesOf(expected.dX));
    expect((await valuesOf(found.dX)).slice(16)).toEqual(new Array(8).fill(0));
    // Forward, x may hold anything there.
    const clean = await lstm(x, weights, { lengths });
    const rows = await x.read();
    const filled = tensor(device, shapes.x, { data: rows.fill(Number.NaN, 16) });
    const again = await lstm(filled, weights, { lengths });
    expect(await valuesOf(again.output)).toEqual(await valuesOf(clean.output));
  });
});

describe("recurrent layers refuse", () => {
  const refused = async (
    given: (network: ReturnType<typeof networkOf>) => readonly [object, object],
    message: string,
    code: "argument" | "overlap" = "argument",
  ) => {
    const { device, buffers } = counted(idle(await testDevice()));
    const network = networkOf(device, "lstm");
    const [weights, options] = given(network);
    const before = buffers();
    await expectError(() => lstm(network.x, weights as RecurrentWeights, options), code, message);
    expect(buffers()).toBe(before);
  };

  it.each<[string, (network: ReturnType<typeof networkOf>) => [object, object], string]>([
    ["no weights", () => [{}, {}], "lstm: weights.weight_hh_l0 is missing; there are none."],
    [
      "weights of another network",
      ({ weights }) => [{ ...weights, weight_hr_l0: weights.weight_hh_l0 }, {}],
      'lstm: weights has no use for "weight_hr_l0". Names: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, those of further layers with their numbers, and of a second direction with _reverse behind them.',
    ],
    [
      "a layer without its matrix",
      ({ weights }) => [{ ...weights, bias_ih_l1: weights.bias_ih_l0 }, {}],
      "lstm: weights.weight_ih_l1 is missing; there are weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, bias_ih_l1.",
    ],
    [
      "a matrix of another shape",
      ({ weights, make }) => [{ ...weights, weight_ih_l0: make(5, [16, 5]) }, {}],
      "lstm: weights.weight_ih_l0 must be [16, 4] for 4 gates of 4 units, got [16, 5].",
    ],
    [
      "states of another shape",
      ({ weights, make }) => [weights, { h0: make(5, [2, 2, 4]) }],
      "lstm: h0 must be [1, 2, 4] for x [2, 3, 4] and 1 x 1 cells of 4 units (layers x directions), got [2, 2, 4].",
    ],
    [
      "lengths beyond the steps",
      ({ weights }) => [weights, { lengths: [3, 4] }],
      "lstm: lengths must be 2 whole numbers (one a batch entry) from 0 to 3, the steps that x has, got [3, 4].",
    ],
    [
      "lengths of too many entries",
      ({ weights }) => [weights, { lengths: [3] }],
      "lstm: lengths must be 2 whole numbers (one a batch entry) from 0 to 3, the steps that x has, got [3].",
    ],
    [
      "memory for what isn't kept",
      ({ weights, make }) => [weights, { keep: false, gates: make(5, [1, 2, 3, 16]) }],
      "lstm: gates is given, and keep is false; leave one of them out.",
    ],
    [
      "gates that aren't dense",
      ({ weights, make }) => [weights, { gates: make(5, [1, 2, 3, 32]).slice(3, 0, 16) }],
      "lstm: gates must be dense, got strides [192, 96, 32, 1].",
    ],
    [
      "dispatches of no work",
      ({ weights }) => [weights, { maxDispatchFlops: 0 }],
      "lstm: maxDispatchFlops must be a positive number, got 0.",
    ],
  ])("%s", (_, given, message) => refused(given, message));

  it("an output in the buffer of x", async () => {
    await refused(
      ({ x, weights }) => [weights, { output: x }],
      "lstm: output and x are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give output a buffer of its own.",
      "overlap",
    );
  });

  it("no gradient to start from, and one that no result has", async () => {
    const kept = (network: ReturnType<typeof networkOf>) => ({
      gates: network.make(5, [1, 2, 3, 16]),
      states: network.make(6, [1, 3, 2, 3, 4]),
    });
    const { device, buffers } = counted(idle(await testDevice()));
    const network = networkOf(device, "lstm");
    const options = kept(network);
    const before = buffers();
    const { x, weights, dOutput } = network;
    await expectError(
      () => lstmBackward(x, weights, options),
      "argument",
      "lstmBackward: give the gradient of a result: dOutput, dHN or dCN. There is none.",
    );
    await expectError(
      () => lstmBackward(x, weights, { ...options, dOutput, gradients: ["dX"], dH0: dOutput }),
      "argument",
      "lstmBackward: dH0 is given, and gradients don't name it; leave one out.",
    );
    await expectError(
      () =>
        lstmBackward(x, weights, {
          ...options,
          dOutput,
          parameters: { weight_ih_l1: dOutput },
        }),
      "argument",
      "lstmBackward: parameters has no use for weight_ih_l1; weights has weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0.",
    );
    expect(buffers()).toBe(before);
  });
});
