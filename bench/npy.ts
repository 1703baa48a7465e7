// NumPy files with one array each. They are written by npm `npyjs`, whose reader takes whatever it
// is given; so they are read here, and everything that a file can get wrong is checked.
// Source of the rules: numpy.lib.format of NumPy's documentation.

import { dump } from "npyjs";
import { check, FoveaError, show } from "../src/errors.ts";
import { checkShape, decode, elementCount, type FileTensor, named } from "../src/files/tensors.ts";

const DTYPES = new Map([
  ["<f8", "F64"],
  ["<f4", "F32"],
  ["<f2", "F16"],
]);
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"

/**
 * The longest header that is read: what version 1 can have. Only dtypes with many fields have
 * longer headers.
 */
const MAX_HEADER = 0xffff;

/** The most axes that NumPy's arrays can have. */
const MAX_AXES = 64;

/**
 * An entry of the header, a Python literal: a name, and text, True, False or a tuple of whole
 * numbers.
 */
const ENTRY =
  /\s*(?:'(?<name>\w{0,20})'|"(?<name2>\w{0,20})")\s*:\s*(?:'(?<text>[^'\\]*)'|"(?<text2>[^"\\]*)"|(?<flag>True|False)|\((?<sizes>[^()]*)\))\s*(?<more>,?)/y;

const CLOSE = /\s*\}\s*$/y;

/**
 * Reads a file with one array. Throws FoveaError("file") for anything but a well-formed file of a
 * float dtype.
 */
export function readNpy(name: string, bytes: Uint8Array): FileTensor {
  const fail = (what: string): never => {
    throw new FoveaError("file", `${name}: ${what}`);
  };
  if (bytes[0] === 0x50 && bytes[1] === 0x4b)
    fail("this is no .npy file but an archive; unzip a .npz first.");
  if (bytes.length < 12 || MAGIC.some((byte, index) => bytes[index] !== byte))
    fail("this is no .npy file.");
  const [, , , , , , major, minor] = bytes;
  if (major < 1 || major > 3 || minor !== 0)
    fail(`version ${major}.${minor} is unknown; there are 1.0, 2.0 and 3.0.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = major === 1 ? 10 : 12;
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const end = start + length;
  if (end > bytes.length)
    fail(`the header claims ${length} bytes; the file has ${bytes.length - start}.`);
  if (length > MAX_HEADER)
    fail(`the header has ${length} bytes; headers up to ${MAX_HEADER} are read.`);
  const header = parseHeader(name, new TextDecoder("latin1").decode(bytes.subarray(start, end)));
  const dtype =
    DTYPES.get(header.descr) ??
    fail(`the array is ${named(header.descr)}; attention takes ${[...DTYPES.keys()].join(", ")}.`);
  const { shape, fortranOrder } = header;
  const data = decode(name, { shape, dtype, bytes: bytes.subarray(end) });
  return { shape, dtype, data: fortranOrder ? fromFortran(data, shape) : data };
}

/**
 * Reads the dict of a header, which has exactly `descr`, `fortran_order` and `shape`, in any order.
 */
function parseHeader(
  name: string,
  header: string,
): { descr: string; fortranOrder: boolean; shape: number[] } {
  const malformed = () =>
    new FoveaError(
      "file",
      `${name}: the header is not that of a plain array: ${show(header.trim())}.`,
    );
  const open = /^\s*\{/.exec(header);
  if (!open) throw malformed();
  let [{ length: at }] = open;
  const found = new Map<string, Record<string, string | undefined>>();
  for (let more = true; more && !closes(header, at); ) {
    ENTRY.lastIndex = at;
    const groups = ENTRY.exec(header)?.groups;
    const key = groups?.name ?? groups?.name2;
    if (!groups || key === undefined || found.has(key)) throw malformed();
    found.set(key, groups);
    at = ENTRY.lastIndex;
    more = groups.more === ",";
  }
  if (!closes(header, at)) throw malformed();
  const descr = found.get("descr")?.text ?? found.get("descr")?.text2;
  const flag = found.get("fortran_order")?.flag;
  const sizes = found.get("shape")?.sizes;
  check(
    descr !== undefined,
    "file",
    () => `${name}: the header has no dtype: ${show(header.trim())}.`,
  );
  check(
    flag !== undefined && sizes !== undefined && found.size === 3,
    "file",
    () =>
      `${name}: the header must have descr, fortran_order and shape, and nothing else: ${show(header.trim())}.`,
  );
  return { descr, fortranOrder: flag === "True", shape: parseShape(name, sizes) };
}

function closes(header: string, at: number): boolean {
  CLOSE.lastIndex = at;
  return CLOSE.test(header);
}

/**
 * Reads Python's tuple of sizes, given without its parentheses. Python 2 wrote L behind a long
 * number.
 */
function parseShape(name: string, sizes: string): number[] {
  const parts = sizes.trim() === "" ? [] : sizes.split(",");
  if (parts.length > 1 && parts.at(-1)?.trim() === "") parts.pop();
  const shape = parts.map((part) =>
    /^\s*-?\d+L?\s*$/.test(part) ? Number.parseInt(part, 10) : Number.NaN,
  );
  check(
    shape.every((size) => Number.isSafeInteger(size) && size >= 0),
    "file",
    () => `${name}: a shape is a list of whole numbers, got (${show(sizes).slice(1, -1)}).`,
  );
  check(
    shape.length <= MAX_AXES,
    "file",
    () => `${name}: ${shape.length} axes are more than NumPy's ${MAX_AXES}.`,
  );
  checkShape(name, shape);
  return shape;
}

/** Brings column-major elements into row-major order. */
function fromFortran(data: Float32Array, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const ordered = new Float32Array(elementCount(shape));
  const index = shape.map(() => 0);
  for (let element = 0; element < data.length; element++) {
    const at = index.reduceRight((sum, position, axis) => sum * shape[axis] + position, 0);
    ordered[element] = data[at];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--)
      index[axis] = 0;
  }
  return ordered;
}

/** Makes a file with one f32 array. */
export function writeNpy(data: Float32Array, shape: readonly number[]): Uint8Array {
  return new Uint8Array(dump(data, [...shape]));
}
