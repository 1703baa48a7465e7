// Test vectors of peers' own suites: one JSON object a file, with inputs, expected outputs and a tolerance. Read where
// they stand; without them a file of tests is one skip, which scripts/test.mjs counts.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { vectorFolders } from "../../scripts/vectors.mjs";
import { bfloat16Value, float16Value } from "../../src/gpu/elements.ts";
import type { Dtype } from "../../src/index.ts";
import { worstElement } from "../../src/reference/index.ts";

export interface VectorTensor {
  /** As in the file: float32, float16, int64, ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** In row-major order; booleans are 0 and 1. */
  readonly data: Float64Array;
}

export interface Vector {
  /** Folder and file, without its extension. */
  readonly name: string;
  /** Domain and operator: `com.microsoft.RotaryEmbedding`, `ai.onnx.RotaryEmbedding`, `keras.AlibiBias`. */
  readonly op: string;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
  readonly attributes: Readonly<Record<string, any>>;
  /** Positional, as in the operator; undefined is an optional one that was left out. */
  readonly inputs: readonly (VectorTensor | undefined)[];
  readonly outputs: readonly (VectorTensor | undefined)[];
  /** |actual - expected| <= tolerance * max(1, |expected|) */
  readonly tolerance: number;
}

/** The values of an element type, from its bytes. */
const VALUES: Readonly<Record<string, (bytes: ArrayBuffer) => Float64Array>> = {
  float64: (bytes) => new Float64Array(bytes),
  float32: (bytes) => Float64Array.from(new Float32Array(bytes)),
  float16: (bytes) => Float64Array.from(new Uint16Array(bytes), float16Value),
  bfloat16: (bytes) => Float64Array.from(new Uint16Array(bytes), bfloat16Value),
  int64: (bytes) => Float64Array.from(new BigInt64Array(bytes), Number),
  int32: (bytes) => Float64Array.from(new Int32Array(bytes)),
  int8: (bytes) => Float64Array.from(new Int8Array(bytes)),
  uint8: (bytes) => Float64Array.from(new Uint8Array(bytes)),
  bool: (bytes) => Float64Array.from(new Uint8Array(bytes)),
};

/** Our dtype for the floats of a vector. */
export const floatDtype = ({ dtype }: VectorTensor): Dtype =>
  dtype === "float16" ? "f16" : dtype === "bfloat16" ? "bf16" : "f32";

// biome-ignore lint/suspicious/noExplicitAny: JSON
function tensorOf(json: any): VectorTensor | undefined {
  if (!json) return undefined;
  const bytes = Uint8Array.from(Buffer.from(json.data, "base64")); // a copy, aligned for every type
  const data = VALUES[json.dtype]?.(bytes.buffer);
  const count = json.dims.reduce((product: number, size: number) => product * size, 1);
  if (data?.length !== count) throw new Error(`${json.dtype} [${json.dims}] has ${data?.length} elements`);
  return { dtype: json.dtype, shape: json.dims, data };
}

function* files(folder: string): Generator<string> {
  for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    if (file.endsWith(".json") && file !== "manifest.json") yield file;
  }
}

/** The vectors of these operators, in the order of their files. */
export function vectorsOf(...ops: readonly string[]): Vector[] {
  const found: Vector[] = [];
  for (const folder of vectorFolders()) {
    for (const file of files(folder)) {
      const { domain, op, attributes, inputs, outputs, check } = JSON.parse(readFileSync(join(folder, file), "utf8"));
      const name = `${domain || "ai.onnx"}.${op}`;
      if (!ops.includes(name)) continue;
      found.push({
        ...{ name: file.replace(/\.json$/, ""), op: name, attributes: attributes ?? {} },
        ...{ inputs: inputs.map(tensorOf), outputs: outputs.map(tensorOf), tolerance: check.tol },
      });
    }
  }
  return found;
}

/** Declares a test for each vector of these operators; one that is skipped where there are no vectors at all. */
export function describeVectors(
  ops: readonly string[],
  run: (vector: Vector) => Promise<void> | void,
  takes: (vector: Vector) => boolean = () => true,
): void {
  if (!vectorFolders().length) {
    it(`vectors of ${ops.join(", ")}`, (context) => {
      context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS are missing");
    });
    return;
  }
  const vectors = vectorsOf(...ops);
  describe.each(ops)("%s", (op) => {
    const cases = vectors.filter((vector) => vector.op === op && takes(vector));
    it("has vectors", () => expect(cases.length).toBeGreaterThan(0));
    it.each(cases)("$name", async (vector) => run(vector));
  });
}

/** Fails with the worst element unless the values are those of the vector's output, within its tolerance. */
export function expectVector(vector: Vector, actual: ArrayLike<number>, output = 0): void {
  const { data, shape } = vector.outputs[output] as VectorTensor;
  expect(actual).toHaveLength(data.length);
  // In units of max(1, |expected|), so that one tolerance is for all elements.
  const scaled = (values: ArrayLike<number>) => Array.from(values, (x, i) => x / Math.max(1, Math.abs(data[i])));
  const { error, index } = worstElement(scaled(actual), scaled(data), shape);
  if (error <= vector.tolerance) return;
  const at = index.reduce((place, i, axis) => place * shape[axis] + i, 0);
  throw new Error(
    `${vector.name}: element [${index}] of [${shape}] is ${actual[at]}, expected ${data[at]}, tolerance ${vector.tolerance}`,
  );
}
