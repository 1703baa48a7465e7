// Values given to tensors: nested, of every kind of array, and later by write(); and what is
// refused as a value.

import { describe, expect, it } from "vitest";
import { type Dtype, type TensorData, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const cyclic: unknown[] = [];
cyclic.push(cyclic, 1);
const detached = () => {
  const array = new Float32Array(2);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
};

/** Data for shape [2], its dtype, and what is stored. */
const TAKEN: readonly (readonly [
  what: string,
  data: () => unknown,
  dtype: Dtype,
  stored: readonly number[],
])[] = [
  ["BigInt64Array", () => BigInt64Array.of(-(2n ** 31n), 7n), "i32", [-(2 ** 31), 7]],
  ["BigUint64Array", () => BigUint64Array.of(2n ** 32n - 1n, 0n), "u32", [2 ** 32 - 1, 0]],
  ["bigints", () => [3n, -4n], "f32", [3, -4]],
  ["Int8Array", () => Int8Array.of(-3, 4), "i32", [-3, 4]],
  ["Float64Array of whole numbers", () => Float64Array.of(255, 0), "u8", [255, 0]],
  ["truth values", () => [true, false], "u8", [1, 0]],
  ["-0 and NaN", () => [-0, Number.NaN], "f32", [-0, Number.NaN]],
  [
    "shared memory", // a page that is not isolated can make it only in this way
    () =>
      new Float32Array(
        new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer,
        0,
        2,
      ).fill(5),
    "f32",
    [5, 5],
  ],
  ["a proxy", () => new Proxy([8, 9], {}), "f32", [8, 9]],
];

/** Data for shape [2] and its dtype. */
const REFUSED: readonly (readonly [what: string, data: () => unknown, dtype: Dtype])[] = [
  ["a fraction", () => [1.5, 1], "i32"],
  ["a number above the range", () => [256, 1], "u8"],
  ["a number below it", () => [-1, 1], "u32"],
  ["NaN for whole numbers", () => Float32Array.of(Number.NaN, 1), "i32"],
  ["a BigInt that is too large", () => BigInt64Array.of(2n ** 40n, 1n), "i32"],
  ["2^53", () => [2 ** 53, 1], "u32"],
  ["strings", () => ["1", "2"], "f32"],
  ["symbols", () => [Symbol("a"), 1], "f32"],
  ["holes", () => new Array(2), "f32"],
  ["a list that holds itself", () => cyclic, "f32"],
  ["a text", () => "12", "f32"],
  ["a number", () => 12, "f32"],
  ["null", () => null, "f32"],
  ["an object", () => ({ length: 2, 0: 1, 1: 2 }), "f32"],
  ["a DataView", () => new DataView(new ArrayBuffer(8)), "f32"],
  ["an ArrayBuffer", () => new ArrayBuffer(8), "f32"],
  ["a detached array", detached, "f32"],
];

describe("data", () => {
  it.each(TAKEN)("%s is taken", async (_, data, dtype, stored) => {
    const t = tensor(await testDevice(), [2], { data: data() as TensorData, dtype });
    expect([...(await t.read())]).toEqual(stored);
    t.destroy();
  });
  it.each(REFUSED)("%s is refused", async (_, data, dtype) => {
    const device = await testDevice();
    await expectError(
      () => tensor(device, [2], { data: data() as TensorData, dtype, label: "t" }),
      "argument",
      /^t: /,
    );
  });
  it("may be nested as the shape says, and no other way", async () => {
    const device = await testDevice();
    const nested = [[[1, 2]], [[3, 4]], [[5, 6]]];
    expect([...(await tensor(device, [3, 1, 2], { data: nested }).read())]).toEqual([
      1, 2, 3, 4, 5, 6,
    ]);
    expect([
      ...(await tensor(device, [2, 2], { data: [Float32Array.of(1, 2), [3, 4]] as never }).read()),
    ]).toEqual([1, 2, 3, 4]);
    const refused = (shape: number[], data: unknown, got: RegExp) =>
      expectError(
        () => tensor(device, shape, { data: data as TensorData, label: "t" }),
        "argument",
        got,
      );
    await refused(
      [1, 3, 2],
      nested,
      /^t: data must be nested as the shape \[1,3,2\] says: axis 0 has lists of 1, got 3\.$/,
    );
    await refused([3, 2], nested, /axis 1 has lists of 2, got 1/);
    await refused([2, 2], [[1, 2], [3]], /axis 1 has lists of 2, got 1/);
    await refused([2, 2], [[1, 2], 3], /axis 1 has lists of 2, got 3/);
    await refused([2], [[1], [2]], /must be numbers, got \[1\] at 0/);
  });
  it("of elements that share memory is refused", async () => {
    const device = await testDevice();
    const work = () => tensor(device, [2, 2], { data: [1, 2, 3, 4], strides: [0, 1], label: "t" });
    await expectError(
      work,
      "overlap",
      /^t: elements of shape \[2,2\] with strides \[0,1\] share memory/,
    );
  });
});

describe("write", () => {
  it.each<Dtype>(["f32", "f16", "bf16", "u32", "i32", "u8"])(
    "gives %s tensors other values, and no one else",
    async (dtype) => {
      const device = await testDevice();
      const old = Array.from({ length: 60 }, (_, i) => i);
      const fresh = (count: number) => Array.from({ length: count }, (_, i) => 100 + i);
      const t = tensor(device, [3, 4, 5], { dtype, data: old });
      const views = [
        t.view({ shape: [60] }),
        t.slice(0, 1, 2),
        t.slice(1, 1, 3).slice(2, 1, 4),
        t.permute(2, 0, 1),
        t.view({ shape: [3], offset: 7 }),
        t.view({ shape: [7], strides: [8], offset: 1 }),
      ];
      for (const view of views) {
        await t.write(old);
        const at = [
          ...(await tensor(device, [3, 4, 5], { dtype: "u32", data: old }).view(view).read()),
        ];
        const expected = [...old];
        for (const [index, place] of at.entries()) expected[place] = 100 + index;
        await view.write(fresh(view.size));
        expect([...(await t.read())]).toEqual(expected);
      }
      // These are neighbours in one word, written at the same time, and read before they are there.
      await t.write(old);
      const parts = [0, 1, 2, 3, 4].map((at) => t.view({ shape: [1], offset: 3 * at }));
      const writes = parts.map((part, index) => part.write([200 + index]));
      expect([...(await t.read())].slice(0, 13)).toEqual([
        200, 1, 2, 201, 4, 5, 202, 7, 8, 203, 10, 11, 204,
      ]);
      await Promise.all(writes);
      t.destroy();
    },
  );
  it("means the data and the order of the moment when it is called", async () => {
    const device = await testDevice();
    const t = tensor(device, [4]);
    const data = normal(3, 4);
    const before = t.read();
    const written = t.write(data);
    const expected = data.slice();
    data.fill(0);
    expect(await before).toEqual(new Float32Array(4));
    await written;
    expect(await t.read()).toEqual(expected);
    t.destroy();
  });
  it("refuses what it can't write", async () => {
    const device = await testDevice();
    const t = tensor(device, [2, 2], { label: "t" });
    await expectError(
      () => t.write([1, 2, 3]),
      "argument",
      "t.write: shape [2,2] has 4 elements; data has 3.",
    );
    await expectError(
      () => t.view({ shape: [4], strides: [0] }).write([1, 2, 3, 4]),
      "overlap",
      /share memory/,
    );
    const buffer = device.createBuffer({ size: 16, usage: 128 });
    await expectError(
      () => tensor(device, [4], { buffer, label: "w" }).write([1, 2, 3, 4]),
      "argument",
      /COPY_DST/,
    );
    t.destroy();
    await expectError(() => t.write([1, 2, 3, 4]), "destroyed", /destroyed/);
    buffer.destroy();
  });
});

describe("a tensor", () => {
  it("says what it is, and goes with its block", async () => {
    const device = await testDevice();
    const t = tensor(device, [1, 2], { dtype: "f16", label: "weights" });
    expect(String(t)).toBe("Tensor weights: f16 [1, 2]");
    expect(Object.prototype.toString.call(t)).toBe("[object Tensor weights: f16 [1, 2]]");
    t[Symbol.dispose]();
    expect(t.destroyed).toBe(true);
  });
  it("takes typed arrays as shape and strides, and refuses the rest", async () => {
    const device = await testDevice();
    const t = tensor(device, Int32Array.of(2, 3) as never, {
      strides: (BigUint64Array.of(3n) as never) ? [3, 1] : [],
    });
    expect(t.shape).toEqual([2, 3]);
    t.destroy();
    for (const shape of [
      null,
      5,
      "23",
      [1n],
      [Symbol("a")],
      new Array(2),
      [2 ** 53],
      [-1],
      cyclic,
      new DataView(new ArrayBuffer(8)),
    ]) {
      await expectError(
        () => tensor(device, shape as never, { label: "t" }),
        "argument",
        /^t: a shape is a list/,
      );
    }
    expect(Object.is(tensor(device, [-0]).shape[0], 0)).toBe(true);
  });
  it("refuses options and buffers that are none", async () => {
    const device = await testDevice();
    const throwing = {
      get label(): string {
        throw new Error("no");
      },
    };
    for (const options of [
      null,
      5,
      "f32",
      throwing,
      { label: Symbol("a") },
      { dtype: "toString" },
      { offset: 1n },
    ]) {
      await expectError(() => tensor(device, [2], options as never), "argument", /^tensor: /);
    }
    const duck = { size: 64, usage: 128 | 8, mapState: "unmapped", destroy() {} };
    for (const buffer of [null, 5, {}, duck, { ...duck, usage: 128 }, new ArrayBuffer(64)]) {
      await expectError(
        () => tensor(device, [2], { buffer: buffer as never, label: "t" }),
        "argument",
        /^t: /,
      );
    }
  });
});
