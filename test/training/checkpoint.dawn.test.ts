// Checkpoints, dropout, numbers that are not finite, adapters, and devices that are lost.

import { describe, expect, it } from "vitest";
import { readSafetensors, safetensorsMetadata } from "../../src/files/safetensors.ts";
import { normal } from "../../src/reference/random.ts";
import {
  activate,
  crossEntropy,
  drawn,
  dropout,
  embedding,
  fromSafetensors,
  type Graph,
  isAdapter,
  linear,
  linearLayer,
  loadCheckpoint,
  loadParameters,
  type Program,
  type ProgramOptimizer,
  parametersOf,
  recordProgram,
  saveCheckpoint,
  saveParameters,
  Training,
  under,
  withAdapters,
} from "../../src/training/index.ts";
import { failOnGpuErrors, newDevice, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const OPTIMIZER: ProgramOptimizer = {
  kind: "AdamW",
  lr: 0.05,
  clip: { maxNorm: 1 },
  groups: [{ parameters: (_, shape) => shape.length === 1, weightDecay: 0 }],
  schedule: { kind: "cosine", totalSteps: 20 },
};

/** A classifier of two layers with dropout between them. */
function classifier(graph: Graph, seed = 3) {
  const parameters = parametersOf(graph, drawn(seed));
  const x = graph.input("x", [6, 5]);
  const targets = graph.input("targets", [6], "i32");
  const inner = activate(linearLayer(x, under(parameters, "first"), 8), "gelu");
  const logits = linearLayer(dropout(inner, 0.25), under(parameters, "second"), 4);
  return { loss: crossEntropy(logits, targets), outputs: { logits } };
}

const batch = (step: number) => ({
  x: normal(100 + step, 30),
  targets: Array.from({ length: 6 }, (_, at) => (at * 7 + step) % 4),
});

const bits = async (program: Program) => {
  const all = await Promise.all([...program.parameters.values()].map((one) => one.read()));
  return all.map((values) => Array.from(values));
};

const begin = async () => recordProgram(await testDevice(), classifier, { optimizer: OPTIMIZER });

describe("a checkpoint", () => {
  it("goes on with the bits of a run that never stopped", async () => {
    using whole = await begin();
    using half = await begin();
    const losses: (number | undefined)[] = [];
    for (let step = 0; step < 8; step++) losses.push(await whole.run(batch(step)));
    for (let step = 0; step < 4; step++) expect(await half.run(batch(step))).toBe(losses[step]);
    const bytes = await saveCheckpoint(half);
    using other = await recordProgram(await testDevice(), (graph) => classifier(graph, 9), {
      optimizer: OPTIMIZER,
    });
    expect(await bits(other)).not.toEqual(await bits(half));
    await loadCheckpoint(other, bytes);
    expect(other.step).toBe(4);
    for (let step = 4; step < 8; step++) expect(await other.run(batch(step))).toBe(losses[step]);
    expect(await bits(other)).toEqual(await bits(whole));
    expect(new Set(losses).size).toBe(8);
  });

  it("is a safetensors file with PyTorch's names", async () => {
    using program = await begin();
    await program.run(batch(0));
    const bytes = await saveCheckpoint(program);
    const names = [...readSafetensors("checkpoint", bytes).keys()];
    expect(names).toEqual(
      expect.arrayContaining([
        "first.weight",
        "second.bias",
        "optimizer.lr",
        "optimizer.state.first.weight.exp_avg",
        "optimizer.state.second.bias.exp_avg_sq",
      ]),
    );
    const metadata = safetensorsMetadata("checkpoint", bytes);
    expect(metadata).toEqual({ format: "pt", step: "1", "optimizer.step": "1" });
  });

  it("that does not fit changes nothing", async () => {
    using program = await begin();
    await program.run(batch(0));
    const before = await bits(program);
    const parameters = await saveParameters(program);
    await expectError(
      () => loadCheckpoint(program, parameters),
      "file",
      "checkpoint: the file tells no step; is it a checkpoint?",
    );
    using larger = await recordProgram(await testDevice(), (graph) => {
      const x = graph.input("x", [1, 5]);
      return { outputs: { y: linearLayer(x, under(parametersOf(graph, drawn(1)), "first"), 9) } };
    });
    await expectError(
      () => loadParameters(larger, parameters),
      "file",
      "the file has first.weight [8,5]; the program's is [9,5].",
    );
    using named = await recordProgram(await testDevice(), (graph) => {
      const x = graph.input("x", [1, 5]);
      return { outputs: { y: linearLayer(x, under(parametersOf(graph, drawn(1)), "third"), 9) } };
    });
    await expectError(
      () => loadParameters(named, parameters),
      "file",
      "the file lacks third.weight [9,5]; it has first.weight, first.bias, second.weight, second.bias.",
    );
    expect(await bits(program)).toEqual(before);
  });

  it("gives a program without gradients what was learned, and drops nothing there", async () => {
    using program = await begin();
    for (let step = 0; step < 3; step++) await program.run(batch(step));
    const bytes = await saveParameters(program);
    const define = (graph: Graph) => {
      const parameters = parametersOf(graph, fromSafetensors(bytes));
      const x = graph.input("x", [6, 5]);
      const inner = activate(linearLayer(x, under(parameters, "first"), 8), "gelu");
      return { outputs: { y: linearLayer(dropout(inner, 0.25), under(parameters, "second"), 4) } };
    };
    using inference = await recordProgram(await testDevice(), define);
    expect(await bits(inference)).toEqual(await bits(program));
    const { x } = batch(0);
    await inference.run({ x });
    const first = await inference.outputs.y.read();
    await inference.run({ x });
    expect(await inference.outputs.y.read()).toEqual(first);
  });
});

describe("dropout of a program", () => {
  it("draws anew after each update, and the same again without one", async () => {
    const define = (graph: Graph) => {
      const x = graph.input("x", [64, 8]);
      const weight = graph.parameter("weight", [1, 8], new Float32Array(8).fill(1));
      const kept = dropout(x, 0.5);
      const sum = linear(kept, weight).reshape(1, 64);
      return {
        loss: linear(sum, graph.constant([1, 64], new Float32Array(64).fill(1))).reshape(1),
        outputs: { kept },
      };
    };
    using program = await recordProgram(await testDevice(), define, {
      optimizer: { kind: "SGD", lr: 0 },
    });
    const x = new Float32Array(512).fill(1);
    const drawnIn = async (update: boolean) => {
      await program.run({ x }, { update });
      return Array.from(await program.outputs.kept.read());
    };
    const first = await drawnIn(false);
    expect(await drawnIn(true)).toEqual(first);
    const second = await drawnIn(false);
    expect(second).not.toEqual(first);
    expect(new Set(first)).toEqual(new Set([0, 2]));
    const kept = first.filter((value) => value > 0).length;
    expect(Math.abs(kept - 256)).toBeLessThan(60); // five standard deviations
    // The gradient went through what was kept: dWeight[d] is the sum of column d.
    const columns = Array.from({ length: 8 }, (_, d) =>
      second.reduce((sum, value, at) => (at % 8 === d ? sum + value : sum), 0),
    );
    expect(Array.from((await program.gradients.get("weight")?.read()) ?? [])).toEqual(columns);
  });
});

describe("gradients of several batches", () => {
  it("draw anew for each batch of an update, and the same again in another run", async () => {
    const optimizer = { ...OPTIMIZER, accumulationSteps: 3 };
    const losses = async () => {
      using program = await recordProgram(await testDevice(), classifier, { optimizer });
      const found: (number | undefined)[] = [];
      for (let run = 0; run < 6; run++)
        found.push(await program.run(batch(0), { update: run % 3 === 2 ? true : "accumulate" }));
      expect(program.step).toBe(2);
      return found;
    };
    const found = await losses();
    expect(new Set(found).size).toBe(6);
    expect(await losses()).toEqual(found);
  });
});

describe("a number that is not finite", () => {
  it("is told with its run and the operation that gave it first, and changes no parameter", async () => {
    using program = await begin();
    await program.run(batch(0));
    const before = await bits(program);
    const { x, targets } = batch(1);
    const bad = x.map((value, at) => (at === 7 ? Number.NaN : value));
    await expectError(
      () => program.run({ x: bad, targets }),
      "not-finite",
      "program: run 1: the loss is NaN. The first number that is not finite is in the input x.",
    );
    const weight = program.parameters.get("second.weight");
    const kept = (await weight?.read()) as Float32Array;
    await weight?.write(kept.map(() => 3e38));
    await expectError(
      () => program.run({ x: x.map((value) => 50 * value), targets }),
      "not-finite",
      /^program: run 2: the loss is (NaN|Infinity)\. The first number that is not finite is in what came of linear \(operation 3 of \d+\)\.$/,
    );
    await weight?.write(kept);
    expect(await bits(program)).toEqual(before);
    expect(Array.from((await program.optimizer?.step.read()) ?? [])).toEqual([1]);
    expect(await program.run({ x, targets })).toBeGreaterThan(0);
    expect(await bits(program)).not.toEqual(before);
  });
});

describe("adapters", () => {
  const define = (rank: number | undefined) => (graph: Graph) => {
    const base = parametersOf(graph, drawn(5), (name) => rank !== undefined && !isAdapter(name));
    const targets = (name: string) => name === "second.weight";
    const parameters = rank === undefined ? base : withAdapters(base, { rank, alpha: 6, targets });
    const words = embedding(
      graph.input("ids", [4], "i32"),
      parameters("table", [7, 5], { normal: 1 }),
    );
    const inner = activate(linearLayer(words, under(parameters, "first"), 6), "tanh");
    const logits = linearLayer(inner, under(parameters, "second"), 3);
    const targetIds = graph.input("targets", [4], "i32");
    return { loss: crossEntropy(logits, targetIds), outputs: { logits } };
  };
  const data = { ids: [0, 3, 6, 3], targets: [2, 0, 1, 0] };

  it("begin as nothing, are learned alone, and are W + alpha / rank B A", async () => {
    const device = await testDevice();
    using plain = await recordProgram(device, define(undefined), { gradients: true });
    using adapted = await recordProgram(device, define(3), {
      optimizer: { kind: "Adam", lr: 0.05 },
    });
    await plain.run(data);
    const first = await adapted.run(data);
    expect(first).toBe(await plain.run(data));
    expect([...adapted.gradients.keys()]).toEqual(["second.lora_A.weight", "second.lora_B.weight"]);
    let last = first as number;
    for (let step = 0; step < 20; step++) last = (await adapted.run(data)) as number;
    expect(last).toBeLessThan((first as number) / 2);
    const read = async (program: Program, name: string) =>
      (await program.parameters.get(name)?.read()) as Float32Array;
    for (const name of ["table", "first.weight", "second.weight", "second.bias"])
      expect(await read(adapted, name)).toEqual(await read(plain, name));
    // Merged into the weight, it gives the same.
    const a = await read(adapted, "second.lora_A.weight");
    const b = await read(adapted, "second.lora_B.weight");
    const merged = (await read(plain, "second.weight")).map((value, at) => {
      const row = Math.floor(at / 6);
      const column = at % 6;
      let sum = 0;
      for (let r = 0; r < 3; r++) sum += b[row * 3 + r] * a[r * 6 + column];
      return value + 2 * sum;
    });
    await plain.parameters.get("second.weight")?.write(merged);
    await plain.run(data);
    await adapted.run(data, { update: false });
    const expected = await plain.outputs.logits.read();
    for (const [at, value] of (await adapted.outputs.logits.read()).entries())
      expect(value).toBeCloseTo(expected[at], 5);
  });

  it("are saved and swapped without the base", async () => {
    const device = await testDevice();
    using program = await recordProgram(device, define(2), { optimizer: { kind: "SGD", lr: 0.5 } });
    const none = await saveParameters(program, { select: isAdapter });
    for (let step = 0; step < 5; step++) await program.run(data);
    const learned = await saveParameters(program, { select: isAdapter });
    expect([...readSafetensors("f", learned).keys()]).toEqual([
      "second.lora_A.weight",
      "second.lora_B.weight",
    ]);
    const after = await program.run(data, { update: false });
    await loadParameters(program, none, { select: isAdapter });
    const before = await program.run(data, { update: false });
    await loadParameters(program, learned, { select: isAdapter });
    expect(await program.run(data, { update: false })).toBe(after);
    expect(after).toBeLessThan(before as number);
  });

  it("refuse what is no weight of linear", async () => {
    const device = await testDevice();
    const wrong =
      (use: (graph: Graph, parameters: ReturnType<typeof withAdapters>) => void) => () =>
        recordProgram(device, (graph) => {
          const settings = { rank: 2, targets: () => true };
          use(graph, withAdapters(parametersOf(graph, drawn(1)), settings));
          return {};
        });
    await expectError(
      wrong((graph, p) => embedding(graph.input("ids", [2], "i32"), p("table", [3, 4]))),
      "argument",
      "embedding: table has an adapter, which only linear() takes; leave it out of the targets.",
    );
    await expectError(
      wrong((_, p) => p("table", [3, 4]).reshape(12)),
      "argument",
      "table.reshape: the weight has an adapter, which only linear() takes; leave it out of the targets.",
    );
    await expectError(
      wrong((_, p) => p("bias", [3])),
      "argument",
      "adapters: bias [3] is no matrix; targets has to leave it out.",
    );
    expect(() => withAdapters(() => expect.fail(), { rank: 0, targets: () => true })).toThrow(
      "adapters: rank must be a whole number from 1 up, got 0.",
    );
  });
});

describe("a lost device", () => {
  it("leaves the last checkpoint, from which another device goes on", async () => {
    const told: number[] = [];
    const options = {
      optimizer: OPTIMIZER,
      checkpointEvery: 3,
      onCheckpoint: (_: Uint8Array, step: number) => told.push(step),
    };
    using whole = await begin();
    const losses: (number | undefined)[] = [];
    for (let step = 0; step < 6; step++) losses.push(await whole.run(batch(step)));
    const device = await newDevice();
    const training = await Training.start(device, classifier, options);
    for (let step = 0; step < 5; step++) expect(await training.run(batch(step))).toBe(losses[step]);
    expect(told).toEqual([3]);
    device.destroy();
    await device.lost;
    await expectError(
      () => training.run(batch(5)),
      "device-lost",
      /The checkpoint of step 3 is kept: resume\(device\) goes on from it\.$/,
    );
    const resumed = await training.resume(await testDevice());
    expect(resumed.step).toBe(3);
    for (let step = 3; step < 6; step++) expect(await resumed.run(batch(step))).toBe(losses[step]);
    expect(told).toEqual([3, 6]);
    resumed.destroy();
  });
});
