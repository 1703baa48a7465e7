// The kernel of absolute position encodings against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  planPositionEncoding,
  positionEncoding,
  sinusoidalPositions,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceEncodingOptions,
  positionEncoding as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";

failOnGpuErrors();

interface Case
  extends Pick<ReferenceEncodingOptions, "maxWavelength" | "frequencies" | "order" | "scale"> {
  readonly B?: number;
  readonly M: number;
  readonly D: number;
  /** Rows of a learned table. */
  readonly P?: number;
  /** Dtypes of x, output and table. */
  readonly dtypes?: readonly [x: Float, output: Float, table: Float];
  readonly inPlace?: boolean;
  /** Elements between rows. */
  readonly gap?: number;
  readonly offset?: number | readonly number[];
  /** Ids of the positions, B * M or M of them. */
  readonly ids?: readonly number[];
  readonly onGpu?: boolean;
}

async function run(device: GPUDevice, problem: Case): Promise<void> {
  const {
    B = 1,
    M,
    D,
    P,
    gap = 0,
    offset,
    ids,
    onGpu = false,
    inPlace = false,
    ...options
  } = problem;
  const { dtypes = ["f32", "f32", "f32"], ...encoding } = options;
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  const shape = [B, M, D];
  const strides = [M * (D + gap), D + gap, 1];
  const data = normal(7, product(shape)).map(ROUND[dtypes[0]]);
  const x = keep(tensor(device, shape, { data, strides, dtype: dtypes[0] }));
  const nan = new Float32Array(product(shape)).fill(Number.NaN);
  const output = inPlace
    ? x
    : keep(tensor(device, shape, { data: nan, strides, dtype: dtypes[1] }));
  const rows = P === undefined ? undefined : normal(8, P * D).map(ROUND[dtypes[2]]);
  const table = rows && keep(tensor(device, [P as number, D], { data: rows, dtype: dtypes[2] }));
  const integers = (values: readonly number[], size: readonly number[]) =>
    onGpu ? keep(tensor(device, size, { dtype: "i32", data: values })) : values;
  const given = {
    ...encoding,
    ...(table && { table }),
    ...(offset !== undefined && {
      positionOffset: typeof offset === "number" ? offset : integers(offset, [B]),
    }),
    ...(ids && { positionIds: integers(ids, ids.length === M ? [M] : [B, M]) }),
  };
  const result = await positionEncoding(x, inPlace ? { ...given, inPlace } : { ...given, output });
  expect(result.output).toBe(output);

  const first = (b: number) => (typeof offset === "number" ? offset : (offset?.[b] ?? 0));
  const cpu: ReferenceEncodingOptions = {
    ...encoding,
    ...(rows && { table: { data: rows, shape: [P as number, D] } }),
    position: (b, row) => (ids ? ids[(b * M + row) % ids.length] : first(b) + row),
  };
  const f64 = reference({ data, shape }, cpu);
  const plain = reference({ data, shape }, { ...cpu, precision: "f32" }).map(ROUND[dtypes[1]]);
  expectClose("output", await output.read(), { f64, plain }, shape, dtypes[1]);
  for (const one of used) one.destroy();
}

const SHAPES = [{ M: 1 }, { B: 3, M: 5 }, { M: 67 }, { B: 2, M: 0 }, { B: 0, M: 2 }];
const all = async (problem: Omit<Case, "M">, sizes: readonly Partial<Case>[] = SHAPES) => {
  const device = await testDevice();
  for (const size of sizes) await run(device, { ...problem, ...size } as Case);
};
const SIZE = [{ B: 2, M: 5 }];
const IDS = [5, 3, 100_000, 0, -7, 5, 5, 9, 300, 65_536];

describe("sinusoidal encodings", () => {
  it("of whole vec4s", () => all({ D: 12 }));
  it("of an odd number of elements", () => all({ D: 7 }));
  it("of two and of one", async () => {
    await all({ D: 2 }, SIZE);
    await all({ D: 1 }, SIZE);
  });
  it("with all sines first", async () => {
    await all({ D: 12, order: "halves" });
    await all({ D: 6, order: "halves", maxWavelength: 50 }, SIZE);
  });
  it("of any positions", async () => {
    for (const offset of [0, 100_000, 2 ** 23 - 5, -(2 ** 23)]) await all({ D: 12, offset }, SIZE);
    await all({ D: 12, offset: [100_000, 3] }, SIZE);
    await all({ D: 12, ids: IDS, onGpu: true }, SIZE);
    await all({ D: 12, ids: IDS.slice(0, 5) }, SIZE);
    await all({ D: 12, frequencies: [3, 2, 1, 0, -1, 0.5], scale: 3.5, offset: 9 }, SIZE);
  });
  it("in place, with gaps between rows, in 16 bits", async () => {
    await all({ D: 12, inPlace: true, scale: 0.5 }, SIZE);
    await all({ D: 12, inPlace: true, dtypes: ["f16", "f16", "f32"], gap: 1 }, SIZE);
    await all({ D: 12, dtypes: ["bf16", "f16", "f32"] }, SIZE);
  });
  it("alone", async () => {
    const device = await testDevice();
    const output = tensor(device, [2, 3, 12], { data: new Float32Array(72).fill(Number.NaN) });
    const plan = await planPositionEncoding(device, { output, positionOffset: [4, 1_000_000] });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    const f64 = sinusoidalPositions([4, 5, 6, 1_000_000, 1_000_001, 1_000_002], 12);
    expectClose("output", await output.read(), { f64, plain: f64 }, [2, 3, 12]);
    plan.destroy();
    output.destroy();
  });
});

describe("learned encodings", () => {
  it("by row", () => all({ D: 12, P: 67 }));
  it("by ids, those without a row adding nothing", async () => {
    const ids = [0, 9, 10, -1, 4, 2 ** 30, -(2 ** 31), 3, 3, 1];
    await all({ D: 12, P: 10, ids, onGpu: true, scale: 2 }, SIZE);
    await all({ D: 12, P: 10, offset: [4, 7], onGpu: true }, SIZE); // rows 10 and 11 are not there
    await all({ D: 12, P: 0, offset: [4, 7], onGpu: true }, SIZE);
  });
  it("in rows of any length and of 16 bits", async () => {
    await all({ D: 5, P: 9, offset: 4 }, SIZE);
    await all({ D: 12, P: 9, dtypes: ["f16", "f32", "bf16"] }, SIZE);
    await all({ D: 12, P: 9, inPlace: true, dtypes: ["bf16", "bf16", "f16"] }, SIZE);
  });
  it("in grids that are longer than a dimension may be", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { B: 3, M: 130, D: 12, P: 130 });
  });
});
