// Embeddings, their gradient, and dropout against the float64 reference.

import { describe, expect, it } from "vitest";
import { dropout, embedding, embeddingBackward, planDropout, tensor } from "../../src/index.ts";
import {
  embeddingBackward as backward64,
  dropout as dropout64,
  embedding as embedding64,
} from "../../src/reference/index.ts";
import { integers } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

failOnGpuErrors();

interface Case {
  readonly V: number;
  readonly E: number;
  readonly of: readonly number[];
  readonly dtype?: Float;
  readonly made?: Made;
  readonly idType?: "i32" | "u32";
  readonly lowest?: number;
  readonly options?: { readonly scale?: number };
  readonly paddingId?: number;
  /** Ids whose axes lie the other way round in memory. */
  readonly turned?: boolean;
}

async function run({ V, E, of, dtype = "f32", made, options, paddingId, ...ids }: Case) {
  const device = await testDevice();
  const tensors = new GradientTensors(device);
  const weight = tensors.make(1, [V, E], { dtype });
  const list = integers(2, product(of), ids.lowest ?? 0, V - 1);
  const strides = ids.turned ? [1, of[0]] : undefined;
  const index = tensor(device, of, {
    dtype: ids.idType ?? "i32",
    data: list,
    ...(strides && { strides }),
  });
  const output = tensors.poisoned([...of, E], { dtype, ...made });
  await embedding(weight.gpu, index, { ...options, output });
  const expected = embedding64(weight.cpu, list, options).map(ROUND[dtype]);
  expect(Array.from(await output.read())).toEqual(Array.from(expected));
  const dOutput = tensors.make(3, [...of, E], { dtype, ...made });
  const dWeight = tensors.poisoned([V, E], { dtype });
  const padding = paddingId === undefined ? {} : { paddingId };
  await embeddingBackward(weight.gpu, index, dOutput.gpu, { ...options, ...padding, dWeight });
  const gradient = (precision: "f64" | "f32") => ({
    dWeight: backward64(weight.cpu, list, dOutput.cpu.data, { ...options, ...padding, precision }),
  });
  await expectGradientsClose({ dWeight }, gradient("f64"), gradient("f32"));
  if (paddingId !== undefined) {
    const row = (await dWeight.read()).subarray(paddingId * E, (paddingId + 1) * E);
    expect(row).toEqual(new Float32Array(E));
  }
  index.destroy();
  tensors.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(one);
};

describe("embedding and its gradient", () => {
  it("of repeated ids, scaled by a power of two, a padding id, ids that are no rows", () =>
    all(
      { V: 9, E: 8, of: [3, 7], options: { scale: 4 }, paddingId: 2 },
      { V: 5, E: 3, of: [40], lowest: -2, paddingId: 0 },
      { V: 300, E: 4, of: [2, 3, 50], idType: "u32" },
      { V: 4, E: 8, of: [] },
      { V: 4, E: 8, of: [0, 3] },
    ));
  it("at strides and in 16 bits", () =>
    all(
      { V: 7, E: 8, of: [4, 5], turned: true },
      { V: 7, E: 6, of: [4, 5], dtype: "bf16", made: { order: [1, 0, 2] } },
    ));
  it("refuse what is wrong", async () => {
    const device = await testDevice();
    const weight = tensor(device, [4, 8]);
    const ids = tensor(device, [3], { dtype: "i32" });
    const rows = tensor(device, [3, 8]);
    await expectError(
      () => embedding(weight, rows),
      "argument",
      "embedding: ids must be i32 or u32, got f32.",
    );
    await expectError(
      () => embedding(weight.view({ shape: [32] }), ids),
      "argument",
      "embedding: weight must be [V, E], one row an id, got [32].",
    );
    await expectError(
      () => embeddingBackward(weight, ids, rows, { paddingId: 4 }),
      "argument",
      "embeddingBackward: paddingId must be a row of weight, from 0 up to 3, got 4.",
    );
    for (const one of [weight, ids, rows]) one.destroy();
  });
});

describe("dropout", () => {
  it("keeps what the generator keeps, at any strides, at each step", async () => {
    const tensors = new GradientTensors(await testDevice());
    const shape = [3, 5, 8];
    for (const [at, made] of [{}, { order: [2, 0, 1] }, { dtype: "f16" as const }].entries()) {
      const x = tensors.make(1, shape, made);
      const output = tensors.poisoned(shape, { ...made, order: [0, 1, 2] });
      const options = { p: 0.25, seed: 2 ** 40 + 7, step: at };
      await dropout(x.gpu, { ...options, output });
      const round = ROUND[made.dtype ?? "f32"];
      const values = await output.read();
      for (const [i, right] of dropout64(x.cpu.data, options).entries())
        expect(values[i]).toBeCloseTo(round(right), made.dtype ? 2 : 5);
      const kept = Array.from(values).filter((value) => value !== 0).length;
      expect(kept).toBeGreaterThan(60);
      expect(kept).toBeLessThan(115);
    }
    tensors.destroy();
  });
  it("is replayed with a step on the GPU, and its gradient is itself", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const ones = tensors.of(new Float32Array(200).fill(1), [10, 20]);
    const step = tensor(device, [1], { dtype: "u32", data: [0] });
    const plan = await planDropout(device, { x: ones.gpu, p: 0.5, seed: 3, step });
    const output = tensors.poisoned([10, 20]);
    const masks: number[][] = [];
    for (const number of [0, 1, 0]) {
      await step.write([number]);
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { output });
      device.queue.submit([encoder.finish()]);
      masks.push(Array.from(await output.read()));
      const right = dropout64(ones.cpu.data, { p: 0.5, seed: 3, step: number });
      expect(masks[masks.length - 1]).toEqual(Array.from(right));
    }
    expect(masks[0]).toEqual(masks[2]);
    expect(masks[0]).not.toEqual(masks[1]);
    for (const one of [plan, step]) one.destroy();
    tensors.destroy();
  });
  it("takes a mask, keeps all or nothing, and refuses what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 4], { data: [1, 2, 3, Number.NaN, 5, 6, 7, 8] });
    const keepMask = tensor(device, [4], { dtype: "u8", data: [1, 0, 7, 0] });
    const cases: readonly [object, readonly number[]][] = [
      [{ p: 0.5, keepMask }, [2, 0, 6, 0, 10, 0, 14, 0]],
      [{ p: 1, seed: 1 }, [0, 0, 0, 0, 0, 0, 0, 0]],
      [{ p: 0 }, [1, 2, 3, Number.NaN, 5, 6, 7, 8]],
    ];
    for (const [options, expected] of cases) {
      const { output } = await dropout(x, options as { p: number });
      expect(Array.from(await output.read())).toEqual(expected);
      output.destroy();
    }
    const refused: readonly [object, string][] = [
      [{ p: 2, seed: 1 }, "dropout: p must be a probability from 0 to 1, got 2."],
      [{ p: 0.5 }, "dropout: seed must be a whole number from 0 up to 2^53, got undefined."],
      [
        { p: 0.5, seed: 1, keepMask },
        "dropout: keepMask says what is kept, and so do seed and step; leave one out.",
      ],
      [
        { p: 0.5, seed: 1, step: -1 },
        "dropout: step must be a whole number from 0 up to 2^32 - 1, got -1.",
      ],
    ];
    for (const [options, message] of refused)
      await expectError(() => dropout(x, options as { p: number }), "argument", message);
    for (const one of [x, keepMask]) one.destroy();
  });
});
