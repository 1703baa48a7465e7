// The forward kernel of subgroup matrices against the float64 reference. No software adapter has
// them, so a stand-in for lib/matrix does the same by other means
// (test/support/matrix_emulated.wesl); the real text is compiled, for every configuration, in
// forward_matrix.dawn.test.ts.

import { describe, expect, it } from "vitest";
import { assemblePlan } from "../../src/attention/assemble.ts";
import type { Taken } from "../../src/given.ts";
import { type AttentionPlan, type AttentionProblem, tensor } from "../../src/index.ts";
import {
  type Component,
  type MatrixTile,
  matrixGrid,
  matrixKernel,
  matrixTile,
} from "../../src/kernels/forward_matrix.ts";
import type { SlotChoice } from "../../src/kernels/slots.ts";
import { largest, attention as reference, worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, ROUND, runCase, title } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { standIns } from "../support/matrices.ts";

failOnGpuErrors();

type Shape = readonly [component: Component, M: number, N: number, K: number, lanes: number];

/** Plans a problem on matrices of a shape. */
const planOn =
  ([component, M, N, K, lanes]: Shape) =>
  async (device: GPUDevice, problem: AttentionProblem) => {
    const configs = [{ componentType: component, resultComponentType: "f32", M, N, K }];
    const limits = {
      configs,
      subgroupMinSize: lanes,
      subgroupMaxSize: lanes,
      workgroupBytes: 32768,
      invocations: 2 * lanes,
    };
    const { plan } = await assemblePlan(
      device,
      problem as Taken<AttentionProblem>,
      ({ headDim, vDim, seqQ }) => {
        const tile = matrixTile(component, headDim, vDim, limits) as MatrixTile;
        const stagesOf = async (slots: SlotChoice) => [
          {
            source: await matrixKernel({ headDim, vDim, tile, ...slots }, standIns(component)),
            grid: matrixGrid(tile, headDim, vDim, seqQ),
          },
        ];
        return { stagesOf };
      },
    );
    return plan;
  };

function run(device: GPUDevice, plan: AttentionPlan): void {
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}

const all = (shape: Shape, problems: readonly Case[]) => {
  for (const problem of problems) {
    it(title(problem), async () => runCase(await testDevice(), problem, planOn(shape)));
  }
};

// Lengths around the rows of a tile (32) and its keys (32).
const LENGTHS = [
  [1, 1],
  [31, 33],
  [32, 32],
  [33, 31],
  [70, 130],
  [5, 509],
] as const;

describe("16 x 16 x 16 of f16", () => {
  const half = { D: 32, dtype: "f16" } as const;
  all(
    ["f16", 16, 16, 16, 32],
    [
      ...LENGTHS.flatMap(([M, N]) =>
        [false, true].map((causal) => ({ ...half, H: 2, M, N, causal })),
      ),
      { ...half, M: 3, N: 0 },
      { ...half, M: 0, N: 3 },
      { ...half, B: 2, H: 6, Hkv: 2, M: 33, N: 40, causal: "top-left" },
      { ...half, M: 70, N: 100, causal: true, queryOffset: -70 }, // every row is empty
      { ...half, B: 3, M: 66, N: 90, window: [5, 7], queryOffset: [-70, 0, 24] },
      { ...half, M: 70, N: 200, window: [5, 0], sinkTokens: 37, causal: true },
      { ...half, M: 100, N: 70, attentionChunk: 33 },
      { ...half, H: 2, M: 65, N: 130, spread: 50, causal: true },
      { ...half, H: 2, M: 65, N: 130, spread: 3, valueSpread: 1e4 },
      { ...half, H: 2, M: 65, N: 130, scale: 0 },
      { ...half, H: 2, M: 65, N: 130, scale: -2, maxDispatchFlops: 1e5 },
    ],
  );
  all(
    ["f16", 16, 16, 16, 32],
    [
      {
        ...half,
        B: 5,
        H: 2,
        M: 40,
        N: 70,
        kvLengths: [70, 0, 1, 32, 33],
        qLengths: [40, 40, 7, 0, 40],
        causal: true,
        poison: true,
        layout: "bmhd",
      },
      // two shares of v
      { H: 2, M: 37, N: 145, D: 40, Dv: 132, dtype: "f16", spread: 3, causal: true },
      {
        D: 12,
        B: 2,
        H: 4,
        Hkv: 2,
        M: 70,
        N: 90,
        causal: true,
        kvLengths: [90, 61],
        dtype: "f16",
        qLengths: [70, 50],
        window: [40, 9],
        softcap: 8,
        alibi: "BH",
        relativeBias: { buckets: 8 },
        sinks: true,
        rowMax: true,
        mask: { axes: "HMN" },
        bias: { axes: "BMN", blocked: 0.1 },
        dropout: { p: 0.25, seed: 9 },
        scoreFunction: "sloped",
        maskFunction: "heads",
      },
    ],
  );
});

describe("8 x 8 x 8 of f32", () => {
  const shape = ["f32", 8, 8, 8, 32] as const;
  all(shape, [
    ...LENGTHS.map(([M, N]) => ({ H: 2, M, N, D: 12, causal: true })),
    { H: 2, M: 65, N: 130, D: 12, spread: 50 },
    { D: 12, H: 2, M: 200, N: 300, maskFunction: "causal", blockSize: [64, 96], window: [30, 10] },
  ]);
});

describe("other shapes and subgroups", () => {
  all(["f32", 8, 8, 8, 8], [{ H: 2, M: 37, N: 70, D: 24, Dv: 30, causal: true }]);
  all(["f32", 16, 32, 16, 16], [{ H: 2, M: 37, N: 70, D: 7, Dv: 5, causal: true }]);
});

describe("8 x 16 x 16 of f16", () => {
  it("rounds probabilities, and nothing else", async () => {
    const device = await testDevice();
    const M = 70;
    const D = 24;
    const scale = 0.7;
    const shape = [1, 1, M, D];
    const [q, k, v] = [1, 2, 3].map((seed) => ({
      shape,
      data: normal(seed, M * D).map(ROUND.f16),
    }));
    const [qGpu, kGpu, vGpu] = [q, k, v].map(({ data }) =>
      tensor(device, shape, { data, dtype: "f16" }),
    );
    const output = tensor(device, shape);
    const lse = tensor(device, [1, 1, M]);
    const problem = { q: qGpu, k: kGpu, v: vGpu, output, lse, causal: true, scale };
    run(device, await planOn(["f16", 8, 16, 16, 16])(device, problem));
    const f64 = reference(q, k, v, { causal: true, scale });
    const plain = reference(q, k, v, { causal: true, scale, precision: "f32" });
    expectClose("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, [1, 1, M]);
    const worst = worstElement(await output.read(), f64.output, shape);
    expect(worst.error).toBeLessThan(2 ** -11 * largest(v.data));
    expect(worst.error).toBeGreaterThan(2 ** -16); // products were in f16 indeed
  });
});

describe("values that are not finite", () => {
  it("reach the rows that see them, and no others", async () => {
    const device = await testDevice();
    const M = 70;
    const D = 12;
    const nan = 20;
    const infinity = 40;
    const shape = [1, 1, M, D];
    const [q, k, v] = [1, 2, 3].map((seed) => ({ shape, data: normal(seed, M * D) }));
    const f64 = reference(q, k, v, { causal: true }).output;
    const plain = reference(q, k, v, { causal: true, precision: "f32" }).output;
    v.data[nan * D + 3] = Number.NaN;
    v.data[infinity * D + 5] = Number.POSITIVE_INFINITY;
    const [qGpu, kGpu, vGpu] = [q, k, v].map(({ data }) => tensor(device, shape, { data }));
    const output = tensor(device, shape);
    const lse = tensor(device, [1, 1, M]);
    const problem = { q: qGpu, k: kGpu, v: vGpu, output, lse, causal: true };
    const plan = await planOn(["f32", 8, 8, 8, 32])(device, problem);
    run(device, plan);
    const values = await output.read();
    const meets = (index: number) =>
      (index % D === 3 && index >= nan * D) || (index % D === 5 && index >= infinity * D);
    expect(
      Array.from(values, (value, index) => Number.isFinite(value) !== meets(index)).every(Boolean),
    ).toBe(true);
    const finite = (array: ArrayLike<number>) =>
      Array.from(array, (value, index) => (meets(index) ? 0 : value));
    expectClose("output", finite(values), { f64: finite(f64), plain: finite(plain) }, shape);
  });
});
