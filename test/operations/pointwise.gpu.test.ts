// The pointwise kernel against the float64 reference: copies between dtypes and strides, sums,
// activations.

import { describe, expect, it } from "vitest";
import { addBias, copyTensor, gelu, planPointwise, type Tensor, tensor } from "../../src/index.ts";
import { pointwise as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const FLOATS = ["f32", "f16", "bf16"] as const;
const made = (seed: number, shape: readonly number[], dtype: Float = "f32", spread = 1) => {
  return normal(seed, product(shape), spread).map(ROUND[dtype]);
};
const poison = (
  device: GPUDevice,
  shape: readonly number[],
  dtype: Float = "f32",
  strides?: readonly number[],
) => {
  const data = new Float32Array(product(shape)).fill(Number.NaN);
  return tensor(device, shape, { data, dtype, ...(strides && { strides }) });
};

/** Reads the bytes of a dense tensor, as they are. */
async function bytesOf({ device, buffer, size, dtype }: Tensor): Promise<ArrayBuffer> {
  const bytes = Math.ceil((size * (dtype === "f32" ? 4 : 2)) / 4) * 4;
  const staging = device.createBuffer({
    size: bytes,
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
  });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, bytes);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const copy = staging.getMappedRange().slice(0);
  staging.destroy();
  return copy;
}

describe("copyTensor", () => {
  it("converts between any two dtypes, as the CPU rounds", async () => {
    const device = await testDevice();
    const ends = [65519, -65520, 1e-6, 6e-8, -0, Number.NEGATIVE_INFINITY, Number.NaN, 1e-40];
    // Numbers halfway between two numbers of bf16, of f16, and of f16 below its normal ones: above
    // an even one, and below it.
    const ties = [
      257,
      -259,
      2049,
      2051,
      -(1 + 2 ** -11),
      1 + 3 * 2 ** -11,
      2.5 * 2 ** -24,
      -3.5 * 2 ** -24,
    ];
    const values = [...normal(1, 56, 300), ...ties, ...ends];
    for (const from of FLOATS) {
      for (const to of FLOATS) {
        const x = tensor(device, [values.length], { data: values, dtype: from });
        const { output } = await copyTensor(x, { dtype: to });
        const expected = Array.from(await x.read(), ROUND[to]);
        const got = [...(await output.read())];
        // Some GPUs take f32's subnormal numbers for 0.
        expect(got.slice(0, -1)).toEqual(expected.slice(0, -1));
        x.destroy();
        output.destroy();
      }
    }
  });
  it("copies bits of f32 of any length", async () => {
    const device = await testDevice();
    for (const size of [1, 3, 4, 64, 257]) {
      const data = made(2, [size]);
      const { output } = await copyTensor(tensor(device, [size], { data }));
      expect(await output.read()).toEqual(data);
    }
  });
  it("takes any order of axes, also of 16 bits in rows of odd length", async () => {
    const device = await testDevice();
    const shape = [2, 3, 5, 7];
    for (const dtype of ["f32", "bf16"] as const) {
      const x = tensor(device, shape, { data: made(3, shape, dtype), dtype });
      for (const axes of [
        [0, 2, 1, 3],
        [3, 2, 1, 0],
        [1, 3, 0, 2],
      ]) {
        const { output } = await copyTensor(x.permute(...axes));
        expect(await output.read()).toEqual(await x.permute(...axes).read());
        const into = poison(
          device,
          axes.map((axis) => shape[axis]),
          dtype,
        );
        const back = axes.map((_, axis) => axes.indexOf(axis));
        await copyTensor(x, { output: into.permute(...back) });
        expect(await into.permute(...back).read()).toEqual(await x.read());
      }
    }
  });
  it("writes a slice and nothing beside it", async () => {
    const device = await testDevice();
    for (const [D, dtype] of [
      [8, "f32"],
      [5, "f16"],
    ] as const) {
      const present = tensor(device, [2, 3, 6, D], {
        data: new Float32Array(36 * D).fill(9),
        dtype,
      });
      const fresh = tensor(device, [2, 3, 2, D], { data: made(4, [12 * D], dtype), dtype });
      await copyTensor(fresh, { output: present.slice(2, 3, 5) });
      expect(await present.slice(2, 3, 5).read()).toEqual(await fresh.read());
      for (const [start, end] of [
        [0, 3],
        [5, 6],
      ]) {
        expect(new Set(await present.slice(2, start, end).read())).toEqual(new Set([9]));
      }
    }
  });
  it("broadcasts to the output, and adds", async () => {
    const device = await testDevice();
    const data = [made(5, [3, 1]), made(6, [5]), made(7, [2, 1, 1])];
    const shapes = [[3, 1], [5], [2, 1, 1]];
    const [x, bias, residual] = data.map((values, i) =>
      tensor(device, shapes[i], { data: values }),
    );
    const output = poison(device, [2, 3, 5]);
    await copyTensor(x, { bias, residual, output });
    const [a, b, c] = data.map((values, i) => ({ data: values, shape: shapes[i] }));
    const f64 = reference(a, { bias: b, residual: c }, [2, 3, 5]);
    const plain = reference(a, { bias: b, residual: c, precision: "f32" }, [2, 3, 5]);
    expect(await output.read()).toEqual(Float32Array.from(plain));
    expectClose("output", await output.read(), { f64, plain }, [2, 3, 5]);
  });
  it("of nothing is nothing", async () => {
    const { output } = await copyTensor(tensor(await testDevice(), [2, 0, 3]));
    expect(await output.read()).toEqual(new Float32Array(0));
  });
  it("fills grids that are longer than a dimension may be", async () => {
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 3 });
    const data = made(8, [1600]);
    const { output } = await copyTensor(tensor(device, [1600], { data }));
    expect(await output.read()).toEqual(data);
  });
});

describe("gelu", () => {
  const far = [-1e30, -60, -14, -9.5, -5, -3.2, -1e-6, 0, 1e-6, 2.5, 9, 14, 3e38];
  it.each(["none", "tanh"] as const)(
    "approximate %s, of sums and of far numbers",
    async (approximate) => {
      const device = await testDevice();
      const shape = [3, 37];
      const data = made(9, shape, "f32", 3);
      const more = made(10, [37]);
      data.set(far, 60);
      more.fill(0, 23, 23 + far.length);
      const x = tensor(device, shape, { data });
      const bias = tensor(device, [37], { data: more });
      const { output } = await gelu(x, { approximate, bias });
      const activation = approximate === "none" ? "gelu" : "gelu-tanh";
      const values = await output.read();
      // Large numbers would make the bound useless for the others, so each range is compared by
      // itself.
      const sums = reference({ data, shape }, { bias: { data: more, shape: [37] } });
      for (const [least, most] of [
        [0, 1],
        [1, 6],
        [6, 1e39],
      ]) {
        const chosen = [...sums.keys()].filter(
          (i) => least <= Math.abs(sums[i]) && Math.abs(sums[i]) < most,
        );
        const some = { data: chosen.map((i) => sums[i]), shape: [chosen.length] };
        const f64 = reference(some, { activation });
        const plain = reference(some, { activation, precision: "f32" });
        expectClose(
          "gelu",
          chosen.map((i) => values[i]),
          { f64, plain },
          [chosen.length],
        );
      }
    },
  );
  it("keeps NaN, and relative precision if the result is small", async () => {
    const device = await testDevice();
    const data = [Number.NaN, -2, -3, -4, -5, -6, -8];
    const values = await (await gelu(tensor(device, [7], { data }))).output.read();
    expect(values[0]).toBeNaN();
    const f64 = reference({ data: data.slice(1), shape: [6] }, { activation: "gelu" });
    for (const [i, expected] of f64.entries()) expect(values[i + 1] / expected).toBeCloseTo(1, 4.8);
  });
});

describe("gelu of the ends of f32", () => {
  it.each(["none", "tanh"] as const)(
    "approximate %s is x, or nothing, or NaN",
    async (approximate) => {
      const device = await testDevice();
      const large = [12, 1e5, 1e20, 3.4028234663852886e38, Number.POSITIVE_INFINITY];
      const data = [...large, ...large.map((x) => -x), Number.NaN, 0, 1e-30, -1e-30, 3e-38];
      const { output } = await gelu(tensor(device, [data.length], { data }), { approximate });
      const values = [...(await output.read())];
      expect(values.slice(0, 5)).toEqual(large.map(Math.fround));
      for (const value of values.slice(5, 9)) expect(Math.abs(value)).toBeLessThan(1e-30);
      // -Infinity times 0 is NaN, as in every library.
      expect(values.slice(9, 11)).toEqual([Number.NaN, Number.NaN]);
      expect(values[11] + 0).toBe(0);
      for (const [i, value] of values.slice(12).entries())
        expect(value / (data[12 + i] / 2)).toBeCloseTo(1, 6);
    },
  );
});

describe("NaN in 16 bits", () => {
  // Rounding would carry the first NaN out of its exponent, and leave no bit of the second; the
  // others are quiet and negative.
  const NANS = [0x7fffffff, 0x7f800001, 0x7fc00000, 0xffffffff, 0xff800001, 0x7f80ffff, 0xffff8000];
  it.each([
    ["f16", 0x7c00, 8],
    ["bf16", 0x7f80, 8],
    ["f16", 0x7c00, 7],
    ["bf16", 0x7f80, 7],
  ] as const)(
    "is NaN of its sign in %s (exponent %d) in rows of %d",
    async (dtype, exponent, width) => {
      const device = await testDevice();
      const bits = Uint32Array.from([...NANS, 0x7f800000].slice(0, width));
      const x = tensor(device, [width]);
      device.queue.writeBuffer(x.buffer, 0, bits);
      const { output } = await copyTensor(x, { dtype });
      const copies = [output, (await copyTensor(output)).output];
      for (const copy of copies) {
        const words = new Uint16Array(await bytesOf(copy));
        for (const [i, word] of [...words.slice(0, width)].entries()) {
          const nan = (bits[i] & 0x7fffffff) > 0x7f800000;
          expect(word & exponent, `element ${i}`).toBe(exponent);
          expect((word & 0x7fff) > exponent, `element ${i}`).toBe(nan);
          if (dtype === "bf16") expect(word >>> 15, `sign of element ${i}`).toBe(bits[i] >>> 31);
        }
      }
      for (const one of [x, ...copies]) one.destroy();
    },
  );
});

describe("addBias", () => {
  it("adds a row and a residual", async () => {
    const device = await testDevice();
    const data = made(11, [2, 3, 8]);
    const row = made(12, [8]);
    const more = made(13, [2, 3, 8]);
    const x = tensor(device, [2, 3, 8], { data });
    const bias = tensor(device, [8], { data: row });
    const residual = tensor(device, [2, 3, 8], { data: more });
    const { output } = await addBias(x, bias, { residual });
    const plain = data.map((value, i) => Math.fround(Math.fround(value + row[i % 8]) + more[i]));
    expect(await output.read()).toEqual(plain);
  });
});

describe("errors of pointwise operations", () => {
  it("name what is wrong", async () => {
    const device = await testDevice();
    const x = tensor(device, [2, 3]);
    const five = tensor(device, [5]);
    await expectError(
      () => addBias(x, five),
      "argument",
      "addBias: bias must broadcast to [2, 3], got [5].",
    );
    await expectError(
      () => copyTensor(x, { output: tensor(device, [2, 4]) }),
      "argument",
      "copyTensor: x must broadcast to [2, 4], got [2, 3].",
    );
    await expectError(
      () => copyTensor(x, { output: tensor(device, [2, 3]), dtype: "f16" }),
      "argument",
      "copyTensor: dtype is that of a new output, and an output was given; leave one out.",
    );
    await expectError(
      () => copyTensor(tensor(device, [2], { dtype: "u32" })),
      "argument",
      "copyTensor: x must be f32, f16 or bf16, got u32.",
    );
    await expectError(
      () => gelu(x, { approximate: "erf" as "none" }),
      "argument",
      'gelu: approximate must be "none" or "tanh", got "erf".',
    );
    await expectError(
      () => planPointwise(device, { x, activation: "elu" as "gelu" }),
      "argument",
      'pointwise: activation must be one of gelu, gelu-tanh, relu, silu, sigmoid, tanh, got "elu".',
    );
    await expectError(
      () => gelu({ shape: [2] } as unknown as Tensor),
      "argument",
      "gelu: x must be a Tensor; make one with tensor().",
    );
    const wide = tensor(device, [2, 2, 2, 2, 2], { strides: [48, 24, 12, 6, 2] });
    await expectError(
      () =>
        copyTensor(wide, {
          output: tensor(device, [2, 2, 2, 2, 2], { strides: [81, 27, 9, 3, 1] }),
        }),
      "argument",
      "copyTensor: the strides of x, output leave 5 axes of [2, 2, 2, 2, 2], and a kernel takes 4; copy a part of the axes at a time, or make the tensors dense.",
    );
    await expectError(
      () => copyTensor(x, { output: x }),
      "overlap",
      "copyTensor: output and x are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give output a buffer of its own.",
    );
  });
});
