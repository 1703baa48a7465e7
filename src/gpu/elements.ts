// Elements of tensors as JavaScript numbers and as bytes of a buffer.

import type { Dtype, TensorSpec } from "../types.ts";

/** What a tensor can be filled from. Numbers are rounded to the dtype; a Uint16Array given for f16 or bf16 is taken as bits. */
export type TensorData =
  | readonly number[]
  | Float32Array
  | Float64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | Int32Array;

/** What `read` returns: f32, f16 and bf16 as Float32Array, the others as arrays of their own kind. */
export type TensorValues = Float32Array | Uint32Array | Int32Array | Uint8Array;

export const BYTES: Readonly<Record<Dtype, number>> = { f32: 4, f16: 2, bf16: 2, u32: 4, i32: 4, u8: 1 };

const STORAGE = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  u32: Uint32Array,
  i32: Int32Array,
  u8: Uint8Array,
} as const;
const VALUES = {
  f32: Float32Array,
  f16: Float32Array,
  bf16: Float32Array,
  u32: Uint32Array,
  i32: Int32Array,
  u8: Uint8Array,
} as const;

/** Calls `visit(element, at)` for every element in row-major order, with its distance from the first in the buffer. */
function forEachElement(
  shape: readonly number[],
  strides: readonly number[],
  visit: (element: number, at: number) => void,
): void {
  const count = shape.reduce((product, size) => product * size, 1);
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

/** Bytes of a buffer of `size` bytes that holds `data` by the strides of `spec`. */
export function encode(data: TensorData, spec: Required<TensorSpec>, size: number): ArrayBuffer {
  const bytes = new ArrayBuffer(size);
  const stored = new STORAGE[spec.dtype](bytes);
  const convert = data instanceof Uint16Array ? undefined : TO_BITS[spec.dtype];
  forEachElement(spec.shape, spec.strides, (element, at) => {
    stored[spec.offset + at] = convert ? convert(data[element]) : data[element];
  });
  return bytes;
}

/** The elements of `spec` in row-major order, from the bytes of a buffer. */
export function decode(bytes: ArrayBuffer, spec: Required<TensorSpec>): TensorValues {
  const stored = new STORAGE[spec.dtype](bytes);
  const values = new VALUES[spec.dtype](spec.shape.reduce((product, size) => product * size, 1));
  const convert = FROM_BITS[spec.dtype];
  forEachElement(spec.shape, spec.strides, (element, at) => {
    values[element] = convert ? convert(stored[spec.offset + at]) : stored[spec.offset + at];
  });
  return values;
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
  return sign | roundToEven((magnitude - 0x38000000) / 2 ** 13); // rebias the exponent; a carry out of the mantissa is right
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** The number that the IEEE 754 binary16 `bits` stand for. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent ? sign * (1 + mantissa / 1024) * 2 ** (exponent - 15) : sign * mantissa * 2 ** -24;
}

/** The bfloat16 nearest to `value`, ties to even: the upper half of an f32. */
export function bfloat16Bits(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0];
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40; // rounding could carry a NaN out of its exponent
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 2 ** 16) & 0xffff;
}

/** The number that the bfloat16 `bits` stand for. */
export function bfloat16Value(bits: number): number {
  scratchBits[0] = bits * 2 ** 16;
  return scratch[0];
}

/** Numbers to the bits of 16-bit floats, and back. */
const TO_BITS: Partial<Record<Dtype, (value: number) => number>> = { f16: float16Bits, bf16: bfloat16Bits };
const FROM_BITS: Partial<Record<Dtype, (bits: number) => number>> = { f16: float16Value, bf16: bfloat16Value };
