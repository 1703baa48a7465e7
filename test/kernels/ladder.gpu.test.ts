// Every rung of the ladder computes the same attention, and the naive step of the other ladder its
// gradients.

import { describe, expect, it } from "vitest";
import { planNaiveBackward } from "../../bench/backward_ladder.ts";
import { LADDER } from "../../bench/ladder.ts";
import { type Tensor, tensor } from "../../src/index.ts";
import { errorBound } from "../../src/reference/bounds.ts";
import { attentionBackward, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const PROBLEMS: readonly Case[] = [
  { M: 1, N: 1, D: 16 },
  { B: 2, H: 4, Hkv: 2, M: 63, N: 65, D: 16 },
  { H: 2, M: 65, N: 31, D: 16, causal: true },
  { H: 2, M: 37, N: 70, D: 16, causal: true, spread: 60 },
  { B: 3, M: 40, N: 50, D: 16, causal: true, kvLengths: [50, 17, 0] },
  { H: 2, M: 20, N: 33, D: 16, layout: "bmhd" },
  { H: 2, M: 20, N: 33, D: 6, Dv: 5 },
];

describe.each(LADDER)("$name", ({ name, plan }) => {
  const storesLse = name !== "1 naive"; // the naive step has probabilities instead
  for (const problem of PROBLEMS)
    it(title(problem), async () => runCase(await testDevice(), problem, plan, storesLse));
});

describe("the naive gradients", () => {
  const given = (shapes: Readonly<Record<"q" | "k" | "v", number[]>>) => {
    const { q, k, v } = shapes;
    const all = [q, k, v, [...q.slice(0, 3), v[3]]];
    return all.map((shape, seed) => ({
      data: normal(
        seed + 1,
        shape.reduce((a, b) => a * b),
      ),
      shape,
    }));
  };

  it.each([
    ["one query and one key", { B: 1, H: 1, Hkv: 1, M: 1, N: 1, D: 8, Dv: 4 }, false],
    ["heads that share keys", { B: 2, H: 4, Hkv: 2, M: 21, N: 37, D: 16, Dv: 8 }, true],
    ["queries that see no key", { B: 1, H: 2, Hkv: 1, M: 65, N: 31, D: 16, Dv: 16 }, true],
    ["all keys", { B: 2, H: 2, Hkv: 2, M: 33, N: 70, D: 4, Dv: 12 }, false],
  ])("of %s are those of the reference", async (_, { B, H, Hkv, M, N, D, Dv }, causal) => {
    const device = await testDevice();
    const inputs = given({ q: [B, H, M, D], k: [B, Hkv, N, D], v: [B, Hkv, N, Dv] });
    const [q, k, v, dOutput] = inputs.map(({ data, shape }) => tensor(device, shape, { data }));
    const [dQ, dK, dV] = [q, k, v].map(({ shape, size }) =>
      tensor(device, shape, { data: new Float32Array(size).fill(Number.NaN) }),
    );
    const plan = await planNaiveBackward(device, { q, k, v, dOutput, dQ, dK, dV }, causal);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    pass.end();
    device.queue.submit([encoder.finish()]);
    const [first, second, third, { data }] = inputs;
    const expected = (precision: "f64" | "f32") =>
      attentionBackward(first, second, third, { causal, dOutput: data, precision });
    const f64 = expected("f64");
    const plain = expected("f32");
    const results: Readonly<Record<"dQ" | "dK" | "dV", Tensor>> = { dQ, dK, dV };
    for (const [name, result] of Object.entries(results)) {
      const right = f64[name as keyof typeof results];
      const { error } = worstElement(await result.read(), right, result.shape);
      const bound = errorBound(right, plain[name as keyof typeof results], "f32");
      expect(error, name).toBeLessThanOrEqual(bound);
    }
    for (const one of [q, k, v, dOutput, dQ, dK, dV, plan]) one.destroy();
  });

  it("refuse rows that aren't whole vec4s", async () => {
    const device = await testDevice();
    const [q, k, v, dOutput] = given({ q: [1, 1, 2, 6], k: [1, 1, 2, 6], v: [1, 1, 2, 4] }).map(
      ({ data, shape }) => tensor(device, shape, { data }),
    );
    const tensors = { q, k, v, dOutput, dQ: q, dK: k, dV: v };
    await expectError(
      () => planNaiveBackward(device, tensors, false),
      "argument",
      "the naive gradients take head dims that are multiples of 4, got 6 and 4; the real kernels take all.",
    );
    for (const one of [q, k, v, dOutput]) one.destroy();
  });
});
