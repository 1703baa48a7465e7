// The way back from the GPU: the bytes of a buffer, the numbers that they stand for, and writes
// that leave the bytes between them as they are. Loaded with the first read.

import { FoveaError } from "../errors.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { checkDevice, copyOut, guarded, toldOfLoss } from "./buffers.ts";
import type { encode } from "./elements.ts";
import { forEachElement, STORAGE, type TensorValues } from "./elements.ts";
import { hostArray } from "./host_array.ts";
import { BYTES, countOf } from "./shapes.ts";

/** The bytes of a buffer with MAP_READ usage, once the GPU is done with it. */
export async function mappedBytes(
  device: GPUDevice,
  buffer: GPUBuffer,
  what: string,
): Promise<ArrayBuffer> {
  await buffer.mapAsync(1 /* GPUMapMode.READ */).catch(async (cause: unknown) => {
    await toldOfLoss(device);
    checkDevice(device);
    throw new FoveaError("validation", `${what}: the result could not be mapped (${cause})`, {
      cause,
    });
  });
  const bytes = buffer.getMappedRange().slice(0);
  buffer.unmap();
  return bytes;
}

const VALUES = {
  f32: Float32Array,
  f16: Float32Array,
  bf16: Float32Array,
  u32: Uint32Array,
  i32: Int32Array,
  u8: Uint8Array,
} as const;

/** The elements of `spec` in row-major order, from the bytes of a buffer. */
export function decode(
  label: string,
  bytes: ArrayBuffer,
  spec: Required<TensorSpec>,
): TensorValues {
  const stored = new STORAGE[spec.dtype](bytes);
  const count = countOf(spec.shape);
  const values = hostArray(`${label}.read`, () => new VALUES[spec.dtype](count));
  const convert = FROM_BITS[spec.dtype];
  forEachElement(spec.shape, spec.strides, (element, at) => {
    values[element] = convert ? convert(stored[spec.offset + at]) : stored[spec.offset + at];
  });
  return values;
}

/** The number that the IEEE 754 binary16 `bits` stand for. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent
    ? sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
    : sign * mantissa * 2 ** -24;
}

const word = new Uint32Array(1);
const number = new Float32Array(word.buffer);

/** The number that the bfloat16 `bits` stand for. */
export function bfloat16Value(bits: number): number {
  word[0] = bits * 2 ** 16;
  return number[0];
}

/** How the bits of 16-bit floats become numbers. */
const FROM_BITS: Partial<Record<Dtype, (bits: number) => number>> = {
  f16: float16Value,
  bf16: bfloat16Value,
};

/**
 * Writes elements into a buffer from byte `first` on and leaves what lies between them as it was:
 * copies move whole words, so the words are read first.
 *
 * @param encoded The words to write, and which elements of them are to change; without marks all of
 *   `spec`
 */
export async function writeAmong(
  device: GPUDevice,
  what: string,
  buffer: GPUBuffer,
  first: number,
  { bytes, marks }: ReturnType<typeof encode>,
  {
    dtype,
    shape,
    offset,
  }: { readonly dtype: Dtype; readonly shape: readonly number[]; readonly offset: number },
): Promise<void> {
  const size = BYTES[dtype];
  const end = offset + countOf(shape);
  const { value: staging, done } = copyOut(device, buffer, first, bytes.byteLength, what);
  const merged = new Uint8Array(
    await done.then(() => mappedBytes(device, staging, what)).finally(() => staging.destroy()),
  );
  const given = new Uint8Array(bytes);
  for (let at = 0; at < given.length; at++) {
    const element = Math.floor(at / size);
    if (marks ? marks[element] : element >= offset && element < end) merged[at] = given[at];
  }
  await guarded(device, what, () => device.queue.writeBuffer(buffer, first, merged)).done;
}
