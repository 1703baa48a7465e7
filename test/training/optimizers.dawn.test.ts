// Optimisers on the GPU against the float64 reference.

import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/index.ts";
import type { ReferenceOptimizerProblem } from "../../src/reference/index.ts";
import { optimizer as reference, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import {
  linear,
  type OptimizerProblem,
  planOptimizer,
  recordProgram,
} from "../../src/training/index.ts";
import { product } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

type Settings = Omit<OptimizerProblem, "parameters" | "gradients">;

let seed = 9000;

/** A place for tensors: each in its own buffer, or all in one, with gaps that are NaN. */
type Placing = "apart" | "together" | "with gaps";

interface Case {
  readonly shapes: readonly (readonly number[])[];
  readonly settings: Settings;
  readonly placing?: Placing;
  readonly steps?: number;
  /** |a - b| <= tolerance * max(1, |b|). Default 2e-6. */
  readonly tolerance?: number;
  /** Standard deviation of the gradients. */
  readonly size?: number;
}

/** Makes tensors of the shapes, which the caller fills. */
async function place(
  device: GPUDevice,
  shapes: readonly (readonly number[])[],
  placing: Placing,
  used: Tensor[],
) {
  if (placing === "apart") {
    const made = shapes.map((shape) => tensor(device, shape));
    used.push(...made);
    return { tensors: made, whole: undefined };
  }
  const gap = placing === "with gaps" ? 3 : 0;
  let end = gap;
  const offsets = shapes.map((shape) => {
    const at = end;
    end += product(shape) + gap;
    return at;
  });
  const whole = tensor(device, [end], { data: new Float32Array(end).fill(Number.NaN) });
  used.push(whole);
  const tensors = shapes.map((shape, i) => whole.view({ shape, offset: offsets[i] }));
  return { tensors, whole };
}

const expectNear = (
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
) => {
  expect(actual.length, what).toBe(expected.length);
  const scaled = Array.from(expected, (x) => Math.max(1, Math.abs(x)));
  const of = (from: ArrayLike<number>) => Array.from(from, (x, i) => x / scaled[i]);
  const { error, ...worst } = worstElement(of(actual), of(expected), [expected.length]);
  expect(error, `${what}: ${JSON.stringify(worst)}`).toBeLessThanOrEqual(tolerance);
};

/** Runs updates on the GPU and in float64, and compares parameters, state, norms and rates. */
async function run({ shapes, settings, placing = "apart", steps = 6, ...rest }: Case) {
  const { tolerance = 2e-6, size = 1 } = rest;
  const device = await testDevice();
  const used: Tensor[] = [];
  const { accumulationSteps = 1, label: _, ...same } = settings;
  const { tensors: parameters, whole } = await place(device, shapes, placing, used);
  const { tensors: gradients } = await place(device, shapes, placing, used);
  const start = shapes.map((shape) => normal(seed++, product(shape)).map(Math.fround));
  for (const [i, data] of start.entries()) if (data.length) await parameters[i].write(data);
  const plan = await planOptimizer(device, { ...settings, parameters, gradients });
  used.push({ destroy: () => plan.destroy() } as Tensor);
  const expected = start.map((data, i) => ({ data: Float64Array.from(data), shape: shapes[i] }));
  const f64 = reference({ ...(same as ReferenceOptimizerProblem), parameters: expected });
  try {
    for (let step = 0; step < steps; step++) {
      const sums = shapes.map((shape) => new Float64Array(product(shape)));
      for (let batch = 0; batch < accumulationSteps; batch++) {
        for (const [i, gradient] of gradients.entries()) {
          const data = normal(seed++, gradient.size, size).map(Math.fround);
          data.forEach((x, j) => {
            sums[i][j] += x / accumulationSteps;
          });
          if (data.length) await gradient.write(data);
        }
        const encoder = device.createCommandEncoder();
        if (batch < accumulationSteps - 1) plan.accumulate(encoder);
        else plan.encode(encoder);
        device.queue.submit([encoder.finish()]);
      }
      const { norm, factor } = f64.update(sums);
      if (plan.norm) {
        expectNear(`norm ${step}`, await plan.norm.read(), [norm], 1e-6);
        expect([...((await plan.finite?.read()) ?? [])]).toEqual([1]);
      }
      const { lr = settings.kind === "Lion" ? 1e-4 : 1e-3 } = settings;
      expectNear(`rate ${step}`, [(await plan.rates.read())[0]], [lr * factor], 2 ** -22);
    }
    for (const [i, parameter] of parameters.entries()) {
      expectNear(`parameter ${i}`, await parameter.read(), expected[i].data, tolerance);
      for (const [name, data] of Object.entries(f64.state[i]))
        expectNear(`${name} ${i}`, await plan.state[i][name].read(), data, tolerance);
    }
    expect([...(await plan.step.read())]).toEqual([steps]);
    if (whole) {
      const values = await whole.read();
      const gaps = values.filter(Number.isNaN).length;
      expect(gaps).toBe(whole.size - shapes.reduce((sum, shape) => sum + product(shape), 0));
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Below, at and above a chunk, several chunks, no element, and a scalar. */
const SHAPES = [[5, 3], [1023], [1024], [1025], [0, 4], [2, 3, 700], []];

const ALGORITHMS: readonly Settings[] = [
  { kind: "SGD", lr: 0.1 },
  { kind: "SGD", lr: 0.1, weightDecay: 0.1 },
  { kind: "SGD", lr: 0.1, momentum: 0.9, dampening: 0.25, weightDecay: 0.1 },
  { kind: "SGD", lr: 0.1, momentum: 0.9, nesterov: true },
  { kind: "Adam", lr: 0.01 },
  { kind: "Adam", lr: 0.01, betas: [0.8, 0.6], eps: 1e-3, weightDecay: 0.1, amsgrad: true },
  { kind: "AdamW", lr: 0.01, weightDecay: 0.1 },
  { kind: "AdamW", lr: 0.01, betas: [0, 0] },
  { kind: "Lion", lr: 0.01, weightDecay: 0.1 },
];

describe("updates are those of the reference", () => {
  it.each(ALGORITHMS)("$kind %#", (settings) => run({ shapes: SHAPES, settings }));

  it.each(["together", "with gaps"] as const)("of tensors that lie %s", async (placing) => {
    await run({ shapes: SHAPES, settings: { kind: "AdamW", clip: { maxNorm: 3 } }, placing });
  });

  it("with groups, some of another algorithm", async () => {
    const settings: Settings = {
      kind: "AdamW",
      lr: 0.01,
      weightDecay: 0.1,
      groups: [
        { parameters: [0, 3], weightDecay: 0, lr: 0.03 },
        { parameters: [5], kind: "SGD", lr: 0.1, momentum: 0.5 },
        { parameters: [1], amsgrad: true },
      ],
    };
    await run({ shapes: SHAPES, settings });
    await run({ shapes: SHAPES, settings, placing: "with gaps" });
  });

  it.each([
    ["some", 1e-3],
    ["nothing", 1e3],
    ["nothing, but the norm is measured", Number.POSITIVE_INFINITY],
  ])("clips %s", async (_, maxNorm) => {
    const settings: Settings = { kind: "SGD", lr: 0.1, momentum: 0.9, clip: { maxNorm } };
    await run({ shapes: SHAPES, settings });
  });

  it.each(["apart", "with gaps"] as const)("accumulates, of tensors %s", async (placing) => {
    const settings: Settings = { kind: "Adam", lr: 0.01, accumulationSteps: 3 };
    await run({ shapes: SHAPES, settings, placing, steps: 4 });
    const clipped: Settings = { kind: "SGD", lr: 1, accumulationSteps: 2, clip: { maxNorm: 1 } };
    await run({ shapes: SHAPES, settings: clipped, placing, steps: 3 });
  });
});

describe("schedules", () => {
  const schedules: readonly NonNullable<Settings["schedule"]>[] = [
    { kind: "constant" },
    { kind: "linear", totalSteps: 5, startFactor: 0.25, endFactor: 1.5 },
    { kind: "cosine", totalSteps: 9, minFactor: 0.1 },
    { kind: "step", stepSize: 2, gamma: 0.7 },
    { kind: "step", stepSize: 3, gamma: 1 },
    { kind: "step", stepSize: 3 },
    { kind: "warmup_cosine", warmupSteps: 3, totalSteps: 9, warmupOffset: 0 },
    { kind: "warmup_cosine", warmupSteps: 2, totalSteps: 8, minFactor: 0.2 },
    { kind: "warmup_linear", warmupSteps: 4, totalSteps: 10 },
    { kind: "warmup_linear", warmupSteps: 4, totalSteps: 4 },
  ];
  it.each(schedules)("%j", async (schedule) => {
    const settings: Settings = { kind: "AdamW", lr: 1, weightDecay: 0.1, schedule };
    await run({ shapes: [[7]], settings, steps: 12, tolerance: 1e-5 });
  });

  it("keep their digits at the end, whatever the device's cosine is", async () => {
    const device = await testDevice();
    const gradients = [tensor(device, [1])];
    const parameters = [tensor(device, [1])];
    const schedule = { kind: "cosine", totalSteps: 10_000 } as const;
    const plan = await planOptimizer(device, {
      kind: "SGD",
      lr: 1,
      parameters,
      gradients,
      schedule,
    });
    for (const t of [0, 1, 2500, 5000, 9000, 9990, 9999]) {
      await plan.step.write([t]);
      plan.encode(once(device));
      submit(device);
      const expected = Math.sin((Math.PI / 2) * (1 - t / 10_000)) ** 2;
      expect((await plan.rates.read())[0] / expected - 1, `${t}`).toBeCloseTo(0, 6);
    }
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });
});

describe("Muon", () => {
  const muon: Settings = { kind: "Muon", lr: 0.1, adamw: { lr: 0.01 } };
  // Steps of the polynomial stretch small singular values up to 485 times, and errors with them.
  const tolerance = 2e-5;
  it("of matrices of several shapes, vectors and none", async () => {
    const shapes = [[5, 3], [4, 8], [7], [8, 4], [5, 3], [0, 3], [], [2, 3, 4]];
    await run({ shapes, settings: muon, tolerance });
    const settings: Settings = { ...muon, clip: { maxNorm: 1 }, accumulationSteps: 2 };
    await run({ shapes, settings, placing: "with gaps", steps: 3, tolerance });
  });
  it("of matrices of several chunks, with its other settings", async () => {
    const settings: Settings = {
      ...muon,
      nesterov: false,
      momentum: 0.8,
      weightDecay: 0.5,
      nsSteps: 4,
      nsCoefficients: [2, -1.5, 0.5],
      adjustLr: "match_rms_adamw",
      groups: [
        { parameters: [1], nsSteps: 2, nesterov: true },
        { parameters: [2], adjustLr: "original" },
      ],
    };
    await run({
      shapes: [
        [40, 72],
        [40, 72],
        [40, 72],
      ],
      settings,
      steps: 2,
      tolerance,
    });
  });
  it("of gradients that are tiny, zero and large", async () => {
    for (const size of [1e-12, 0, 1e12])
      await run({
        shapes: [
          [4, 8],
          [8, 4],
        ],
        settings: muon,
        steps: 2,
        tolerance,
        size,
      });
  });
});

let encoder: GPUCommandEncoder | undefined;

/** The encoder of the next submission. */
function once(device: GPUDevice): GPUCommandEncoder {
  encoder ??= device.createCommandEncoder();
  return encoder;
}

function submit(device: GPUDevice): void {
  if (encoder) device.queue.submit([encoder.finish()]);
  encoder = undefined;
}

describe("long runs", () => {
  it("have the corrections of Adam's moments to f32, at any count", async () => {
    const device = await testDevice();
    const gradients = [tensor(device, [1], { data: [1] })];
    const parameters = [tensor(device, [1])];
    const betas = [0.9, 0.9999] as const;
    const plan = await planOptimizer(device, { kind: "Adam", lr: 1, betas, parameters, gradients });
    const { first_moment: m, second_moment: v } = plan.state[0];
    for (const t of [1, 2, 3, 10, 99, 1000, 10_000, 123_456, 2 ** 31]) {
      await Promise.all([parameters[0], m, v].map((one) => one.write([0])));
      await plan.step.write([t - 1]);
      plan.encode(once(device));
      submit(device);
      const corrected = (1 - betas[0]) / (1 - betas[0] ** t);
      const root = Math.sqrt(1 - betas[1]) / Math.sqrt(1 - betas[1] ** t);
      const step = corrected / (root + 1e-8);
      expect(Math.abs((await parameters[0].read())[0] / -step - 1), `${t}`).toBeLessThan(1e-6);
    }
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });

  it("of 10,000 updates stay with the reference", async () => {
    const device = await testDevice();
    const count = 10_000;
    const start = normal(1, 8).map(Math.fround);
    const parameters = [tensor(device, [8], { data: start })];
    const gradients = [tensor(device, [8])];
    const settings = { kind: "AdamW", lr: 1e-3, weightDecay: 0.1, betas: [0.9, 0.999] } as const;
    const schedule = { kind: "warmup_cosine", warmupSteps: 100, totalSteps: count } as const;
    const plan = await planOptimizer(device, { ...settings, parameters, gradients, schedule });
    const f64 = { data: Float64Array.from(start), shape: [8] };
    const { update } = reference({ ...settings, schedule, parameters: [f64] });
    const { buffer } = gradients[0];
    for (let t = 0; t < count; t++) {
      const g = Float32Array.from({ length: 8 }, (_, i) => Math.sin(t * (i + 0.3) + i) + 0.3);
      device.queue.writeBuffer(buffer, 0, g);
      plan.encode(once(device));
      submit(device);
      update([g]);
      if (t % 500 === 0) await device.queue.onSubmittedWorkDone();
    }
    expectNear("parameters", await parameters[0].read(), f64.data, 1e-5);
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });

  it("may be recorded several updates a submission, and count only what was submitted", async () => {
    const device = await testDevice();
    const parameters = [tensor(device, [3], { data: [1, 2, 3] })];
    const gradients = [tensor(device, [3], { data: [1, -2, 4] })];
    const plan = await planOptimizer(device, { kind: "Adam", lr: 0.01, parameters, gradients });
    const dropped = device.createCommandEncoder();
    plan.encode(dropped);
    dropped.finish();
    const pass = once(device).beginComputePass();
    for (let step = 0; step < 5; step++) plan.encode(pass);
    pass.end();
    submit(device);
    const f64 = { data: Float64Array.of(1, 2, 3), shape: [3] };
    const { update } = reference({ kind: "Adam", lr: 0.01, parameters: [f64] });
    for (let step = 0; step < 5; step++) update([[1, -2, 4]]);
    expectNear("parameters", await parameters[0].read(), f64.data, 1e-6);
    expect([...(await plan.step.read())]).toEqual([5]);
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });

  it("are the last step of programs", async () => {
    const device = await testDevice();
    const w = normal(seed++, 8).map(Math.fround);
    const settings = { kind: "AdamW", lr: 0.1, clip: { maxNorm: 0.5 } } as const;
    const program = await recordProgram(
      device,
      (graph) => {
        const x = graph.input("x", [1, 4]);
        const y = linear(x, graph.parameter("w", [2, 4], w));
        return { loss: linear(y, graph.constant([1, 2], [1, -2])).reshape(1) };
      },
      { optimizer: settings },
    );
    const f64 = { data: Float64Array.from(w), shape: [2, 4] };
    const { update } = reference({ ...settings, parameters: [f64] });
    for (let step = 0; step < 5; step++) {
      const x = normal(seed++, 4).map(Math.fround);
      await program.run({ x });
      update([[...x, ...x.map((value) => -2 * value)]]); // of y0 - 2 y1
    }
    const [parameter] = program.parameters.values();
    expectNear("parameter", await parameter.read(), f64.data, 1e-6);
    program.destroy();
  });

  it("go on from a saved state with the same bits", async () => {
    const device = await testDevice();
    const shapes = [[8, 4], [40]];
    const start = shapes.map((shape) => normal(seed++, product(shape)));
    const data = Array.from({ length: 8 }, () => shapes.map((s) => normal(seed++, product(s))));
    const settings: Settings = {
      kind: "Muon",
      lr: 0.1,
      clip: { maxNorm: 2 },
      schedule: { kind: "cosine", totalSteps: 8 },
      adamw: { amsgrad: true },
    };
    const begin = async () => {
      const parameters = shapes.map((shape, i) => tensor(device, shape, { data: start[i] }));
      const gradients = shapes.map((shape) => tensor(device, shape));
      const plan = await planOptimizer(device, { ...settings, parameters, gradients });
      const step = async (t: number) => {
        for (const [i, one] of gradients.entries()) await one.write(data[t][i]);
        plan.encode(once(device));
        submit(device);
      };
      const destroy = () => {
        for (const one of [plan, ...gradients, ...parameters]) one.destroy();
      };
      return { parameters, plan, step, destroy };
    };
    const whole = await begin();
    const half = await begin();
    for (let t = 0; t < 8; t++) await whole.step(t);
    for (let t = 0; t < 4; t++) await half.step(t);
    const other = await begin();
    for (const [i, one] of other.parameters.entries())
      await one.write(await half.parameters[i].read());
    await other.plan.step.write(await half.plan.step.read());
    for (const [i, state] of other.plan.state.entries())
      for (const [name, one] of Object.entries(state))
        await one.write(await half.plan.state[i][name].read());
    for (let t = 4; t < 8; t++) await other.step(t);
    for (const [i, one] of whole.parameters.entries())
      expect([...(await other.parameters[i].read())]).toEqual([...(await one.read())]);
    for (const one of [whole, half, other]) one.destroy();
  });

  it("take learning rates that are written between updates", async () => {
    const device = await testDevice();
    const parameters = [tensor(device, [1]), tensor(device, [1])];
    const gradients = parameters.map(() => tensor(device, [1], { data: [1] }));
    const groups = [{ parameters: [1], lr: 2 }];
    const plan = await planOptimizer(device, { kind: "SGD", lr: 1, parameters, gradients, groups });
    expect([...(await plan.lr.read())]).toEqual([1, 2]);
    await plan.lr.write([0.25, 4]);
    plan.encode(once(device));
    submit(device);
    expect([(await parameters[0].read())[0], (await parameters[1].read())[0]]).toEqual([-0.25, -4]);
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });
});

describe("gradients that are not finite", () => {
  const bad = [Number.NaN, Number.POSITIVE_INFINITY];
  const kinds = ["SGD", "Adam", "AdamW", "Lion"] as const;
  it.each(bad.flatMap((value) => kinds.map((kind) => [value, kind] as const)))(
    "of %d get into the parameter of %s, and no other",
    async (value, kind) => {
      const device = await testDevice();
      const parameters = [tensor(device, [2], { data: [1, 1] })];
      const gradients = [tensor(device, [2], { data: [value, 1] })];
      const plan = await planOptimizer(device, { kind, parameters, gradients });
      plan.encode(once(device));
      submit(device);
      const [a, b] = await parameters[0].read();
      // Lion takes the sign of an infinite gradient, as it does of any other.
      expect(Number.isFinite(a)).toBe(kind === "Lion" && value > 0);
      expect(Number.isFinite(b)).toBe(true);
      for (const one of [plan, ...gradients, ...parameters]) one.destroy();
    },
  );
  it.each(bad)("of %d are told by the norm, and clipped as in PyTorch", async (value) => {
    const device = await testDevice();
    const parameters = [tensor(device, [2], { data: [1, 1] }), tensor(device, [1], { data: [1] })];
    const gradients = [
      tensor(device, [2], { data: [value, 1] }),
      tensor(device, [1], { data: [1] }),
    ];
    const clip = { maxNorm: 1 };
    const plan = await planOptimizer(device, { kind: "SGD", lr: 1, parameters, gradients, clip });
    plan.encode(once(device));
    submit(device);
    expect([...((await plan.finite?.read()) ?? [])]).toEqual([0]);
    expect([...((await plan.norm?.read()) ?? [])]).toEqual([value]);
    // An infinite norm makes the factor 0, and a NaN makes it NaN.
    const rest = Number.isNaN(value) ? Number.NaN : 1;
    expect([...(await parameters[0].read())]).toEqual([Number.NaN, rest]);
    expect([...(await parameters[1].read())]).toEqual([rest]);
    await gradients[0].write([1, 1]);
    plan.encode(once(device));
    submit(device);
    expect([...((await plan.finite?.read()) ?? [])]).toEqual([1]);
    for (const one of [plan, ...gradients, ...parameters]) one.destroy();
  });
});
