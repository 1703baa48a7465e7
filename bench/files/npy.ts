// NumPy files, by npm `npyjs`, which trusts its input: everything that a file can get wrong is checked around it.

import { dump, parse } from "npyjs";
import { check, FoveaError } from "../../src/errors.ts";
import { decodeElements, type FileTensor } from "./tensors.ts";

const DTYPES = new Map([
  ["<f8", "F64"],
  ["<f4", "F32"],
  ["<f2", "F16"],
]);
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"

/** Reads a file with one array. Throws FoveaError("file") for anything but a well-formed one of a float dtype. */
export function readNpy(name: string, bytes: Uint8Array): FileTensor {
  const fail = (what: string, cause?: unknown): never => {
    throw new FoveaError("file", `${name}: ${what}`, { cause });
  };
  if (bytes.length < 12 || MAGIC.some((byte, index) => bytes[index] !== byte)) fail("this is no .npy file.");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [start, length] = bytes[6] <= 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const data = start + length;
  if (data > bytes.length) fail(`the header claims ${length} bytes; the file has ${bytes.length - start}.`);
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, data));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1] ?? fail(`the header has no dtype: ${header.trim()}`);
  const dtype = DTYPES.get(descr) ?? fail(`the array is ${descr}; attention takes ${[...DTYPES.keys()].join(", ")}.`);

  // The library reads the header; the elements are read from the bytes, since it would take any number of them. It wants
  // the data aligned, so it gets the header alone, padded.
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(paddedHeader(header), { convertFloat16: false });
  } catch (cause) {
    return fail(`the header can't be read: ${(cause as Error).message}`, cause);
  }
  const { shape, fortranOrder } = parsed;
  check(
    shape.every((size) => Number.isSafeInteger(size) && size >= 0),
    "file",
    () => `${name}: a shape is a list of whole numbers, got (${shape}).`,
  );
  const decoded = decodeElements(name, dtype, shape, bytes.subarray(data));
  return { shape, ...decoded, data: fortranOrder ? fromFortran(decoded.data, shape) : decoded.data };
}

/** A file of no data with this header, which ends at a multiple of 64. */
function paddedHeader(header: string): ArrayBuffer {
  const length = Math.ceil((12 + header.length) / 64) * 64 - 12;
  const bytes = new Uint8Array(12 + length).fill(0x20);
  bytes.set([...MAGIC, 2, 0]);
  new DataView(bytes.buffer).setUint32(8, length, true);
  bytes.set(new TextEncoder().encode(header.replace(/[^\x20-\x7e]/g, " ")), 12);
  return bytes.buffer;
}

/** Column-major elements in row-major order. */
function fromFortran(data: Float32Array, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const ordered = new Float32Array(data.length);
  const index = shape.map(() => 0);
  for (let element = 0; element < data.length; element++) {
    const at = index.reduceRight((sum, position, axis) => sum * shape[axis] + position, 0);
    ordered[element] = data[at];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return ordered;
}

/** A file with one f32 array. */
export function writeNpy(data: Float32Array, shape: readonly number[]): Uint8Array {
  return new Uint8Array(dump(data, [...shape]));
}
