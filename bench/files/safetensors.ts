// Safetensors files: 8 bytes of header length, a JSON header, the bytes of the tensors. The format is small and the
// npm packages that read it check nothing, so it is read here, and everything that a file can get wrong is checked.

import { check, FoveaError } from "../../src/errors.ts";
import { decodeElements, type FileTensor } from "./tensors.ts";

/** Longest header that is read; the reference implementation has the same limit. */
const MAX_HEADER = 100_000_000;

/** Reads every tensor of a file. Throws FoveaError("file") for anything but a well-formed file. */
export function readSafetensors(name: string, bytes: Uint8Array): Map<string, FileTensor> {
  const fail = (what: string): never => {
    throw new FoveaError("file", `${name}: ${what}`);
  };
  if (bytes.length < 8) fail(`${bytes.length} bytes are no safetensors file; it starts with 8 bytes of header length.`);
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER) || Number(length) > bytes.length - 8) {
    fail(
      `the header claims ${length} bytes; the file has ${bytes.length - 8} after its first 8. Is it a safetensors file?`,
    );
  }
  const start = 8 + Number(length);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, start)));
  } catch (cause) {
    throw new FoveaError("file", `${name}: the header is no JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) fail("the header is no JSON object.");
  const tensors = new Map<string, FileTensor>();
  for (const [key, entry] of Object.entries(header as Record<string, unknown>)) {
    if (key !== "__metadata__") tensors.set(key, readEntry(`${name}: ${key}`, entry, bytes.subarray(start)));
  }
  return tensors;
}

function readEntry(what: string, entry: unknown, data: Uint8Array): FileTensor {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  check(typeof dtype === "string", "file", () => `${what} has no dtype.`);
  check(isNaturals(shape), "file", () => `${what}: a shape is a list of whole numbers, got ${JSON.stringify(shape)}.`);
  check(
    isNaturals(offsets) && offsets.length === 2 && offsets[0] <= offsets[1] && offsets[1] <= data.length,
    "file",
    () => `${what}: data_offsets ${JSON.stringify(offsets)} are not inside the file's ${data.length} bytes of data.`,
  );
  return { shape, ...decodeElements(what, dtype, shape, data.subarray(offsets[0], offsets[1])) };
}

const isNaturals = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

/** A file with f32 tensors. */
export function writeSafetensors(
  tensors: Readonly<Record<string, { shape: readonly number[]; data: Float32Array }>>,
): Uint8Array {
  let offset = 0;
  const header = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => {
      const begin = offset;
      offset += data.byteLength;
      return [name, { dtype: "F32", shape, data_offsets: [begin, offset] }];
    }),
  );
  // The header is padded with spaces so that the data starts at a multiple of 8.
  const json = JSON.stringify(header);
  const text = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
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
