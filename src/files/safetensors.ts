// Safetensors files: 8 bytes of header length, a JSON header, the bytes of the tensors. The format
// is small and the npm packages that read it check nothing, so it is read here, and everything that
// a file can get wrong is checked. Source of the rules: the README of
// github.com/safetensors/safetensors, section Format.

import { check, FoveaError, reading, show } from "../errors.ts";
import { scanJson } from "./json.ts";
import {
  checkLength,
  checkShape,
  decode,
  type FileTensor,
  isNaturals,
  named,
  type StoredTensor,
} from "./tensors.ts";

/** The longest header that is read, enough for some 100,000 tensors. */
const MAX_HEADER = 2 ** 24;

/** Levels of brackets of a well-formed header: all tensors, one tensor, its shape. */
const MAX_DEPTH = 3;

/** Bits of an element. Other dtypes may stand in a file, too, as long as nobody asks for them. */
const BITS = new Map<string, number>([
  ...["F64", "I64", "U64", "C64"].map((dtype) => [dtype, 64] as const),
  ...["F32", "I32", "U32"].map((dtype) => [dtype, 32] as const),
  ...["F16", "BF16", "I16", "U16"].map((dtype) => [dtype, 16] as const),
  ...["BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"].map((dtype) => [dtype, 8] as const),
]);

/** Where a tensor lies in a file, in bytes from its start. */
export interface TensorPlace {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** Bytes at the start of a file that tell how long its header is. */
export const LENGTH_BYTES = 8;

/**
 * The bytes up to the end of the header, from the first bytes of a file. Throws FoveaError("file")
 * for a header that the file is too short for, or that nobody would read.
 */
export function headerEnd(name: string, first: Uint8Array, fileLength: number): number {
  check(
    lengthOf(name, first) >= LENGTH_BYTES,
    "file",
    () =>
      `${name}: ${first.length} bytes are no safetensors file; it starts with 8 bytes of header length.`,
  );
  const length = new DataView(first.buffer, first.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  check(
    length <= BigInt(fileLength - LENGTH_BYTES),
    "file",
    () =>
      `${name}: the header claims ${length} bytes; the file has ${fileLength - LENGTH_BYTES} after its first 8. Is it a safetensors file?`,
  );
  check(
    length <= BigInt(MAX_HEADER),
    "file",
    () => `${name}: the header has ${length} bytes; headers up to ${MAX_HEADER} are read.`,
  );
  return LENGTH_BYTES + Number(length);
}

/**
 * Finds every tensor of a file of this length by its header alone, `head` being the bytes up to its
 * end. Throws FoveaError("file") for anything but a well-formed file.
 */
export function safetensorsPlaces(
  name: string,
  head: Uint8Array,
  fileLength: number,
): Map<string, TensorPlace> {
  const { header, start } = split(name, head, fileLength);
  const places: Place[] = [];
  const tensors = new Map<string, TensorPlace>();
  for (const [key, entry] of Object.entries(header)) {
    const what = `${name}: ${named(key)}`;
    if (key === "__metadata__") {
      checkMetadata(name, entry);
      continue;
    }
    const { begin, end, dtype, shape } = describe(what, entry, fileLength - start);
    const bits = BITS.get(dtype);
    if (bits !== undefined) checkLength(what, { dtype, shape }, bits, end - begin);
    places.push({ key, begin, end });
    tensors.set(key, { dtype, shape, begin: start + begin, end: start + end });
  }
  checkPlaces(name, places, fileLength - start);
  return tensors;
}

/**
 * Finds every tensor of a file. Elements are read when they are asked for, so that time and memory
 * grow only with the length of the header, and a tensor that nobody wants may be of any dtype.
 * Throws FoveaError("file") for anything but a well-formed file.
 */
export function readSafetensors(name: string, bytes: Uint8Array): Map<string, FileTensor> {
  const places = safetensorsPlaces(name, bytes, lengthOf(name, bytes));
  return new Map(
    [...places].map(([key, { begin, end, ...described }]) => {
      const stored = { ...described, bytes: bytes.subarray(begin, end) };
      return [key, readLater(`${name}: ${named(key)}`, stored)] as const;
    }),
  );
}

/** The texts that a file says of itself, by their names. Throws as {@link readSafetensors} does. */
export function safetensorsMetadata(
  name: string,
  bytes: Uint8Array,
): Readonly<Record<string, string>> {
  const { __metadata__: metadata = {} } = split(name, bytes, lengthOf(name, bytes)).header as {
    readonly __metadata__?: Record<string, string>;
  };
  checkMetadata(name, metadata);
  return metadata;
}

/** Makes a tensor that reads its elements once, at the first look. */
function readLater(what: string, stored: StoredTensor): FileTensor {
  const { shape, dtype } = stored;
  let data: FileTensor["data"] | undefined;
  return {
    shape,
    dtype,
    get data() {
      data ??= decode(what, stored);
      return data;
    },
  };
}

/** The header of a file, as an object, and where the data behind it starts. */
function split(
  name: string,
  head: Uint8Array,
  fileLength: number,
): { readonly header: object; readonly start: number } {
  const start = headerEnd(name, head, fileLength);
  const fail = (what: string, cause?: unknown): never => {
    throw new FoveaError("file", `${name}: ${what}`, { cause });
  };
  let header: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      head.subarray(LENGTH_BYTES, start),
    );
    const { depth, duplicate } = scanJson(text, MAX_DEPTH);
    if (depth > MAX_DEPTH) fail(`the header nests brackets more than ${MAX_DEPTH} deep.`);
    if (duplicate !== undefined) fail(`the header has ${duplicate} twice.`);
    header = JSON.parse(text);
    if (typeof header !== "object" || header === null || Array.isArray(header))
      fail("the header is no JSON object.");
    if (!text.startsWith("{")) fail("the header must begin with {.");
  } catch (cause) {
    if (cause instanceof FoveaError) throw cause;
    // The message of the parser quotes the file.
    fail(`the header is no JSON: ${show((cause as Error).message)}`, cause);
  }
  return { header: header as object, start };
}

/** Bytes of one tensor within the data. */
interface Place {
  readonly key: string;
  readonly begin: number;
  readonly end: number;
}

function describe(what: string, entry: unknown, length: number) {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  check(typeof dtype === "string", "file", () => `${what} has no dtype.`);
  checkShape(what, shape);
  check(
    isNaturals(offsets) && offsets.length === 2 && offsets[0] <= offsets[1] && offsets[1] <= length,
    "file",
    () =>
      `${what}: data_offsets ${show(offsets)} are not inside the file's ${length} bytes of data.`,
  );
  return { dtype, shape, begin: offsets[0], end: offsets[1] };
}

function checkMetadata(name: string, metadata: unknown): void {
  check(
    typeof metadata === "object" &&
      metadata !== null &&
      !Array.isArray(metadata) &&
      Object.values(metadata).every((value) => typeof value === "string"),
    "file",
    () => `${name}: __metadata__ must be an object of strings, got ${show(metadata)}.`,
  );
}

/** Checks the format's own rule: every byte of data belongs to exactly one tensor. */
function checkPlaces(name: string, places: readonly Place[], length: number): void {
  const sorted = [...places].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const [index, place] of sorted.entries()) {
    check(
      place.begin >= end,
      "file",
      () => `${name}: ${named(sorted[index - 1].key)} and ${named(place.key)} overlap in the file.`,
    );
    check(
      place.begin === end,
      "file",
      () => `${name}: bytes ${end} to ${place.begin} of the data belong to no tensor.`,
    );
    end = place.end;
  }
  check(
    end === length,
    "file",
    () => `${name}: bytes ${end} to ${length} of the data belong to no tensor.`,
  );
}

/** Makes a file with f32 tensors, and texts that it says of itself. */
export function writeSafetensors(
  tensors: Readonly<Record<string, { shape: readonly number[]; data: Float32Array }>>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  let offset = 0;
  const places = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => {
      const begin = offset;
      offset += data.byteLength;
      return [name, { dtype: "F32", shape, data_offsets: [begin, offset] }];
    }),
  );
  const header = metadata ? { __metadata__: metadata, ...places } : places;
  // The header is padded with spaces so that the data starts at a multiple of 8.
  const json = JSON.stringify(header);
  const length = new TextEncoder().encode(json).length;
  const padding = " ".repeat(Math.ceil(length / 8) * 8 - length);
  const text = new TextEncoder().encode(json + padding);
  const bytes = new Uint8Array(8 + text.length + offset);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  let at = 8 + text.length;
  for (const { data } of Object.values(tensors)) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}

/** The length of what is given as a file. Throws FoveaError("file") for what is no bytes. */
function lengthOf(name: string, bytes: Uint8Array): number {
  const isBytes = reading(name, () => bytes instanceof Uint8Array);
  check(isBytes, "file", () => `${name}: a file is given as a Uint8Array, got ${show(bytes)}.`);
  return bytes.length;
}
