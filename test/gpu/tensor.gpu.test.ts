// What goes into a tensor comes out, through every dtype, stride and view; and what can't be made
// says why.

import { describe, expect, it } from "vitest";
import { type Dtype, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, newDevice, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

describe("tensor", () => {
  it("gives back what it was filled with", async () => {
    const device = await testDevice();
    const values = normal(1, 24);
    expect(await tensor(device, [2, 3, 4], { data: values }).read()).toEqual(values);
    expect(await tensor(device, [3], { dtype: "u32", data: [1, 2 ** 32 - 1, 7] }).read()).toEqual(
      Uint32Array.of(1, 2 ** 32 - 1, 7),
    );
    expect(await tensor(device, [3], { dtype: "i32", data: [-1, 2, -(2 ** 31)] }).read()).toEqual(
      Int32Array.of(-1, 2, -(2 ** 31)),
    );
    expect(await tensor(device, [], { data: [5] }).read()).toEqual(Float32Array.of(5));
  });

  it("starts as zeros, also with no element at all", async () => {
    const device = await testDevice();
    expect(await tensor(device, [2, 2]).read()).toEqual(new Float32Array(4));
    expect(await tensor(device, [2, 0, 3]).read()).toEqual(new Float32Array(0));
  });

  it("rounds to f16, ties to even, and knows its extremes", async () => {
    const device = await testDevice();
    const cases: [value: number, stored: number][] = [
      [1, 1],
      [-2.5, -2.5],
      [1 / 3, 0.333251953125],
      [2049, 2048], // half way between 2048 and 2050
      [2051, 2052],
      [65504, 65504],
      [65519, 65504],
      [65520, Number.POSITIVE_INFINITY],
      [2 ** -14, 2 ** -14],
      [2 ** -24, 2 ** -24],
      [2 ** -25, 0],
      [3 * 2 ** -25, 2 ** -23],
      [1023.75 * 2 ** -24, 2 ** -14],
      [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY],
      [Number.NaN, Number.NaN],
    ];
    const t = tensor(device, [cases.length], { dtype: "f16", data: cases.map(([value]) => value) });
    expect([...(await t.read())]).toEqual(cases.map(([, stored]) => stored));
    const bits = tensor(device, [2], { dtype: "f16", data: Uint16Array.of(0x3c00, 0x8001) });
    expect([...(await bits.read())]).toEqual([1, -(2 ** -24)]);
  });

  it.each<Dtype>(["f32", "f16", "u32", "i32"])(
    "reads %s views of any strides and offset",
    async (dtype) => {
      const device = await testDevice();
      const numbers = Array.from({ length: 60 }, (_, i) => i);
      const t = tensor(device, [3, 4, 5], { dtype, data: numbers });
      const read = async (view: typeof t) => [...(await view.read())];
      expect(await read(t.permute(2, 0, 1))).toEqual(
        [0, 1, 2, 3, 4].flatMap((c) =>
          [0, 1, 2].flatMap((a) => [0, 1, 2, 3].map((b) => 20 * a + 5 * b + c)),
        ),
      );
      expect(await read(t.slice(1, 1, 3).slice(2, 3, 4))).toEqual([8, 13, 28, 33, 48, 53]);
      expect(await read(t.view({ shape: [2, 3], strides: [0, 7], offset: 3 }))).toEqual([
        3, 10, 17, 3, 10, 17,
      ]);
      expect(await read(t.slice(0, 3, 3))).toEqual([]);
    },
  );

  it("lays data out by strides and offset", async () => {
    const device = await testDevice();
    const t = tensor(device, [2, 3], { data: [1, 2, 3, 4, 5, 6], strides: [1, 3], offset: 2 });
    expect(await t.read()).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
    const whole = t.view({ shape: [8], strides: [1] });
    expect(whole.offset).toBe(2);
    const raw = tensor(device, [10], { buffer: t.buffer });
    expect([...(await raw.read())]).toEqual([0, 0, 1, 4, 0, 2, 5, 0, 3, 6]);
  });

  it("wraps a buffer without owning it", async () => {
    const device = await testDevice();
    const buffer = device.createBuffer({ size: 64, usage: 128 | 4 | 8 });
    device.queue.writeBuffer(buffer, 0, normal(4, 16));
    const t = tensor(device, [2, 2], { buffer, offset: 3 });
    expect(await t.read()).toEqual(normal(4, 16).slice(3, 7));
    t.destroy();
    expect(await tensor(device, [1], { buffer }).read()).toEqual(normal(4, 16).slice(0, 1));
    buffer.destroy();
  });

  it("is gone after destroy, with all of its views", async () => {
    const device = await testDevice();
    const t = tensor(device, [4], { label: "weights" });
    const view = t.slice(0, 1, 2);
    view.destroy();
    view.destroy();
    expect(t.destroyed).toBe(true);
    await expectError(() => t.read(), "destroyed", "weights: the tensor was destroyed.");
    await expectError(() => view.buffer, "destroyed", "weights: the tensor was destroyed.");
  });
});

describe("tensor refuses", () => {
  it("malformed shapes, strides, offsets and dtypes", async () => {
    const device = await testDevice();
    const make = (shape: unknown, options: object = {}) =>
      tensor(device, shape as number[], { label: "t", ...options });
    const shape = (got: string) => `t: a shape is a list of whole numbers from 0 up, got ${got}.`;
    await expectError(() => make([2, -1]), "argument", shape("[2, -1]"));
    await expectError(() => make([1.5]), "argument", shape("[1.5]"));
    await expectError(() => make([Number.NaN]), "argument", shape("[NaN]"));
    await expectError(() => make(7), "argument", shape("7"));
    const strides = (axes: number, got: string) =>
      `t: strides are whole numbers from 0 up, one for each of the ${axes} axes, got ${got}.`;
    await expectError(() => make([2, 2], { strides: [2] }), "argument", strides(2, "[2]"));
    await expectError(() => make([2], { strides: [-1] }), "argument", strides(1, "[-1]"));
    await expectError(
      () => make([2], { offset: -4 }),
      "argument",
      "t: the offset is a whole number from 0 up, got -4.",
    );
    await expectError(
      () => make([2], { dtype: "f64" }),
      "argument",
      't: dtype must be f32, f16, bf16, u32, i32, u8, got "f64".',
    );
  });

  it("data of another length, and data with a buffer", async () => {
    const device = await testDevice();
    await expectError(
      () => tensor(device, [2, 3], { data: [1], label: "t" }),
      "argument",
      "t: shape [2,3] has 6 elements; data has 1.",
    );
    const buffer = device.createBuffer({ size: 16, usage: 128 });
    await expectError(
      () => tensor(device, [1], { data: [1], buffer, label: "t" }),
      "argument",
      "t: give data to allocate or buffer to wrap, not both.",
    );
    buffer.destroy();
  });

  it("buffers that are too small, mapped, or made for something else", async () => {
    const device = await testDevice();
    const small = device.createBuffer({ size: 16, usage: 128 });
    await expectError(
      () => tensor(device, [2, 2], { buffer: small, offset: 1, label: "t" }),
      "argument",
      "t: shape [2,2] with strides [2,1] from element 1 on needs 20 bytes; the buffer has 16.",
    );
    const uniform = device.createBuffer({ size: 16, usage: 64 });
    await expectError(
      () => tensor(device, [1], { buffer: uniform, label: "t" }),
      "argument",
      "t: the buffer was created without GPUBufferUsage.STORAGE.",
    );
    const mapped = device.createBuffer({ size: 16, usage: 128, mappedAtCreation: true });
    await expectError(
      () => tensor(device, [1], { buffer: mapped, label: "t" }),
      "argument",
      "t: the buffer is mapped; unmap it first.",
    );
    await expectError(
      () => tensor(device, [4], { buffer: small, label: "t" }).read(),
      "argument",
      "t.read: the buffer was created without GPUBufferUsage.COPY_SRC.",
    );
    for (const buffer of [small, uniform, mapped]) buffer.destroy();
  });

  it("more memory than a buffer can have", async () => {
    const device = await testDevice();
    const limit = device.limits.maxBufferSize;
    await expectError(
      () => tensor(device, [2 ** 20, 2 ** 20], { label: "t" }),
      "limit",
      `t: ${2 ** 42} bytes are more than this device's maxBufferSize of ${limit}. To have the adapter's highest, request the device with deviceDescriptor(adapter).`,
    );
  });

  it("views outside of its memory, wrong axes and ranges", async () => {
    const device = await testDevice();
    const t = tensor(device, [2, 3], { label: "t" });
    await expectError(
      () => t.view({ shape: [7] }),
      "argument",
      "t: shape [7] with strides [1] from element 0 on needs 28 bytes; the buffer has 24.",
    );
    await expectError(
      () => t.permute(0, 0),
      "argument",
      "t.permute: expected each of the axes 0..1 once, got [0, 0].",
    );
    await expectError(
      () => t.slice(1, 2, 4),
      "argument",
      "t.slice: no range 2..4 of axis 1 in shape [2,3].",
    );
    await expectError(
      () => t.slice(2, 0, 1),
      "argument",
      "t.slice: no range 0..1 of axis 2 in shape [2,3].",
    );
  });

  it("a lost device", async () => {
    const device = await newDevice();
    const t = tensor(device, [4]);
    device.destroy();
    await device.lost;
    await expectError(
      () => tensor(device, [1]),
      "device-lost",
      /the GPU device was lost \(destroyed/,
    );
    await expectError(() => t.read(), "device-lost", /request a new device/);
  });
});

describe("a device that is lost while something is read", () => {
  it("rejects with device-lost", async () => {
    const device = await newDevice();
    const t = tensor(device, [4], { data: [1, 2, 3, 4] });
    const reading = t.read();
    device.destroy();
    await expectError(() => reading, "device-lost", /the GPU device was lost/);
  });
});
