// The kernel of biases in memory against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  gatedPositionBias,
  planPositionBias,
  relativePositionBias,
  tensor,
} from "../../src/index.ts";
import { positionBias as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

function made(device: GPUDevice, seed: number, shape: readonly number[], dtype: Float = "f32") {
  const data = normal(seed, product(shape)).map(ROUND[dtype]);
  return { gpu: tensor(device, shape, { data, dtype }), cpu: { data, shape } };
}

describe("relativePositionBias", () => {
  it("is the table's number of every distance", async () => {
    const device = await testDevice();
    for (const { M, N, ...options } of [
      { M: 1, N: 1 },
      { M: 5, N: 3 },
      { M: 3, N: 70, queryOffset: 40 },
      { M: 70, N: 6, queryOffset: -3, bidirectional: false },
      { M: 67, N: 130, maxDistance: 20 },
      { M: 0, N: 3 },
      { M: 3, N: 0 },
    ]) {
      const table = made(device, 1, [8, 3]);
      const { output } = await relativePositionBias(table.gpu, { seqQ: M, seqKv: N, ...options });
      expect(output.shape).toEqual([1, 3, M, N]);
      expect(await output.read()).toEqual(
        Float32Array.from(reference([1, 3, M, N], { table: table.cpu, ...options })),
      );
      output.destroy();
    }
  });
  it("is of 16 bits, and of tables head by head", async () => {
    const device = await testDevice();
    const { gpu, cpu } = made(device, 2, [3, 32], "f16");
    const { output } = await relativePositionBias(gpu.permute(1, 0), { seqQ: 9, seqKv: 9 });
    const data = Array.from({ length: 96 }, (_, i) => cpu.data[32 * (i % 3) + Math.floor(i / 3)]);
    expect([...(await output.read())]).toEqual([
      ...reference([1, 3, 9, 9], { table: { data, shape: [32, 3] } }),
    ]);
  });
});

describe("gatedPositionBias", () => {
  it("multiplies by the gates of each query", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    for (const [B, M, N] of [
      [2, 5, 7],
      [1, 67, 30],
    ]) {
      const bias = made(device, 3, [1, 2, M, N]);
      const update = made(device, 4, [B, 2, M, 1]);
      const reset = made(device, 5, [B, 2, M, 1]);
      const scale = made(device, 6, [1, 2, 1, 1]);
      const { output } = await gatedPositionBias(bias.gpu, {
        update: update.gpu,
        reset: reset.gpu,
        scale: scale.gpu,
      });
      const options = {
        bias: bias.cpu,
        gates: { update: update.cpu, reset: reset.cpu, scale: scale.cpu },
      };
      const shape = [B, 2, M, N];
      const plain = reference(shape, { ...options, precision: "f32" });
      expectClose("output", await output.read(), { f64: reference(shape, options), plain }, shape);
    }
  });
  it("takes far gates for 0 and 1", async () => {
    const device = await testDevice();
    const put = (data: number[]) => tensor(device, [1, 1, data.length, 1], { data });
    const update = put([-1e30, 1e30, 1e30]);
    const reset = put([1e30, -1e30, 1e30]);
    const { output } = await gatedPositionBias(put([1, 1, 1]), { update, reset, scale: put([5]) });
    expect([...(await output.read())]).toEqual([2, 1, 6]);
  });
});

describe("errors of position biases", () => {
  it("name what is wrong", async () => {
    const device = await testDevice();
    const table = tensor(device, [8, 3]);
    const bias = tensor(device, [1, 3, 4, 4]);
    const gate = tensor(device, [1, 3, 4, 1]);
    const output = { shape: [1, 3, 4, 4] };
    const cases: [() => unknown, string][] = [
      [
        () => planPositionBias(device, { output }),
        "positionBias: give a table or a bias, one of the two.",
      ],
      [
        () => planPositionBias(device, { table }),
        "positionBias: output is needed with a table, and says how many queries and keys there are.",
      ],
      [
        () => planPositionBias(device, { bias, update: gate, reset: gate }),
        "positionBias: update, reset and scale belong together; only update and reset were given.",
      ],
      [
        () => planPositionBias(device, { bias: { shape: [4, 4] } }),
        "positionBias: output must have the four axes BHMN, got shape [4, 4].",
      ],
      [
        () => planPositionBias(device, { table, output: { shape: [1, 2, 4, 4] } }),
        "positionBias: table must be [8, 2] by buckets and heads, got [8, 3].",
      ],
      [
        () => relativePositionBias(tensor(device, [7, 3]), { seqQ: 4, seqKv: 4 }),
        "relativePositionBias needs at least 4 buckets, an even number, got 7.",
      ],
      [
        () =>
          gatedPositionBias(bias, { update: gate, reset: gate, scale: tensor(device, [2, 1, 1]) }),
        "gatedPositionBias: scale must broadcast to [1, 3, 4, 1], got [2, 1, 1].",
      ],
    ];
    for (const [work, message] of cases) await expectError(work, "argument", message);
  });
});
