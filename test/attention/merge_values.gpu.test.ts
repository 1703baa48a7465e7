// The merge kernel against attention over all keys, and against the float64 merge of the same
// partial results.

import { describe, expect, it } from "vitest";
import {
  attention,
  type Layout,
  mergeAttention,
  planMerge,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  attention as referenceAttention,
  mergeAttention as referenceMerge,
  worstElement,
} from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, plainDevice, testDevice, withLimits } from "../support/device.ts";

failOnGpuErrors();

const NONE = Number.NEGATIVE_INFINITY;

/** A partial result on the CPU, dense in [B, H, M, Dv] and [B, H, M]. */
interface Part {
  readonly output: Float32Array<ArrayBuffer>;
  readonly lse: Float32Array<ArrayBuffer>;
}
type Sizes = readonly [B: number, H: number, M: number, Dv: number];

const poisoned = (device: GPUDevice, shape: readonly number[]) =>
  tensor(device, shape, { data: new Float32Array(product(shape)).fill(Number.NaN) });

/**
 * Makes partials of random outputs, with LSEs around `centres`, one centre for each partial. A row
 * is empty if `empty` says so.
 */
function randomParts(
  sizes: Sizes,
  centres: readonly number[],
  empty: (part: number, row: number) => boolean = () => false,
): Part[] {
  const [B, H, M, Dv] = sizes;
  return centres.map((centre, part) => {
    const output = normal(20 + part, product(sizes));
    const lse = normal(40 + part, B * H * M).map((value) => centre + value);
    for (let row = 0; row < lse.length; row++) {
      if (!empty(part, row)) continue;
      lse[row] = NONE;
      output.fill(Number.NaN, row * Dv, (row + 1) * Dv);
    }
    return { output, lse };
  });
}

const lseShape = ([B, H, M]: Sizes) => [B, H, M];
const upload = (device: GPUDevice, sizes: Sizes, { output, lse }: Part) => ({
  output: tensor(device, sizes, { data: output }),
  lse: tensor(device, lseShape(sizes), { data: lse }),
});

/** Compares a merge, in BHMD order, with the float64 one. */
async function expectMerged(
  result: { output: Tensor; lse: Tensor },
  sizes: Sizes,
  parts: readonly Part[],
) {
  const f64 = referenceMerge(parts);
  const plain = referenceMerge(parts, { precision: "f32" });
  expectClose(
    "output",
    await result.output.read(),
    { f64: f64.output, plain: plain.output },
    sizes,
  );
  expectClose("lse", await result.lse.read(), { f64: f64.lse, plain: plain.lse }, lseShape(sizes));
}

/** Merges into poisoned outputs and compares. */
async function run(device: GPUDevice, sizes: Sizes, parts: readonly Part[]) {
  const partials = parts.map((part) => upload(device, sizes, part));
  const output = poisoned(device, sizes);
  const lse = poisoned(device, lseShape(sizes));
  const result = await mergeAttention(partials, { output, lse });
  expect(result).toEqual({ output, lse });
  await expectMerged(result, sizes, parts);
  const values = await output.read();
  for (const used of [output, lse, ...partials.flatMap((partial) => [partial.output, partial.lse])])
    used.destroy();
  return values;
}

describe("attention over some keys, merged, is attention over all", () => {
  const B = 2;
  const H = 4;
  const Hkv = 2;
  const M = 9;
  const N = 70;
  const D = 16;

  async function expectWhole(
    cuts: readonly number[],
    Dv: number,
    layout: Layout,
    spread = 1,
  ): Promise<void> {
    const device = await testDevice();
    const shape = (h: number, rows: number, d: number) =>
      layout === "bhmd" ? [B, h, rows, d] : [B, rows, h, d];
    const make = (seed: number, size: number[], deviation: number) => {
      const data = normal(seed, product(size), deviation);
      return { shape: size, data, gpu: tensor(device, size, { data }) };
    };
    const q = make(1, shape(H, M, D), spread);
    const k = make(2, shape(Hkv, N, D), spread);
    const v = make(3, shape(Hkv, N, Dv), 1);
    const axis = layout === "bhmd" ? 2 : 1;
    const partials = await Promise.all(
      cuts.slice(1).map((end, index) => {
        const part = (whole: Tensor) => whole.slice(axis, cuts[index], end);
        return attention(q.gpu, part(k.gpu), part(v.gpu), { layout, lse: true, variant: "8x32" });
      }),
    );
    const { output, lse } = await mergeAttention(partials, { layout });
    const f64 = referenceAttention(q, k, v, { layout });
    const plain = referenceAttention(q, k, v, { layout, precision: "f32" });
    const values = await output
      .permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]))
      .read();
    expectClose("output", values, { f64: f64.output, plain: plain.output }, [B, H, M, Dv]);
    expectClose("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, [B, H, M]);
    const made = partials.flatMap((partial) => [partial.output, partial.lse as Tensor]);
    for (const used of [q.gpu, k.gpu, v.gpu, output, lse, ...made]) used.destroy();
  }

  it.each([1, 2, 3, 4, 7])("in %d parts", async (count) => {
    const cuts = [0, ...integers(count, count - 1, 0, N).sort((a, b) => a - b), N];
    await expectWhole(cuts, D, "bhmd");
    await expectWhole(cuts, D, "bhmd", 12); // almost one key decides a row
  });
  it.each([5, 130])("with Dv = %d, in both layouts", async (Dv) => {
    await expectWhole([0, 13, 14, 70], Dv, "bhmd");
    await expectWhole([0, 13, 14, 70], Dv, "bmhd");
  });
  it("if parts have no key", () => expectWhole([0, 0, 31, 31, 31, 70, 70], D, "bhmd"));
});

describe("rows without a key in a partial", () => {
  const sizes: Sizes = [2, 3, 11, 5];

  it("take nothing from it, whatever it holds", async () => {
    const device = await testDevice();
    for (const count of [2, 3, 5]) {
      const centres = new Array<number>(count).fill(0);
      // Row r has a key in partial p if bit p of r is set: this has every pattern, rows without any
      // key included.
      await run(
        device,
        sizes,
        randomParts(sizes, centres, (part, row) => ((row >> part) & 1) === 0),
      );
    }
  });
  it("give 0 and -Infinity if it is so in all", async () => {
    const device = await testDevice();
    for (const count of [1, 2, 5]) {
      const parts = randomParts(sizes, new Array<number>(count).fill(0), () => true);
      const values = await run(device, sizes, parts);
      expect(values).toEqual(new Float32Array(product(sizes)));
    }
  });
});

describe("LSEs", () => {
  const sizes: Sizes = [1, 2, 13, 8];
  it.each([
    ["of 10,000", [1e4, 1e4, 1e4, 1e4, 1e4, 1e4, 1e4]],
    ["of -10,000", [-1e4, -1e4, -1e4, -1e4, -1e4]],
    ["20,000 apart", [-1e4, 1e4, -1e4, 1e4, 0]],
    ["that rise by 100", [0, 100, 200, 300]],
    ["that fall by 1", [3, 2, 1, 0, -1, -2, -3, -4]],
    ["as large as f32 goes", [1e38, -1e38, 1e38]],
  ])("%s", async (_, centres) => {
    await run(await testDevice(), sizes, randomParts(sizes, centres));
  });
  it("of 10,000 cost the output no digits, however many partials there are", async () => {
    // LSEs rounded between dispatches would be off by 5e-4 here, and weights with them.
    const parts = randomParts(sizes, new Array<number>(31).fill(1e4));
    const values = await run(await testDevice(), sizes, parts);
    expect(worstElement(values, referenceMerge(parts).output, sizes).error).toBeLessThan(2e-6);
  });
});

describe("shapes", () => {
  it.each([1, 5, 64, 130])("with Dv = %d", async (Dv) => {
    const device = await testDevice();
    for (const [B, H, M] of [
      [1, 1, 1],
      [2, 3, 5],
      [1, 2, 67],
    ]) {
      for (const count of [1, 2, 3]) {
        const sizes: Sizes = [B, H, M, Dv];
        await run(device, sizes, randomParts(sizes, new Array<number>(count).fill(0)));
      }
    }
  });
  it("without a row", async () => {
    const device = await testDevice();
    const partials = [1, 2, 3].map(() => ({
      output: tensor(device, [2, 3, 0, 4]),
      lse: tensor(device, [2, 3, 0]),
    }));
    const { output, lse } = await mergeAttention(partials);
    expect([output.shape, lse.shape]).toEqual([
      [2, 3, 0, 4],
      [2, 3, 0],
    ]);
  });
  it("with grids that are longer than a dimension may be", async () => {
    const sizes: Sizes = [3, 5, 17, 6];
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 7 });
    await run(device, sizes, randomParts(sizes, [0, 0, 0]));
  });
  it("with more than 65,535 rows, in more workgroups than three lines of the grid hold", async () => {
    // LSEs are equal, so the output is the mean. A true grid of 65,536 workgroups takes a software
    // adapter 6 seconds.
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 5000 });
    const sizes: Sizes = [1, 65_600, 1, 1];
    const lse = tensor(device, lseShape(sizes));
    const data = [1, 2].map((factor) =>
      Float32Array.from({ length: 65_600 }, (_, row) => row * factor),
    );
    const outputs = data.map((values) => tensor(device, sizes, { data: values }));
    const merged = await mergeAttention(outputs.map((output) => ({ output, lse })));
    const values = await merged.output.read();
    const wrong = values.findIndex((value, row) => Math.abs(value - 1.5 * row) > 1e-6 * row);
    expect(wrong).toBe(-1);
    for (const used of [lse, ...outputs, merged.output, merged.lse]) used.destroy();
  });
  it("on a device with the default limits of WebGPU", async () => {
    const device = await plainDevice();
    const sizes: Sizes = [2, 2, 9, 64];
    await run(device, sizes, randomParts(sizes, [0, 0, 0]));
    device.destroy();
  });
});

describe("strides", () => {
  const sizes: Sizes = [2, 3, 7, 5];
  const PLACES: readonly { o: readonly number[]; lse: readonly number[]; offset: number }[] = [
    { o: [105, 35, 5, 1], lse: [21, 7, 1], offset: 3 },
    { o: [126, 6, 18, 1], lse: [21, 1, 3], offset: 65 }, // BMHD, rows padded to 6
    // columns far apart, batch entries next to each other
    { o: [1, 2, 30, 6], lse: [1, 2, 6], offset: 0 },
    { o: [300, 100, 10, 2], lse: [90, 30, 4], offset: 1 },
  ];
  const at = (strides: readonly number[], index: readonly number[]) =>
    strides.reduce((place, stride, axis) => place + stride * index[axis], 0);
  /**
   * Makes memory of 700 elements that holds -777, except at the places where `strides` put the
   * elements of `data`.
   */
  function scattered(
    device: GPUDevice,
    data: Float32Array,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
  ) {
    const memory = new Float32Array(700).fill(-777);
    data.forEach((value, element) => {
      let rest = element;
      const index = [...shape].reverse().map((size) => {
        const i = rest % size;
        rest = Math.floor(rest / size);
        return i;
      });
      memory[offset + at(strides, index.reverse())] = value;
    });
    return tensor(device, [700], { data: memory }).view({ shape, strides, offset });
  }

  it("of every tensor are its own, and what lies between elements is left alone", async () => {
    const device = await testDevice();
    const parts = randomParts(sizes, [0, 0, 0]);
    for (const [first] of PLACES.entries()) {
      const place = (index: number) => PLACES[(first + index) % PLACES.length];
      const partials = parts.map(({ output, lse }, index) => ({
        output: scattered(device, output, sizes, place(index).o, place(index).offset),
        lse: scattered(device, lse, lseShape(sizes), place(index).lse, place(index).offset),
      }));
      const into = place(3);
      const memory = [0, 1].map(() =>
        tensor(device, [700], { data: new Float32Array(700).fill(-777) }),
      );
      const output = memory[0].view({ shape: sizes, strides: into.o, offset: into.offset });
      const lse = memory[1].view({
        shape: lseShape(sizes),
        strides: into.lse,
        offset: into.offset,
      });
      await mergeAttention(partials, { output, lse });
      await expectMerged({ output, lse }, sizes, parts);
      const left = await Promise.all(
        memory.map(async (each) => (await each.read()).filter((x) => x === -777).length),
      );
      expect(left).toEqual([700 - 210, 700 - 42]);
    }
  });
  it("of 0 serve one partial to all heads, and one buffer may hold all partials", async () => {
    const device = await testDevice();
    const one: Sizes = [1, 1, 7, 5];
    const parts = randomParts(one, [0, 1, 2]);
    const outputs = tensor(device, [3, 7, 5], { data: parts.flatMap(({ output }) => [...output]) });
    const lses = tensor(device, [3, 7], { data: parts.flatMap(({ lse }) => [...lse]) });
    const partials = [0, 1, 2].map((index) => ({
      output: outputs.view({ shape: sizes, strides: [0, 0, 5, 1], offset: 35 * index }),
      lse: lses.view({ shape: lseShape(sizes), strides: [0, 0, 1], offset: 7 * index }),
    }));
    const { output, lse } = await mergeAttention(partials);
    for (const [b, h] of [
      [0, 0],
      [1, 2],
    ]) {
      const pick = (whole: Tensor) => whole.slice(0, b, b + 1).slice(1, h, h + 1);
      await expectMerged({ output: pick(output), lse: pick(lse) }, one, parts);
    }
  });
});

describe("the same bits", () => {
  const sizes: Sizes = [2, 3, 21, 40];
  it("come from the same partials, every time, and from one partial its own", async () => {
    const device = await testDevice();
    const parts = randomParts(sizes, [0, 1, 0, -1, 0]);
    const values = await run(device, sizes, parts);
    for (let again = 0; again < 3; again++) expect(await run(device, sizes, parts)).toEqual(values);
    expect(await run(device, sizes, parts.slice(0, 1))).toEqual(parts[0].output);
  });
  it("come from a plan, for the tensors of each run", async () => {
    const device = await testDevice();
    const spec = { output: { shape: sizes }, lse: { shape: lseShape(sizes) } };
    const plan = await planMerge(device, { partials: [spec, spec, spec] });
    const encoder = device.createCommandEncoder();
    const runs = [0, 1].map((index) => {
      const parts = randomParts(sizes, [index, 0, 2]);
      const output = poisoned(device, sizes);
      const lse = poisoned(device, lseShape(sizes));
      const partials = parts.map((part) => upload(device, sizes, part));
      plan.encode(encoder, { partials, output, lse });
      return { parts, output, lse };
    });
    const pass = encoder.beginComputePass();
    // Merged with itself, the second result weighs twice as much; the output stays.
    const twice = { output: runs[1].output, lse: runs[1].lse };
    const output = poisoned(device, sizes);
    const lse = poisoned(device, lseShape(sizes));
    const empty = upload(device, sizes, randomParts(sizes, [0], () => true)[0]);
    plan.encode(pass, { partials: [twice, empty, twice], output, lse });
    pass.end();
    device.queue.submit([encoder.finish()]);
    for (const { parts, ...result } of runs) await expectMerged(result, sizes, parts);
    expect(await output.read()).toEqual(await runs[1].output.read());
    const before = await runs[1].lse.read();
    expect(
      worstElement(
        await lse.read(),
        before.map((x) => x + Math.LN2),
        lseShape(sizes),
      ).error,
    ).toBeLessThan(2e-6);
    plan.destroy();
  });
});
