// The short form of `npm run conformance`: vectors through the operators they name, on Dawn.

import { readFileSync, statSync } from "node:fs";
import { expect, it } from "vitest";
import { vectorFolders } from "../../scripts/vectors.mjs";
import { requestFoveaDevice } from "../../src/index.ts";
import { type Case, casesOf } from "../conformance/cases.ts";
import { operatorOf } from "../conformance/operators.ts";
import { Runner } from "../conformance/runner.ts";
import { nameOf } from "../conformance/table.ts";
import { parseVector } from "../conformance/vector.ts";
import { gpu } from "../support/device.ts";

const runner = new Runner(async () => requestFoveaDevice({ gpu: await gpu }));

/**
 * Chooses one vector of each operator and version, of f32 if there are any, and one of each other
 * element type, since nearly every vector needs other kernels: the one with the shortest file whose
 * first output has an element. `npm run conformance` names operators that are missing.
 */
function shortForm(cases: readonly Case[]): Case[] {
  const shortest = new Map<string, Case>();
  const single = new Set(cases.filter(({ dtype }) => dtype === "float32").map(nameOf));
  for (const one of cases) {
    if (!operatorOf(one.op) || one.dtype === "float64") continue;
    const key =
      one.dtype === "float32" || !single.has(nameOf(one)) ? nameOf(one) : `of ${one.dtype}`;
    const taken = shortest.get(key);
    if (!parseVector(readFileSync(one.path, "utf8")).outputs[0]?.data.length) continue;
    if (!taken || statSync(one.path).size < statSync(taken.path).size) shortest.set(key, one);
  }
  return [...shortest.values()];
}

if (!vectorFolders().length) {
  it("vectors of all operators", (context) => {
    context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS are missing");
  });
}

it.each(shortForm(vectorFolders().flatMap(casesOf)))("$op: $file", async ({ path }) => {
  const { status, message } = await runner.run(readFileSync(path, "utf8"));
  expect(`${status}: ${message}`).toBe("passed: ");
});
