// Test vectors of peers' own suites in a file of tests: read where they stand; without them the file is one skip, which
// scripts/test.mjs counts.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { vectorFolders } from "../../scripts/vectors.mjs";
import type { Dtype } from "../../src/index.ts";
import { casesOf } from "../conformance/cases.ts";
import { describeWorst, isWithin, worstOf } from "../conformance/compare.ts";
import { ourDtype, parseVector, type Vector as Unnamed, type VectorTensor } from "../conformance/vector.ts";

export type { VectorTensor } from "../conformance/vector.ts";

export interface Vector extends Unnamed {
  /** Folder and file, without its extension. */
  readonly name: string;
}

/** Our dtype for the floats of a vector. */
export const floatDtype = ({ dtype }: VectorTensor): Dtype => ourDtype(dtype) ?? "f32";

/** The vectors of these operators, in the order of the manifest. */
export function vectorsOf(...ops: readonly string[]): Vector[] {
  return vectorFolders()
    .flatMap(casesOf)
    .filter(({ op }) => ops.includes(op))
    .map(({ file, path }) => ({ name: file.replace(/\.json$/, ""), ...parseVector(readFileSync(path, "utf8")) }));
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
  const expected = vector.outputs[output] as VectorTensor;
  expect(actual).toHaveLength(expected.data.length);
  const worst = worstOf(output, expected, actual, vector.tolerance);
  if (worst && !isWithin(worst)) throw new Error(`${vector.name}: ${describeWorst(worst)}`);
}
