// The gradients of linear attention against the float64 reference, for every rule. Cases share head
// dims where they can: each other text takes a software adapter seconds to compile.

import { describe, expect, it } from "vitest";
import {
  linearAttentionBackward,
  planLinearAttentionBackward,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";
import { type LinearBackwardCase, runLinearBackwardCase } from "../support/linear_backward.ts";

failOnGpuErrors();

const title = (problem: object) =>
  JSON.stringify(problem).replace(/["{}]/g, "").replaceAll(",", " ");
const run = (
  shared: Omit<LinearBackwardCase, "N">,
  cases: readonly (Partial<LinearBackwardCase> & { readonly N: number })[],
) =>
  it.each(cases.map((one) => [title(one), { ...shared, ...one }] as const))(
    "%s",
    async (_, problem) => {
      await runLinearBackwardCase(await testDevice(), problem);
    },
  );

describe("normalised, causal", () => {
  run({ D: 8, Dv: 5, causal: true, past: true, dState: true }, [
    { N: 1 },
    { N: 130, B: 2, maxDispatchFlops: 1 },
    { N: 70, spread: 1e-3, seed: 2, dSpread: 1e4 },
    { N: 70, spread: 5, seed: 3, dSpread: 1e-6, past: false, dState: false },
    { N: 65, layout: "bmhd", strided: true, planned: true },
    { N: 70, B: 3, kvLengths: [70, 40, 0], keyMask: { keep: 0.6 }, poison: true, onGpu: true },
    { N: 70, dtype: ["f16", "bf16", "f16", "f32", "bf16"], H: 2, Hk: 1 },
    { N: 0 },
  ]);
});

describe("all keys for every query", () => {
  run({ D: 8, Dv: 5, dState: true }, [
    { N: 1, M: 1 },
    { N: 130, M: 70, B: 2, H: 2, Hk: 1, past: true, maxDispatchFlops: 1 },
    { N: 0, M: 3, past: true },
    { N: 5, M: 0, past: true },
    { N: 70, M: 9, B: 2, kvLengths: [70, 3], keyMask: { keep: 0.5, shared: true }, poison: true },
  ]);
});

describe("gated", () => {
  run({ D: 8, Dv: 5, updateRule: "gated", past: true, dState: true }, [
    { N: 37, H: 2, maxDispatchFlops: 1 },
    { N: 50, decaySpread: 30, seed: 4 },
    { N: 50, decaySpread: 0.001, forget: 0.1, dtype: "f16" },
    { N: 40, B: 2, kvLengths: [40, 17], keyMask: { keep: 0.6 }, poison: true },
  ]);
  run({ D: 8, Dv: 5, updateRule: "gated", rowDecay: true, normalized: true, featureMap: "elu" }, [
    { N: 37, past: true, dState: true, forget: 0.05 },
  ]);
});

// Blocks of rows and of columns, whose parts are added.
describe("wide heads", () => {
  run({ D: 34, Dv: 39, updateRule: "gated", normalized: true, featureMap: "elu" }, [{ N: 20 }]);
  run({ D: 66, Dv: 6, updateRule: "delta", gradients: ["dK", "dV", "dBeta"] }, [{ N: 9 }]);
});

describe("delta rules", () => {
  run({ D: 8, Dv: 5, updateRule: "delta", past: true, dState: true, H: 2 }, [
    { N: 70 },
    { N: 150, sharedBeta: true, layout: "bmhd", maxDispatchFlops: 1 },
    { N: 40, keyMask: { keep: 0.6 }, poison: true, B: 2, dtype: "bf16", dDtype: "f32" },
  ]);
  run({ D: 6, Dv: 5, updateRule: "gated_delta", rowDecay: true, past: true, dState: true }, [
    { N: 37, H: 4, Hkv: 2, maxDispatchFlops: 1 },
  ]);
});

it("gives the same bits for the same inputs, and only what is asked for", async () => {
  const device = await testDevice();
  const put = (seed: number, width: number) =>
    tensor(device, [1, 1, 70, width], { data: normal(seed, 70 * width) });
  const q = put(1, 8);
  const k = put(2, 8);
  const v = put(3, 5);
  const dOutput = put(4, 5);
  const whole = await linearAttentionBackward(q, k, v, { causal: true, dOutput });
  expect(Object.keys(whole)).toEqual(["dQ", "dK", "dV"]);
  const destroyed: (Tensor | undefined)[] = [q, k, v, dOutput, ...Object.values(whole)];
  for (const name of ["dQ", "dK", "dV"] as const) {
    const one = await linearAttentionBackward(q, k, v, {
      causal: true,
      dOutput,
      gradients: [name],
    });
    expect(Object.keys(one)).toEqual([name]);
    expect(await (one[name] as Tensor).read()).toEqual(await (whole[name] as Tensor).read());
    destroyed.push(one[name]);
  }
  for (const one of destroyed) one?.destroy();
});

it("shows a NaN wherever it counts", async () => {
  const device = await testDevice();
  const run = async (what: "q" | "k" | "dOutput") => {
    const put = (name: string, seed: number, width: number) => {
      const data = normal(seed, 40 * width);
      if (name === what) data[17 * width] = Number.NaN;
      return tensor(device, [1, 1, 40, width], { data });
    };
    const q = put("q", 1, 8);
    const k = put("k", 2, 8);
    const v = put("v", 3, 5);
    const dOutput = put("dOutput", 4, 5);
    const { dQ, dK } = await linearAttentionBackward(q, k, v, { causal: true, dOutput });
    const rows = await Promise.all(
      [dQ, dK].map(async (one) => {
        const values = await (one as Tensor).read();
        return Array.from({ length: 40 }, (_, row) =>
          values.slice(8 * row, 8 * row + 8).some(Number.isNaN),
        );
      }),
    );
    for (const one of [q, k, v, dOutput, dQ, dK]) one?.destroy();
    return rows;
  };
  const all = Array.from({ length: 40 }, (_, row) => row);
  const from17 = all.map((row) => row >= 17);
  const to17 = all.map((row) => row <= 17);
  const only17 = all.map((row) => row === 17);
  expect(await run("q")).toEqual([only17, to17]);
  expect(await run("dOutput")).toEqual([only17, to17]);
  expect(await run("k")).toEqual([from17, all.map(() => true)]);
});

it("keeps memory bounded while the tokens grow", async () => {
  const device = idle(await testDevice());
  const planned = async (N: number, updateRule: "linear" | "delta") => {
    const shape = [1, 8, N, 64];
    const beta = updateRule === "delta" ? { beta: { shape: [1, 8, N, 1] } } : {};
    const plan = await planLinearAttentionBackward(device, {
      q: { shape },
      k: { shape },
      v: { shape },
      dOutput: { shape },
      updateRule,
      ...beta,
    });
    plan.destroy();
    return plan;
  };
  for (const rule of ["linear", "delta"] as const) {
    const short = await planned(2 ** 14, rule);
    const long = await planned(2 ** 17, rule);
    for (const plan of [short, long]) expect(plan.workspaceBytes).toBeLessThan(2 ** 26 + 2 ** 23);
    expect(long.dispatchCount).toBeLessThan(10 * short.dispatchCount);
  }
});

it("refuses what does not fit", async () => {
  const device = idle(await testDevice());
  const q = { shape: [1, 2, 4, 8] };
  const problem = { q, k: q, v: q, dOutput: q };
  const refuses = (options: object, message: RegExp) =>
    expectError(
      () => planLinearAttentionBackward(device, { ...problem, ...options }),
      "argument",
      message,
    );
  await refuses({ dOutput: { shape: [1, 2, 4, 7] } }, /dOutput must be \[1, 2, 4, 8\]/);
  await refuses({ gradients: [] }, /gradients must be a list of names/);
  await refuses({ gradients: ["dX"] }, /gradients must be a list of names/);
  await refuses({ gradients: ["dBeta"] }, /the problem has no beta/);
  await refuses({ gradients: ["dQ"], dK: q }, /dK is given, and gradients does not name it/);
  await refuses({ dQ: { shape: [1, 2, 4, 4] } }, /dQ must be \[1, 2, 4, 8\] as q/);
  await expectError(
    () => planLinearAttentionBackward(device, { ...problem, dQ: { ...q, strides: [0, 0, 8, 1] } }),
    "overlap",
    /elements of dQ share memory/,
  );
  await refuses(
    { updateRule: "linear", dPresentNormalizer: { shape: [1, 2, 8] } },
    /there is no dPresentNormalizer/,
  );
  await refuses({ dPresentState: { shape: [1, 2, 8, 7] } }, /dPresentState must be/);
});
