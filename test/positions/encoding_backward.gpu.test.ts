// The gradients of position encodings against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type PositionEncodingBackwardOptions,
  positionEncodingBackward,
  tensor,
} from "../../src/index.ts";
import { positionEncodingBackward as reference } from "../../src/reference/index.ts";
import { integers } from "../../src/reference/random.ts";
import type { Float } from "../support/cases.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectGradientsClose, GradientTensors, type Made } from "../support/gradients.ts";

failOnGpuErrors();

interface Case {
  /** Of dOutput, [B, M, D]. */
  readonly shape: readonly number[];
  /** Rows of the table; none if it is sinusoidal. */
  readonly P?: number;
  readonly scale?: number;
  readonly dtype?: Float;
  readonly made?: Made;
  readonly gradients?: PositionEncodingBackwardOptions["gradients"];
  /** The position of each row, or of the first row of each entry. */
  readonly ids?: readonly number[];
  readonly offset?: number | readonly number[];
  /** Whether only the floor of the bound is allowed, and not the error of plain f32. */
  readonly tight?: boolean;
  /** Whether positions are on the GPU. */
  readonly onGpu?: boolean;
}

async function run(device: GPUDevice, one: Case): Promise<void> {
  const { shape, P, scale, dtype = "f32", made, gradients, ids, offset, onGpu } = one;
  const [batch, rows, width] = shape;
  const tensors = new GradientTensors(device);
  const dOutput = tensors.make(1, shape, { dtype, ...made });
  const table = P === undefined ? undefined : tensors.make(2, [P, width], { dtype });
  const onDevice = (values: readonly number[], size: readonly number[]) =>
    onGpu ? tensor(device, size, { dtype: "i32", data: values }) : values;
  const positions = {
    ...(ids && {
      positionIds: onDevice(ids, ids.length === rows ? [rows] : [batch, rows]),
    }),
    ...(offset !== undefined && {
      positionOffset: typeof offset === "number" ? offset : onDevice(offset, [batch]),
    }),
  };
  const has = (name: "dX" | "dTable") => gradients?.includes(name) ?? true;
  const into = {
    ...(has("dX") && { dX: tensors.poisoned(shape, { dtype, ...made }) }),
    ...(table && has("dTable") && { dTable: tensors.poisoned([P ?? 0, width], { dtype }) }),
  };
  const results = await positionEncodingBackward(dOutput.gpu, {
    ...positions,
    ...into,
    ...(scale !== undefined && { scale }),
    ...(gradients && { gradients }),
    ...(table && { table: table.gpu }),
  });
  expect(results.dX === into.dX && results.dTable === into.dTable).toBe(true);
  const first = (entry: number) => (typeof offset === "number" ? offset : (offset?.[entry] ?? 0));
  const options = {
    ...(table && { table: table.cpu }),
    ...(scale !== undefined && { scale }),
    position: (entry: number, row: number) =>
      ids ? ids[ids.length === rows ? row : entry * rows + row] : first(entry) + row,
  };
  const x = { data: dOutput.cpu.data, shape };
  const f64 = reference(x, dOutput.cpu.data, options);
  const plain = one.tight ? f64 : reference(x, dOutput.cpu.data, { ...options, precision: "f32" });
  await expectGradientsClose({ ...results }, f64, plain);
  for (const given of Object.values(positions))
    if (typeof given === "object" && "destroy" in given) given.destroy();
  tensors.destroy();
}
const all = async (...cases: readonly Case[]) => {
  for (const one of cases) await run(await testDevice(), one);
};

describe("positionEncodingBackward", () => {
  it("of sinusoids is the scaled gradient", () =>
    all(
      { shape: [2, 5, 8], scale: 3 },
      { shape: [2, 3, 5], scale: 0.5, dtype: "f16" },
      { shape: [0, 3, 8] },
    ));
  it("sums rows of one position, which the host knows", () =>
    all(
      { shape: [7, 5, 8], P: 9, scale: 2, offset: 3 },
      { shape: [7, 5, 8], P: 9, ids: integers(5, 35, 0, 8) },
      { shape: [3, 5, 8], P: 9, offset: [4, 0, 1], made: { spread: 1e20 } },
      { shape: [3, 5, 8], P: 6, ids: [0, 0, 3, 3, 3], made: { spread: 1e-20 } },
      { shape: [0, 5, 8], P: 6 },
    ));
  it("sums rows of one position, which the GPU sorts", () =>
    all(
      // 259 has no row, nor a second digit among those that P needs: it must not be taken for 3.
      {
        shape: [70, 9, 8],
        P: 9,
        ids: integers(5, 630, -1, 10).map((id) => (id === 10 ? 259 : id)),
        onGpu: true,
      },
      { shape: [3, 300, 8], P: 700, ids: integers(6, 900, 0, 699), onGpu: true },
      { shape: [3, 5, 8], P: 9, offset: [-2, 6, 1], onGpu: true },
      { shape: [3, 5, 8], P: 6, ids: [0, 0, 3, 3, 3], onGpu: true },
    ));
  it("in 16 bits, at strides, one of the two", () =>
    all(
      { shape: [3, 5, 6], P: 4, ids: [0, 3, 3, 1, 0], dtype: "bf16", made: { order: [1, 0, 2] } },
      { shape: [3, 5, 8], P: 9, gradients: ["dTable"] },
    ));
  it("adds rows of one position in parts of 65,536, with the error of few", async () => {
    const device = await testDevice();
    await run(device, {
      shape: [1, 70_000, 1],
      P: 2,
      ids: integers(7, 70_000, 0, 1),
      made: { mean: 1 },
      gradients: ["dTable"],
      tight: true,
    });
  });
  it("covers more rows than a dimension of a grid has workgroups", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { shape: [30, 60, 8], P: 400, ids: integers(8, 1800, 0, 399), onGpu: true });
  });
  it("has the same bits again", async () => {
    const device = await testDevice();
    const tensors = new GradientTensors(device);
    const dOutput = tensors.make(1, [3, 300, 8]).gpu;
    const table = tensors.make(2, [9, 8]).gpu;
    const positionIds = tensor(device, [3, 300], { dtype: "i32", data: integers(9, 900, 0, 8) });
    const bits = async () => {
      const { dX, dTable } = await positionEncodingBackward(dOutput, { table, positionIds });
      const values = await dTable?.read();
      for (const one of [dX, dTable]) one?.destroy();
      return values;
    };
    expect(await bits()).toEqual(await bits());
    positionIds.destroy();
    tensors.destroy();
  });
  it("refuses what is wrong", async () => {
    const device = await testDevice();
    const dOutput = tensor(device, [1, 3, 8]);
    const table = tensor(device, [2, 8]);
    await expectError(
      () => positionEncodingBackward(dOutput, { gradients: ["dTable"] }),
      "argument",
      "positionEncodingBackward: dTable is the gradient of a tensor that was not given. Gradients: dX.",
    );
    await expectError(
      () => positionEncodingBackward(dOutput, { table }),
      "argument",
      "positionEncodingBackward: positionOffset[0] is 0, and 2 rows follow; positions are whole numbers from 0 to 1, rows of the table.",
    );
    await expectError(
      () => positionEncodingBackward(table),
      "argument",
      "positionEncodingBackward: dOutput must be [B, M, D], got [2,8].",
    );
    for (const one of [dOutput, table]) one.destroy();
  });
});
