// A test vector of a peer's own suite: one JSON object, with an operator's inputs, the outputs that
// are expected, and a tolerance. It is read the same way in pages, Node and Deno.

import { bfloat16Value, float16Value } from "../../src/gpu/read.ts";
import type { Dtype } from "../../src/index.ts";

export interface VectorTensor {
  /** Its name, in vectors whose tensors go by name. */
  readonly name?: string;
  /** The element type as in the file: float32, float16, int64, ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Elements in row-major order; booleans are 0 and 1. */
  readonly data: Float64Array;
}

/** What a vector says of itself, without its tensors. */
export interface Header {
  /**
   * Domain and operator: `com.microsoft.RotaryEmbedding`, `ai.onnx.RotaryEmbedding`,
   * `keras.AlibiBias`.
   */
  readonly op: string;
  /** The operator's version, or null if the suite has none. */
  readonly opset: number | null;
  /** The element type of its first float input, or else of its first output. */
  readonly dtype: string;
}

export interface Vector extends Header {
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
  readonly attributes: Readonly<Record<string, any>>;
  /** Inputs in the operator's order; undefined is an optional one that was left out. */
  readonly inputs: readonly (VectorTensor | undefined)[];
  readonly outputs: readonly (VectorTensor | undefined)[];
  /** |actual - expected| <= tolerance * max(1, |expected|) */
  readonly tolerance: number;
  /** Other tolerances, of outputs by their names. */
  readonly tolerances: Readonly<Record<string, number>>;
  /**
   * Flat ranges of outputs, by their names, that are what an optimiser made of rounding: they are not
   * compared.
   */
  readonly noise: Readonly<Record<string, readonly (readonly [begin: number, end: number])[]>>;
}

interface Encoding {
  readonly decode: (bytes: ArrayBuffer) => Float64Array;
  /** Our dtype, if there is one. */
  readonly dtype?: Dtype;
}

/** The element types of the format. */
const ENCODINGS: Readonly<Record<string, Encoding>> = {
  float64: { decode: (bytes) => new Float64Array(bytes) },
  float32: { dtype: "f32", decode: (bytes) => Float64Array.from(new Float32Array(bytes)) },
  float16: {
    dtype: "f16",
    decode: (bytes) => Float64Array.from(new Uint16Array(bytes), float16Value),
  },
  bfloat16: {
    dtype: "bf16",
    decode: (bytes) => Float64Array.from(new Uint16Array(bytes), bfloat16Value),
  },
  int64: { dtype: "i32", decode: (bytes) => Float64Array.from(new BigInt64Array(bytes), Number) },
  int32: { dtype: "i32", decode: (bytes) => Float64Array.from(new Int32Array(bytes)) },
  int8: { decode: (bytes) => Float64Array.from(new Int8Array(bytes)) },
  uint32: { dtype: "u32", decode: (bytes) => Float64Array.from(new Uint32Array(bytes)) },
  uint8: { dtype: "u8", decode: (bytes) => Float64Array.from(new Uint8Array(bytes)) },
  bool: { dtype: "u8", decode: (bytes) => Float64Array.from(new Uint8Array(bytes)) },
};

/** Our element type for one of the format, or nothing if we have none. */
export const ourDtype = (dtype: string): Dtype | undefined =>
  Object.hasOwn(ENCODINGS, dtype) ? ENCODINGS[dtype].dtype : undefined;

// biome-ignore-start lint/suspicious/noExplicitAny: JSON
function tensorOf(json: any): VectorTensor | undefined {
  if (!json) return undefined;
  if (!Object.hasOwn(ENCODINGS, json.dtype))
    return { dtype: json.dtype, shape: json.dims, data: new Float64Array() };
  const bytes = Uint8Array.from(atob(json.data), (character) => character.charCodeAt(0));
  const data = ENCODINGS[json.dtype].decode(bytes.buffer);
  const count = json.dims.reduce((product: number, size: number) => product * size, 1);
  if (data.length !== count)
    throw new Error(`${json.dtype} [${json.dims}] has ${data.length} elements`);
  return { dtype: json.dtype, shape: json.dims, data, ...(json.name && { name: json.name }) };
}

function headerOf({ domain, op, opset, inputs, outputs }: any): Header {
  const typed = [
    ...inputs.filter((one: any) => one?.dtype.includes("float")),
    ...outputs.filter(Boolean),
  ];
  return {
    op: `${domain || "ai.onnx"}.${op}`,
    opset: opset ?? null,
    dtype: typed[0]?.dtype ?? "none",
  };
}
// biome-ignore-end lint/suspicious/noExplicitAny: JSON

/** Reads what the text of a vector says of itself. Throws if it isn't a vector. */
export const parseHeader = (text: string): Header => headerOf(JSON.parse(text));

/** Reads the text of a vector. Throws if it isn't one. */
export function parseVector(text: string): Vector {
  const json = JSON.parse(text);
  const { attributes, inputs, outputs, check } = json;
  if (typeof check?.tol !== "number") throw new Error("the vector has no check.tol");
  if (!outputs.some(Boolean)) throw new Error("the vector expects no output");
  return {
    ...headerOf(json),
    attributes: attributes ?? {},
    inputs: inputs.map(tensorOf),
    outputs: outputs.map(tensorOf),
    tolerance: check.tol,
    tolerances: check.tols ?? {},
    noise: check.noise ?? {},
  };
}
