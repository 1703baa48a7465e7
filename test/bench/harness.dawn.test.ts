// What the harness makes of a case: yardsticks, tensors of f16, and implementations that a device
// does not have.

import { expect, it } from "vitest";
import { type Measurement, measure } from "../../bench/harness.ts";
import { PEAK } from "../../bench/peak.ts";
import { FOVEA, SUITES } from "../../bench/suites.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const dims = { B: 1, H: 2, Hkv: 2, M: 33, N: 40, D: 8, Dv: 8, causal: false } as const;

it("counts multiply-adds beside attention of f16, and notes what is missing", async () => {
  const [{ implementations }] = SUITES.half(true) as {
    implementations: readonly (typeof FOVEA)[];
  }[];
  const matrices = implementations.filter(({ name }) => name === "fovea:matrix-f16");
  const notes: string[] = [];
  const steps: string[] = [];
  const options = {
    suite: "half",
    name: "small",
    dims: { ...dims, dtype: "f16" as const },
    rounds: 2,
    note: (text: string) => notes.push(text),
    onStep: () => steps.push("step"),
  };
  const rows = await measure(await testDevice(), {
    ...options,
    implementations: [FOVEA, ...matrices, PEAK],
  });
  const [fovea, fma] = rows as [Measurement, Measurement];
  expect(rows).toMatchObject([
    { impl: "fovea", correct: true },
    { impl: "fma", correct: true, maxError: 0, ofPeak: 1 },
  ]);
  expect(fovea.maxError).toBeGreaterThan(0);
  expect(fovea.ofPeak).toBeCloseTo(fovea.gflops / fma.gflops, 12);
  // Attention has 84,480 operations. The kernel has the nearest number that 64 invocations reach in
  // turns of 512 each.
  expect((fma.gflops * fma.ms.median) / 64).toBeCloseTo((3 * 512) / 1e6, 12);
  expect(notes).toHaveLength(1);
  expect(notes[0]).toMatch(
    /^half, small: fovea:matrix-f16 is not offered by this adapter: variant matrix-f16 needs /,
  );
  expect(steps).toHaveLength(3 * (2 + 1));
});

it("fails for any other implementation that can't be planned", async () => {
  const broken = { ...FOVEA, plan: () => Promise.reject(new Error("broken")) };
  const options = {
    suite: "half",
    name: "small",
    dims,
    rounds: 1,
    implementations: [{ ...broken, optional: true }],
  };
  await expect(measure(await testDevice(), options)).rejects.toThrow("broken");
});
