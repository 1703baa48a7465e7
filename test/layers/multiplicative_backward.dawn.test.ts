// The gradients of multiplicative attention against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  planMultiplicativeAttentionBackward,
  tensor,
} from "../../src/index.ts";
import { multiplicativeAttentionBackward as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

interface Case {
  readonly layout: "bhmd" | "bmhd";
  readonly weight: readonly number[];
  readonly spread: number;
  readonly kvLengths?: readonly number[];
}

const CASES: readonly (readonly [name: string, given: Case])[] = [
  ["one matrix for all heads", { layout: "bhmd", weight: [8, 12], spread: 0.3 }],
  [
    "a matrix for each head",
    { layout: "bmhd", weight: [2, 8, 12], spread: 0.3, kvLengths: [37, 9] },
  ],
  ["large gradients of small rows", { layout: "bhmd", weight: [8, 12], spread: 1e-4 }],
];

describe("gradients of multiplicative attention", () => {
  it.each(CASES)("are right with %s", async (_, { layout, weight, spread, kvLengths }) => {
    const device = await testDevice();
    const shapeOf = (rows: number, columns: number) =>
      layout === "bhmd" ? [2, 2, rows, columns] : [2, rows, 2, columns];
    const make = (seed: number, shape: readonly number[], deviation = 1) => {
      const data = normal(seed, product(shape), deviation);
      return { shape, data, gpu: tensor(device, shape, { data }) };
    };
    const q = make(1, shapeOf(20, 8), spread);
    const k = make(2, shapeOf(37, 12));
    const v = make(3, shapeOf(37, 8));
    const w = make(4, weight);
    const dOutput = make(5, shapeOf(20, 8), 1 / spread);
    const options = { layout, causal: true, ...(kvLengths && { kvLengths }) };
    const { output, lse } = await multiplicativeAttention(q.gpu, k.gpu, v.gpu, w.gpu, {
      ...options,
      lse: true,
    });
    if (!lse) throw new Error("there is no lse");
    const poisoned = (shape: readonly number[]) =>
      tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });
    const results = {
      dQ: poisoned(q.shape),
      dK: poisoned(k.shape),
      dV: poisoned(v.shape),
      dWeight: poisoned(w.shape),
    };
    const given = { ...options, output, lse, dOutput: dOutput.gpu, ...results };
    await multiplicativeAttentionBackward(q.gpu, k.gpu, v.gpu, w.gpu, given);
    const byHeads = async (rows: { permute(...axes: number[]): { read(): Promise<unknown> } }) =>
      (await rows
        .permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]))
        .read()) as Float32Array;
    const cpu = { ...options, weight: w, dOutput: await byHeads(dOutput.gpu) };
    const f64 = reference(q, k, v, cpu);
    const plain = reference(q, k, v, {
      ...cpu,
      precision: "f32",
      output: await byHeads(output),
    });
    for (const name of ["dQ", "dK", "dV"] as const) {
      const found = await byHeads(results[name]);
      const expected = { f64: f64[name], plain: plain[name] };
      expectClose(name, found, expected, [found.length]);
    }
    const expected = { f64: f64.dWeight, plain: plain.dWeight };
    expectClose("dWeight", (await results.dWeight.read()) as Float32Array, expected, weight);
  });

  it("refuse weights of another shape", async () => {
    const device = await testDevice();
    const problem = {
      q: { shape: [1, 2, 5, 8] },
      k: { shape: [1, 2, 7, 12] },
      v: { shape: [1, 2, 7, 8] },
    };
    const plan = (options: object) => () =>
      planMultiplicativeAttentionBackward(device, {
        ...problem,
        weight: { shape: [8, 12] },
        ...options,
      });
    await expectError(
      plan({ weight: { shape: [12, 8] } }),
      "argument",
      "multiplicativeAttentionBackward: weight must be [Dq, Dk] = [8, 12] or [H, Dq, Dk] = [2, 8, 12], got [12, 8].",
    );
    await expectError(
      plan({ dWeight: { shape: [2, 8, 12] } }),
      "argument",
      "multiplicativeAttentionBackward: dWeight must be [8, 12], got [2, 8, 12].",
    );
    expect((await plan({})()).workspaceBytes).toBeGreaterThanOrEqual(2 * 4 * 2 * 5 * 12);
  });
});
