// Finds elements of tensors of any shape and strides by their index.

import { expect, it } from "vitest";
import { encode } from "../../src/gpu/elements.ts";
import { decode } from "../../src/gpu/read.ts";
import { BYTES } from "../../src/gpu/shapes.ts";
import { FLOATS } from "../../src/plan/specs.ts";
import type { Dtype } from "../../src/types.ts";

it.each([
  [[], [], 3],
  [[4], [2], 0],
  [[2, 3], [1, 5], 2],
  [[2, 3, 4], [40, 2, 7], 1],
  [[2, 3, 2, 2], [1, 30, 2, 7], 0],
  [[3, 1, 2], [2, 99, 1], 5],
  [[2, 0, 3], [1, 1, 1], 0],
] as const)("of shape %j and strides %j from %d on", (shape, strides, offset) => {
  const spec = { shape, strides, offset, dtype: "f32" as const };
  const count = shape.reduce((product: number, size) => product * size, 1);
  const data = Array.from({ length: count }, (_, element) => element + 1);
  const words = new Float32Array(encode("test", data, spec, 1200).bytes);
  for (let element = 0; element < count; element++) {
    let rest = element;
    let at: number = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += (rest % shape[axis]) * strides[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    expect(words[at], `element ${element}`).toBe(element + 1);
  }
  expect(words.filter((x) => x !== 0)).toHaveLength(count);
  expect(Array.from(decode("test", words.buffer, spec))).toEqual(data);
});

it.each(Object.keys(BYTES) as Dtype[])(
  "of %s are read as the numbers that were written",
  (dtype) => {
    const spec = { shape: [4], strides: [1], offset: 0, dtype };
    const data = FLOATS.includes(dtype) ? [0, 1, 0.5, -2] : [0, 1, 2, 100];
    expect(Array.from(decode("test", encode("test", data, spec, 16).bytes, spec))).toEqual(data);
  },
);
