// The rotary kernel against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  planRotary,
  type RotaryOptions,
  rotary,
  type Tensor,
  tensor,
  unpackQkv,
} from "../../src/index.ts";
import { type ReferenceRotaryOptions, rotary as reference } from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { defined } from "../support/features.ts";

failOnGpuErrors();

interface Case extends RotaryOptions {
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  readonly D: number;
  readonly layout?: "bhmd" | "bmhd";
  /** Dtypes of x and output. */
  readonly dtypes?: readonly [x: Float, output: Float];
  readonly inPlace?: boolean;
  readonly conjugate?: boolean;
  /** Elements between the rows of x and output beyond their own. */
  readonly gap?: number;
  readonly offset?: number | readonly number[];
  /** Positions: as many as rows, or three times as many. */
  readonly ids?: readonly number[];
  readonly idsShape?: readonly number[];
  /** Whether positions are on the GPU. */
  readonly onGpu?: boolean;
}

/** Runs a case into poisoned memory and compares. */
async function run(device: GPUDevice, problem: Case): Promise<Float32Array> {
  const {
    B = 1,
    H = 1,
    M,
    D,
    layout = "bhmd",
    dtypes = ["f32", "f32"],
    gap = 0,
    offset,
    ids,
    onGpu = false,
  } = problem;
  const { inPlace = false, conjugate = false, idsShape = [], ...rest } = problem;
  const {
    rotaryDim,
    interleaved,
    base,
    scaling,
    frequencies,
    attentionFactor,
    sections,
    sectionLayout,
  } = rest;
  const options = defined<RotaryOptions>({
    rotaryDim,
    interleaved,
    base,
    scaling,
    frequencies,
    attentionFactor,
    sections,
    sectionLayout,
  });
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  const shape = layout === "bhmd" ? [B, H, M, D] : [B, M, H, D];
  const strides = [shape[1] * shape[2] * (D + gap), shape[2] * (D + gap), D + gap, 1];
  const data = normal(7, product(shape)).map(ROUND[dtypes[0]]);
  const x = keep(tensor(device, shape, { data, strides, dtype: dtypes[0], label: "x" }));
  const nan = new Float32Array(product(shape)).fill(Number.NaN);
  const output = inPlace
    ? x
    : keep(tensor(device, shape, { data: nan, strides, dtype: dtypes[1] }));
  const integers = (values: readonly number[], size: readonly number[]) =>
    keep(tensor(device, size, { dtype: "i32", data: values }));
  const where = {
    ...(offset !== undefined && {
      positionOffset: onGpu && Array.isArray(offset) ? integers(offset, [B]) : offset,
    }),
    ...(ids && { positionIds: onGpu ? integers(ids, idsShape) : ids }),
  };
  const given = { ...options, ...where, layout, conjugate };
  const result = await rotary(x, inPlace ? { ...given, inPlace } : { ...given, output });
  expect(result.output).toBe(output);

  const offsets =
    typeof offset === "number" ? new Array(B).fill(offset) : (offset ?? new Array(B).fill(0));
  const perStream = sections ? (ids?.length ?? 0) / 3 : (ids?.length ?? 0);
  const position: ReferenceRotaryOptions["position"] = (stream, b, row) =>
    ids ? ids[stream * perStream + ((b * M) % perStream) + row] : offsets[b] + row;
  const cpu = { ...options, layout, conjugate, position } as ReferenceRotaryOptions;
  const f64 = reference({ data, shape }, cpu);
  const stored = reference({ data, shape }, { ...cpu, precision: "f32" }).map(ROUND[dtypes[1]]);
  const values = (await output
    .permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]))
    .read()) as Float32Array;
  expectClose("output", values, { f64, plain: stored }, [B, H, M, D], dtypes[1]);
  for (const one of used) one.destroy();
  return values;
}

const shapes = [
  { M: 1 },
  { H: 3, M: 5 },
  { B: 2, H: 4, M: 17 },
  { B: 3, H: 9, M: 2 },
  { H: 5, M: 65 },
];
const all = async (problem: Omit<Case, "M">, sizes: readonly Partial<Case>[] = shapes) => {
  const device = await testDevice();
  for (const size of sizes) await run(device, { ...problem, ...size } as Case);
};

describe("pairs", () => {
  it("of halves", () => all({ D: 16 }));
  it("of halves of a part of the row", () => all({ D: 20, rotaryDim: 8 }));
  it("of halves that aren't whole vec4s", () => all({ D: 16, rotaryDim: 12 }));
  it("of halves in rows that aren't whole vec4s", () => all({ D: 11, rotaryDim: 6 }));
  it("of neighbours", () => all({ D: 16, interleaved: true }));
  it("of neighbours, the last ones half a vec4", () =>
    all({ D: 20, rotaryDim: 10, interleaved: true }));
  it("of neighbours in rows of two", () => all({ D: 2, interleaved: true }));
  it("and what is not rotated is copied, whatever it holds", async () => {
    const device = await testDevice();
    const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0];
    for (const options of [
      { rotaryDim: 8 },
      { rotaryDim: 12 },
      { rotaryDim: 10, interleaved: true },
    ]) {
      const tail = Array.from({ length: 20 - options.rotaryDim }, (_, i) => odd[i % 4]);
      const x = tensor(device, [1, 1, 1, 20], {
        data: [...new Array(options.rotaryDim).fill(1), ...tail],
      });
      const { output } = await rotary(x, { ...options, positionOffset: 3 });
      const values = [...(await output.read())];
      expect(values.slice(options.rotaryDim)).toEqual(tail);
      expect(values.slice(0, options.rotaryDim).every(Number.isFinite)).toBe(true);
    }
  });
});

describe("frequencies compile nothing", () => {
  it.each<RotaryOptions>([
    { base: 500_000, scaling: { type: "llama3", factor: 8, originalMaxPositions: 8192 } },
    { base: 1e6, scaling: { type: "yarn", factor: 4, originalMaxPositions: 32_768 } },
    { scaling: { type: "linear", factor: 8 } },
    { scaling: { type: "ntk", factor: 8 } },
    { frequencies: [1, -1, 3, 0, 0.5, 1e-3, 2, 3.14], attentionFactor: 0.7 },
  ])("%j", (options) => all({ D: 16, ...options }, [{ B: 2, H: 2, M: 9, offset: 131_000 }]));
});

describe("positions", () => {
  it("from a first one, near and far and below 0", async () => {
    for (const offset of [0, 1, 255, 65_530, 100_000, 2 ** 23 - 5, -3, -(2 ** 23)]) {
      await all({ D: 16, offset }, [{ H: 2, M: 5 }]);
    }
  });
  const ids = [5, 3, 100_000, 0, -7, 5, 5, 9, 300, 65_536];
  it.each<Partial<Case>>([
    { offset: [7, 100_001] },
    { offset: [7, 100_001], onGpu: true },
    { ids },
    { ids, onGpu: true, idsShape: [2, 5] },
    { ids: ids.slice(0, 5) },
    { ids: ids.slice(0, 5), onGpu: true, idsShape: [1, 5] },
    { ids: ids.slice(0, 5), onGpu: true, idsShape: [5] },
  ])("%j", (where) => all({ D: 16, ...where }, [{ B: 2, H: 3, M: 5 }]));
  it("of time, height and width", async () => {
    const streams = integers(3, 3 * 2 * 5, 0, 5000);
    const sections = [4, 3, 1] as const;
    await all({ D: 16, sections, ids: streams }, [{ B: 2, H: 3, M: 5 }]);
    await all({ D: 16, sections, ids: streams, onGpu: true, idsShape: [3, 2, 5] }, [
      { B: 2, H: 3, M: 5 },
    ]);
    const shared = { ids: streams.slice(0, 15), onGpu: true, idsShape: [3, 1, 5] };
    await all({ D: 16, sections, ...shared }, [{ B: 2, H: 3, M: 5 }]);
    // a text, whose three positions are the same
    await all({ D: 16, sections, offset: [3, 9] }, [{ B: 2, H: 3, M: 5 }]);
    const mixed = { sections: [4, 3, 1], sectionLayout: "interleaved" } as const;
    await all({ D: 16, ...mixed, ids: streams }, [{ B: 2, H: 3, M: 5 }]);
  });
});

describe("places", () => {
  const size = [{ B: 2, H: 5, M: 7 }];
  it("in the other layout", () => all({ D: 16, layout: "bmhd", offset: 9 }, size));
  it("with gaps between rows", () => all({ D: 16, gap: 3, offset: 9 }, size));
  it.each<Partial<Case>>([
    { D: 16 },
    { D: 20, rotaryDim: 8 },
    { D: 16, rotaryDim: 12 },
    { D: 20, rotaryDim: 10, interleaved: true },
    { D: 11, rotaryDim: 6, dtypes: ["f16", "f16"] },
    { D: 16, dtypes: ["bf16", "bf16"] },
  ])("in place: %j", (options) => all({ ...(options as Case), inPlace: true, offset: 100 }, size));
  it.each<Partial<Case>>([
    { dtypes: ["f16", "f16"] },
    { dtypes: ["bf16", "f32"], gap: 1 },
    { dtypes: ["f32", "f16"], gap: 5 },
  ])("%j", (options) => all({ D: 16, offset: 100, ...options }, size));
  it("in place of q in a packed projection, whose k and v stay", async () => {
    const device = await testDevice();
    const B = 2;
    const H = 2;
    const M = 3;
    const D = 16;
    const data = normal(9, B * M * 3 * H * D);
    const qkv = tensor(device, [B, M, 3 * H * D], { data });
    const { q, k, v } = unpackQkv(qkv, { heads: H, headDim: D });
    const before = await Promise.all([q, k, v].map((one) => one.read()));
    await rotary(q, { positionOffset: 100, inPlace: true });
    const after = await Promise.all([q, k, v].map((one) => one.read()));
    const given = { data: before[0], shape: [B, H, M, D] };
    const position = (_: number, __: number, row: number) => 100 + row;
    const f64 = reference(given, { position });
    expectClose(
      "q",
      after[0],
      { f64, plain: reference(given, { position, precision: "f32" }) },
      given.shape,
    );
    expect(after.slice(1)).toEqual(before.slice(1));
    qkv.destroy();
  });
  it("of no element", () => all({ D: 16 }, [{ M: 0 }, { B: 0, M: 3 }, { H: 0, M: 3 }]));
  it("in grids that are longer than a dimension may be", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    await run(device, { B: 2, H: 9, M: 67, D: 16 });
  });
});

describe("the other way", () => {
  it("is the transpose", () => all({ D: 16, conjugate: true, attentionFactor: 1.5, offset: 77 }));
  it("brings back what was rotated", async () => {
    const device = await testDevice();
    const data = normal(3, 2 * 3 * 5 * 16);
    const x = tensor(device, [2, 3, 5, 16], { data });
    const options = { base: 100, positionOffset: [4, 123_456], inPlace: true };
    await rotary(x, options);
    expect(await x.read()).not.toEqual(data);
    await rotary(x, { ...options, conjugate: true });
    expectClose("x", await x.read(), { f64: data, plain: data }, x.shape);
    x.destroy();
  });
});

describe("cos and sin of the caller's", () => {
  const B = 2;
  const H = 3;
  const M = 5;
  const D = 16;
  const half = 4;
  const rows = 50;
  const data = normal(5, B * H * M * D);

  async function compare(
    dtype: Float,
    cacheShape: readonly number[],
    ids: readonly number[] | undefined,
    onGpu = false,
  ) {
    const device = await testDevice();
    const x = tensor(device, [B, H, M, D], { data });
    const values = [1, 2].map((seed) => normal(seed, product(cacheShape)).map(ROUND[dtype]));
    const [cos, sin] = values.map((value) => tensor(device, cacheShape, { data: value, dtype }));
    const positionIds = ids && (onGpu ? tensor(device, [B, M], { dtype: "i32", data: ids }) : ids);
    const options = { conjugate: true, attentionFactor: 0.5 };
    const { output } = await rotary(x, {
      ...options,
      cos,
      sin,
      ...(positionIds && { positionIds }),
    });
    const flat = [product(cacheShape) / half, half];
    const cpu = {
      ...options,
      rotaryDim: 2 * half,
      cos: { data: values[0], shape: flat },
      sin: { data: values[1], shape: flat },
      position: (_: number, b: number, row: number) => {
        if (ids) return ids[b * M + row];
        return cacheShape.length === 3 ? b * M + row : row;
      },
    };
    const f64 = reference({ data, shape: x.shape }, cpu);
    const plain = reference({ data, shape: x.shape }, { ...cpu, precision: "f32" });
    expectClose("output", await output.read(), { f64, plain }, x.shape);
    for (const used of [x, cos, sin, output]) used.destroy();
  }

  it("by position", () => compare("f32", [rows, half], undefined));
  it("by ids, those without a row turning nothing", async () => {
    const ids = [0, 49, 50, -1, 7, 2 ** 30, -(2 ** 31), 13, 13, 1];
    await compare("f32", [rows, half], ids, true);
    await compare("f16", [rows, half], ids, true);
    await compare("bf16", [rows, half], [0, 49, 3, 4, 7, 8, 8, 13, 13, 1]);
  });
  it("by row", () => compare("f32", [B, M, half], undefined));
});

describe("a plan", () => {
  it("rotates the tensors of each run, in its own pass or the caller's", async () => {
    const device = await testDevice();
    const shape = [1, 2, 3, 16];
    const make = (seed: number) => tensor(device, shape, { data: normal(seed, product(shape)) });
    const first = make(1);
    const plan = await planRotary(device, {
      x: { shape },
      positionOffset: tensor(device, [1], { dtype: "i32", data: [5] }),
    });
    const outputs = [0, 1, 2].map(() => tensor(device, shape));
    const later = tensor(device, [1], { dtype: "i32", data: [6] });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { x: first, output: outputs[0] });
    const pass = encoder.beginComputePass();
    plan.encode(pass, { x: make(2), output: outputs[1] });
    plan.encode(pass, { x: first, output: outputs[2], positionOffset: later });
    pass.end();
    device.queue.submit([encoder.finish()]);
    plan.destroy();
    for (const [index, [seed, offset]] of [
      [1, 5],
      [2, 5],
      [1, 6],
    ].entries()) {
      const again = await rotary(make(seed), { positionOffset: offset });
      expect(await outputs[index].read()).toEqual(await again.output.read());
    }
  });
});
