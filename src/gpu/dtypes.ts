// The properties of each element type: its size, the arrays that hold it, and its numbers.

import type { Dtype } from "../types.ts";

type Elements = typeof Float32Array | typeof Uint32Array | typeof Int32Array | typeof Uint8Array;

interface DtypeFacts {
  /** Bytes of an element. */
  readonly bytes: number;
  /** Whether it is a type of attention's inputs and outputs. */
  readonly isFloat: boolean;
  /** The elements as buffers hold them. */
  readonly Stored: Elements | typeof Uint16Array;
  /** The elements as `read` gives them. */
  readonly Read: Elements;
  /** The least and the greatest whole number of the type; undefined for types of floats. */
  readonly range: readonly [least: number, most: number] | undefined;
  /**
   * Gives the bits of the element nearest to a number; undefined if `Stored` converts numbers
   * itself.
   */
  readonly toBits: ((value: number) => number) | undefined;
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
  // Below 2^-14 the result is subnormal: it is a count of units of 2^-24.
  if (magnitude < 0x38800000) return sign | roundToEven(Math.abs(scratch[0]) * 2 ** 24);
  // This rebiases the exponent; a carry out of the mantissa into it is right.
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
  // Rounding could carry a NaN out of its exponent.
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 2 ** 16) & 0xffff;
}

const float = (
  bytes: number,
  Stored: DtypeFacts["Stored"],
  toBits?: DtypeFacts["toBits"],
): DtypeFacts => ({ bytes, isFloat: true, Stored, Read: Float32Array, range: undefined, toBits });

const whole = (Stored: Elements, least: number, most: number): DtypeFacts => ({
  bytes: Stored.BYTES_PER_ELEMENT,
  isFloat: false,
  Stored,
  Read: Stored,
  range: [least, most],
  toBits: undefined,
});

export const DTYPES: Readonly<Record<Dtype, DtypeFacts>> = {
  f32: float(4, Float32Array),
  f16: float(2, Uint16Array, float16Bits),
  bf16: float(2, Uint16Array, bfloat16Bits),
  u32: whole(Uint32Array, 0, 2 ** 32 - 1),
  i32: whole(Int32Array, -(2 ** 31), 2 ** 31 - 1),
  u8: whole(Uint8Array, 0, 255),
};

/** The element types of attention's inputs and outputs. */
export const FLOATS: readonly Dtype[] = (Object.keys(DTYPES) as Dtype[]).filter(
  (dtype) => DTYPES[dtype].isFloat,
);
