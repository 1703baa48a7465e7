// What optimisers refuse, before the GPU sees any of it.

import { beforeAll, describe, expect, it } from "vitest";
import { type FoveaErrorCode, type Tensor, tensor } from "../../src/index.ts";
import { type OptimizerProblem, planOptimizer } from "../../src/training/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, newDevice, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

let device: GPUDevice;
let objects: () => number;
let good: OptimizerProblem;
beforeAll(async () => {
  const real = counted(await testDevice());
  device = idle(real.device);
  objects = real.objects;
  const parameters = [tensor(device, [2, 3]), tensor(device, [4])];
  const gradients = parameters.map(({ shape }) => tensor(device, shape));
  good = { kind: "AdamW", parameters, gradients };
});

type Change = (problem: OptimizerProblem) => object;
const groups = (...list: object[]) => ({ groups: list });

const REFUSED: readonly (readonly [what: string, Change, FoveaErrorCode, RegExp])[] = [
  [
    "an unknown kind",
    () => ({ kind: "Adagrad" }),
    "argument",
    /kind must be SGD, Adam, .*"Adagrad"/,
  ],
  ["an unknown option", () => ({ learningRate: 1 }), "argument", /learningRate/],
  ["a setting of another kind", () => ({ momentum: 0.9 }), "argument", /AdamW has no momentum; it/],
  ["a negative rate", () => ({ lr: -1 }), "argument", /lr must be a number from 0 up, got -1/],
  ["a rate that f32 has not", () => ({ lr: 1e39 }), "argument", /lr must be/],
  ["a rate that is not a number", () => ({ lr: "1" }), "argument", /lr must be a number/],
  ["a beta of 1", () => ({ betas: [0.9, 1] }), "argument", /betas must be two numbers/],
  ["one beta", () => ({ betas: [0.9] }), "argument", /betas must be two numbers/],
  ["betas that are a number", () => ({ betas: 0.9 }), "argument", /betas must be two numbers/],
  ["eps below 0", () => ({ eps: -1e-8 }), "argument", /eps must be/],
  ["NaN", () => ({ weightDecay: Number.NaN }), "argument", /weightDecay must be/],
  [
    "Nesterov's momentum with dampening",
    () => ({ kind: "SGD", momentum: 0.9, dampening: 0.1, nesterov: true }),
    "argument",
    /nesterov needs a momentum above 0 and no dampening/,
  ],
  ["dampening of no number", () => ({ kind: "SGD", dampening: Infinity }), "argument", /dampening/],
  ["Muon's momentum of 1", () => ({ kind: "Muon", momentum: 1 }), "argument", /below 1/],
  ["no step of Muon", () => ({ kind: "Muon", nsSteps: 0 }), "argument", /nsSteps must be/],
  [
    "two coefficients",
    () => ({ kind: "Muon", nsCoefficients: [1, 2] }),
    "argument",
    /nsCoefficients must be three/,
  ],
  ["an unknown adjustment", () => ({ kind: "Muon", adjustLr: "rms" }), "argument", /adjustLr must/],
  [
    "a setting that AdamW has not, for Muon's rest",
    () => ({ kind: "Muon", adamw: { momentum: 1 } }),
    "argument",
    /adamw.*momentum/,
  ],
  [
    "no parameter",
    () => ({ parameters: [], gradients: [] }),
    "argument",
    /parameters must be a list/,
  ],
  [
    "parameters that are no list",
    () => ({ parameters: 3 }),
    "argument",
    /parameters must be a list/,
  ],
  [
    "a gradient too few",
    ({ gradients }) => ({ gradients: gradients.slice(1) }),
    "argument",
    /2, got 1/,
  ],
  [
    "gradients of another shape",
    ({ gradients: [a, b] }) => ({ gradients: [b, a] }),
    "argument",
    /gradients\[0\] must be \[2, 3\], as its parameter, got \[4\]/,
  ],
  [
    "a parameter that is no tensor",
    ({ parameters: [a] }) => ({ parameters: [a, [1, 2, 3, 4]] }),
    "argument",
    /parameters\[1\] must be a Tensor/,
  ],
  [
    "a parameter with other strides",
    ({ parameters: [a, b] }) => ({ parameters: [a.view({ shape: [2, 3], strides: [1, 2] }), b] }),
    "argument",
    /parameters\[0\] must be dense.*strides \[1, 2\]/,
  ],
  [
    "a parameter twice",
    ({ parameters: [a], gradients: [g] }) => ({ parameters: [a, a], gradients: [g, g] }),
    "overlap",
    /parameters\[0\] and parameters\[1\] share elements/,
  ],
  [
    "a gradient in the buffer of a parameter",
    ({ parameters: [a, b], gradients: [g] }) => ({ gradients: [g, b], parameters: [a, b] }),
    "overlap",
    /gradients\[1\] is in the GPUBuffer of a parameter/,
  ],
  ["groups that are no list", () => ({ groups: {} }), "argument", /groups must be a list/],
  [
    "a group without parameters",
    () => groups({ lr: 1 }),
    "argument",
    /groups\[0\] must be \{ param/,
  ],
  ["an index past the end", () => groups({ parameters: [2] }), "argument", /indices from 0 to 1/],
  [
    "a parameter in two groups",
    () => groups({ parameters: [1] }, { parameters: [1] }),
    "argument",
    /groups\[1\]\.parameters must be .* each in one group, got 1/,
  ],
  [
    "an unknown setting of a group",
    () => groups({ parameters: [1], weight_decay: 1 }),
    "argument",
    /groups\[0\].*weight_decay/,
  ],
  ["a clip without a norm", () => ({ clip: {} }), "argument", /clip\.maxNorm must be/],
  ["a norm below 0", () => ({ clip: { maxNorm: -1 } }), "argument", /clip\.maxNorm must be/],
  ["a clip that is a number", () => ({ clip: 1 }), "argument", /clip must be \{ maxNorm \}, got 1/],
  [
    "an unknown schedule",
    () => ({ schedule: { kind: "poly" } }),
    "argument",
    /kinds constant, .*"poly"/,
  ],
  ["a schedule that is a word", () => ({ schedule: "cosine" }), "argument", /schedule must be/],
  [
    "a schedule without its steps",
    () => ({ schedule: { kind: "cosine" } }),
    "argument",
    /totalSteps/,
  ],
  [
    "a number that a schedule has not",
    () => ({ schedule: { kind: "cosine", totalSteps: 9, gamma: 1 } }),
    "argument",
    /gamma/,
  ],
  [
    "gamma above 1",
    () => ({ schedule: { kind: "step", stepSize: 9, gamma: 1.5 } }),
    "argument",
    /schedule\.gamma must be a number from 0 to 1, got 1\.5/,
  ],
  [
    "a warm-up longer than all steps",
    () => ({ schedule: { kind: "warmup_linear", warmupSteps: 9, totalSteps: 8 } }),
    "argument",
    /must be 9 or more, got 8/,
  ],
  ["half a batch", () => ({ accumulationSteps: 1.5 }), "argument", /accumulationSteps must be/],
];

describe("planOptimizer refuses", () => {
  it.each(REFUSED)("%s", async (_, change, code, message) => {
    const before = objects();
    const problem = { ...good, ...change(good) } as OptimizerProblem;
    await expectError(() => planOptimizer(device, problem), code, message);
    expect(objects()).toBe(before);
  });

  it("tensors of another dtype, device or life", async () => {
    const [, gradient] = good.gradients;
    const [first] = good.parameters;
    const withSecond = (one: Tensor, gradients = good.gradients) =>
      planOptimizer(device, { ...good, parameters: [first, one], gradients });
    const half = tensor(device, [4], { dtype: "f16" });
    await expectError(() => withSecond(half), "argument", /parameters\[1\] must be f32, got f16/);
    const gone = tensor(device, [4]);
    gone.destroy();
    await expectError(() => withSecond(gone), "destroyed", /parameters\[1\]: the tensor was/);
    const other = await newDevice();
    const stranger = tensor(other, [4]);
    await expectError(() => withSecond(stranger), "device", /parameters\[1\] belongs to another/);
    other.destroy();
    const small = withLimits(device, { maxStorageBufferBindingSize: 12 });
    await expectError(
      () =>
        planOptimizer(small, {
          kind: "SGD",
          parameters: [tensor(small, [4])],
          gradients: [tensor(small, [4])],
        }),
      "limit",
      /parameters\[0\] has 16 bytes; this device binds at most 12/,
    );
    for (const one of [half, stranger]) one.destroy();
    expect(gradient.destroyed).toBe(false);
  });
});

it("runs end where the device's bindings do", async () => {
  const dispatches = async (on: GPUDevice) => {
    const [parameters, gradients] = [0, 1].map(() => {
      const whole = tensor(on, [4096]);
      return [0, 1, 2, 3].map((i) => whole.slice(0, 1024 * i, 1024 * (i + 1)));
    });
    const plan = await planOptimizer(on, { kind: "Adam", parameters, gradients });
    expect(plan.state.map(({ first_moment: one }) => one.shape)).toEqual(Array(4).fill([1024]));
    for (const one of [plan, parameters[0], gradients[0]]) one.destroy();
    return plan.dispatchCount;
  };
  // One counts, the others update.
  expect(await dispatches(device)).toBe(2);
  expect(await dispatches(withLimits(device, { maxStorageBufferBindingSize: 4096 }))).toBe(5);
});

it("encode refuses what is gone, and what is no encoder; accumulate what has one batch", async () => {
  const parameters = [tensor(device, [2])];
  const gradients = [tensor(device, [2])];
  const plan = await planOptimizer(device, { kind: "Lion", parameters, gradients });
  const encoder = device.createCommandEncoder();
  await expectError(() => plan.encode({} as GPUCommandEncoder), "argument", /encode takes a GPU/);
  await expectError(() => plan.accumulate(encoder), "argument", /accumulationSteps is 1/);
  gradients[0].destroy();
  await expectError(() => plan.encode(encoder), "destroyed", /gradients\[0\]: the tensor was/);
  plan.destroy();
  plan.destroy();
  await expectError(() => plan.encode(encoder), "destroyed", /the optimiser, or a tensor/);
  expect(plan.step.destroyed).toBe(true);
  parameters[0].destroy();
});
