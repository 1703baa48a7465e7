// Elements of tensors as JavaScript numbers and as bytes of a buffer.

import { check, reading, show } from "../errors.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { hostArray } from "./host_array.ts";
import { countOf, isContiguous } from "./shapes.ts";

/** Numbers of a nested list, as deep as a tensor has axes. */
export type NestedNumbers = readonly (number | NestedNumbers)[];

/**
 * What a tensor can be filled from: numbers in row-major order, or nested lists that have its
 * shape. Numbers are rounded to f32, f16 and bf16; for the other dtypes they must be whole and in
 * range. A Uint16Array given for f16 or bf16 is taken as bits. BigInts count as the numbers that
 * they are.
 */
export type TensorData =
  | NestedNumbers
  | readonly bigint[]
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Uint32Array
  | Int32Array
  | BigInt64Array
  | BigUint64Array;

/**
 * What `read` returns for a dtype: f32, f16 and bf16 as Float32Array, u32, i32 and u8 as the typed
 * arrays of their names.
 */
export type ValuesOf<D extends Dtype> = D extends "u32"
  ? Uint32Array<ArrayBuffer>
  : D extends "i32"
    ? Int32Array<ArrayBuffer>
    : D extends "u8"
      ? Uint8Array<ArrayBuffer>
      : Float32Array<ArrayBuffer>;

/** What `read` returns for a tensor of any dtype. */
export type TensorValues = Float32Array | Uint32Array | Int32Array | Uint8Array;

export const STORAGE = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  u32: Uint32Array,
  i32: Int32Array,
  u8: Uint8Array,
} as const;

/**
 * Calls `visit(element, at)` for every element in row-major order, with its distance from the first
 * in the buffer.
 */
export function forEachElement(
  shape: readonly number[],
  strides: readonly number[],
  visit: (element: number, at: number) => void,
): void {
  const count = countOf(shape);
  const inner = shape.at(-1) ?? 1;
  const step = strides.at(-1) ?? 0;
  const index = shape.map(() => 0);
  let row = 0;
  for (let element = 0; element < count; ) {
    for (let i = 0; i < inner; i++) visit(element++, row + i * step);
    for (let axis = shape.length - 2; axis >= 0; axis--) {
      row += strides[axis];
      if (++index[axis] < shape[axis]) break;
      row -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

/**
 * The elements that `data` gives for a shape, one after the other. Throws FoveaError unless there
 * are as many as the shape has, nested as the shape says.
 */
export function elementsOf(
  label: string,
  data: unknown,
  shape: readonly number[],
): ArrayLike<unknown> {
  const isNested = Array.isArray(data) && isList(data[0]);
  const elements: unknown[] = [];
  const collect = (part: unknown, axis: number): void => {
    if (axis === shape.length) {
      elements.push(part);
      return;
    }
    check(
      isList(part) && part.length === shape[axis],
      "argument",
      () =>
        `${label}: data must be nested as the shape [${shape}] says: axis ${axis} has lists of ${shape[axis]}, got ${isList(part) ? part.length : show(part)}.`,
    );
    for (let i = 0; i < part.length; i++) collect(part[i], axis + 1);
  };
  if (isNested) collect(data, 0);
  const flat = isNested ? elements : data;
  const count = countOf(shape);
  check(
    isList(flat) && flat.length === count,
    "argument",
    () =>
      `${label}: shape [${shape}] has ${count} elements; data has ${isList(flat) ? flat.length : `none: it is ${show(data)}, and no array`}.`,
  );
  return flat;
}

const isList = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));

/** What whole numbers of a dtype may be. */
const RANGES: Partial<Record<Dtype, readonly [least: number, most: number]>> = {
  u32: [0, 2 ** 32 - 1],
  i32: [-(2 ** 31), 2 ** 31 - 1],
  u8: [0, 255],
};

/**
 * Gives the bytes of a buffer of `size` bytes that holds `data` by the strides of `spec`. Beside
 * them it marks with 1 the elements of the buffer that are the tensor's; the marks are undefined if
 * the tensor's elements lie one after the other. Throws FoveaError for a value that isn't an
 * element of the dtype.
 */
export function encode(label: string, data: unknown, spec: Required<TensorSpec>, size: number) {
  return reading(`${label}: data`, () => encodeElements(label, data, spec, size));
}

function encodeElements(label: string, data: unknown, spec: Required<TensorSpec>, size: number) {
  const { dtype, shape, strides, offset } = spec;
  const elements = elementsOf(label, data, shape);
  const bytes = hostArray(label, () => new ArrayBuffer(size));
  const stored = new STORAGE[dtype](bytes);
  const asStored = elements instanceof STORAGE[dtype];
  const marks = isContiguous(shape, strides) ? undefined : new Uint8Array(stored.length);
  if (asStored && !marks) {
    stored.set(elements, offset);
    return { bytes, marks };
  }
  const range = RANGES[dtype];
  const convert = TO_BITS[dtype];
  forEachElement(shape, strides, (index, at) => {
    const given = elements[index];
    const value =
      typeof given === "bigint" || typeof given === "boolean" ? Number(given) : (given as number);
    check(
      typeof value === "number" &&
        (!range || (Number.isInteger(value) && value >= range[0] && value <= range[1])),
      "argument",
      () =>
        `${label}: data must be ${range ? `whole numbers from ${range[0]} to ${range[1]}` : "numbers"}, got ${show(given)} at ${index}.`,
    );
    check(
      !marks?.[offset + at],
      "overlap",
      () =>
        `${label}: elements of shape [${shape}] with strides [${strides}] share memory; they can't be given values.`,
    );
    if (marks) marks[offset + at] = 1;
    stored[offset + at] = convert && !asStored ? convert(value) : value;
  });
  return { bytes, marks };
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** The IEEE 754 binary16 nearest to `value`, ties to even. */
export function float16Bits(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536 and more, and infinity
  // Below 2^-14 the result is subnormal: the value counts in units of 2^-24.
  if (magnitude < 0x38800000) return sign | roundToEven(Math.abs(scratch[0]) * 2 ** 24);
  // rebias the exponent; a carry out of the mantissa is right
  return sign | roundToEven((magnitude - 0x38000000) / 2 ** 13);
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** The bfloat16 nearest to `value`, ties to even: the upper half of an f32. */
export function bfloat16Bits(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0];
  // rounding could carry a NaN out of its exponent
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 2 ** 16) & 0xffff;
}

/** Numbers to the bits of 16-bit floats. */
const TO_BITS: Partial<Record<Dtype, (value: number) => number>> = {
  f16: float16Bits,
  bf16: bfloat16Bits,
};
