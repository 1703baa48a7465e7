// Tensors from files, whatever their dtype, as f32. Files are not trusted: every number in them is
// checked before use.

import { check, FoveaError, show } from "../errors.ts";
import { bfloat16Value, float16Value } from "../gpu/read.ts";

export interface FileTensor {
  readonly shape: readonly number[];
  /** The dtype in the file. */
  readonly dtype: string;
  /**
   * Row-major elements. Those of a safetensors file are read when they are asked for, and the
   * getter throws what {@link decode} throws.
   */
  readonly data: Float32Array<ArrayBuffer>;
}

/** A tensor as it lies in a file. */
export interface StoredTensor {
  readonly shape: readonly number[];
  readonly dtype: string;
  /** Row-major, little-endian elements, a part of the file's own memory. */
  readonly bytes: Uint8Array;
}

/**
 * Returns a name from a file as messages give it: as it is if it is a plain word, else quoted,
 * escaped and cut.
 */
export const named = (name: string) => (/^[\w./:|<>=-]{1,80}$/.test(name) ? name : show(name));

/** How an element is read, by the names of safetensors. */
const READERS = new Map<string, { bytes: number; read: (view: DataView, at: number) => number }>([
  ["F64", { bytes: 8, read: (view, at) => view.getFloat64(at, true) }],
  ["F32", { bytes: 4, read: (view, at) => view.getFloat32(at, true) }],
  ["F16", { bytes: 2, read: (view, at) => float16Value(view.getUint16(at, true)) }],
  ["BF16", { bytes: 2, read: (view, at) => bfloat16Value(view.getUint16(at, true)) }],
]);

/** Checks a shape from a file: whole numbers, whose product is a safe integer. */
export function checkShape(what: string, shape: unknown): asserts shape is number[] {
  check(
    isNaturals(shape),
    "file",
    () => `${what}: a shape is a list of whole numbers, got ${show(shape)}.`,
  );
  check(
    elementCount(shape) <= Number.MAX_SAFE_INTEGER,
    "file",
    () => `${what}: shape ${show(shape)} has more elements than can be counted.`,
  );
}

export const isNaturals = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

/**
 * Counts the elements of a checked shape. Without the test for 0, other sizes could multiply to
 * Infinity, and that times 0 is NaN.
 */
export const elementCount = (shape: readonly number[]) =>
  shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);

/** Throws FoveaError("file") unless a checked shape takes that many bytes. */
export function checkLength(
  what: string,
  { shape, dtype }: Pick<StoredTensor, "shape" | "dtype">,
  bitsPerElement: number,
  length: number,
): void {
  const expected = (elementCount(shape) * bitsPerElement) / 8;
  check(
    expected === length,
    "file",
    () =>
      `${what}: shape ${show(shape)} of ${named(dtype)} takes ${expected} bytes; the file has ${length} for it.`,
  );
}

/**
 * Decodes the elements as f32. Throws FoveaError("file") for a dtype that is not a float, another
 * number of bytes than the shape takes, and a value beyond f32.
 */
export function decode(what: string, stored: StoredTensor): Float32Array<ArrayBuffer> {
  const { dtype, bytes } = stored;
  const reader = READERS.get(dtype);
  check(
    reader !== undefined,
    "file",
    () => `${what} is ${named(dtype)}; what is read are ${[...READERS.keys()].join(", ")}.`,
  );
  checkLength(what, stored, 8 * reader.bytes, bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = new Float32Array(bytes.length / reader.bytes);
  for (let element = 0; element < data.length; element++) {
    const value = reader.read(view, element * reader.bytes);
    data[element] = value;
    if (Number.isFinite(value) && !Number.isFinite(data[element])) {
      throw new FoveaError(
        "file",
        `${what}: element ${element} is ${value}, which f32 can't hold.`,
      );
    }
  }
  return data;
}
