// Tensors from files, whatever their dtype, as f32.

import { check } from "../../src/errors.ts";
import { float16Value } from "../../src/gpu/elements.ts";

export interface FileTensor {
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: Float32Array<ArrayBuffer>;
  /** The dtype in the file. */
  readonly dtype: string;
}

/** Bytes of an element and how it is read, by the names of safetensors. */
const READERS = new Map<string, [bytes: number, read: (view: DataView, at: number) => number]>([
  ["F64", [8, (view, at) => view.getFloat64(at, true)]],
  ["F32", [4, (view, at) => view.getFloat32(at, true)]],
  ["F16", [2, (view, at) => float16Value(view.getUint16(at, true))]],
  ["BF16", [2, (view, at) => bfloat16Value(view.getUint16(at, true))]],
]);

const scratch = new DataView(new ArrayBuffer(4));

/** bf16 is the upper half of an f32. */
function bfloat16Value(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** Little-endian bytes as f32 values. Throws FoveaError("file") for another dtype or another number of bytes. */
export function decodeElements(what: string, dtype: string, shape: readonly number[], bytes: Uint8Array) {
  const reader = READERS.get(dtype);
  check(reader !== undefined, "file", () => `${what} is ${dtype}; attention takes ${[...READERS.keys()].join(", ")}.`);
  const [size, read] = reader;
  const count = shape.reduce((product, length) => product * length, 1);
  check(
    count * size === bytes.length,
    "file",
    () => `${what}: shape [${shape}] of ${dtype} takes ${count * size} bytes; the file has ${bytes.length} for it.`,
  );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { dtype, data: Float32Array.from({ length: count }, (_, element) => read(view, element * size)) };
}
