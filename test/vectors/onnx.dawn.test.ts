// The short form of `npm run conformance`: vectors through the operators they name, on Dawn.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { vectorFolders } from "../../scripts/vectors.mjs";
import { requestFoveaDevice } from "../../src/index.ts";
import { type Case, casesOf } from "../conformance/cases.ts";
import { operatorOf } from "../conformance/operators.ts";
import { Runner } from "../conformance/runner.ts";
import { gpu } from "../support/device.ts";

const runner = new Runner(async () => requestFoveaDevice({ gpu: await gpu }));

/** One vector of each operator, version and element type, since nearly every one compiles kernels of its own. */
function shortForm(cases: readonly Case[]): Map<string, Case[]> {
  const chosen = new Map<string, Case[]>();
  for (const one of cases) {
    if (!operatorOf(one.op) || one.dtype === "float64") continue;
    const taken = chosen.get(one.op) ?? [];
    chosen.set(one.op, taken);
    if (!taken.some(({ opset, dtype }) => opset === one.opset && dtype === one.dtype)) taken.push(one);
  }
  return chosen;
}

if (!vectorFolders().length) {
  it("vectors of all operators", (context) => {
    context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS are missing");
  });
}

describe.each([...shortForm(vectorFolders().flatMap(casesOf))])("%s", (_, cases) => {
  it.each(cases)("$file", async ({ path }) => {
    const { status, message } = await runner.run(readFileSync(path, "utf8"));
    expect(`${status}: ${message}`).toBe("passed: ");
  });
});
