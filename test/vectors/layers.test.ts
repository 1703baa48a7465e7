// The float64 gradients of the operations beside attention against PyTorch's autograd, vector by
// vector.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, it } from "vitest";
import { vectorsIn } from "../../scripts/vectors.mjs";
import { parseHeader } from "../conformance/vector.ts";
import { layerOf, NOT_HERE } from "../support/layer_vectors.ts";
import { expectOutputs, namedVector } from "../support/named_vectors.ts";

const files = vectorsIn("layers");
const operatorOf = (path: string) => parseHeader(readFileSync(path, "utf8")).op.split(".").at(-1);
const known = files.filter((path) => !NOT_HERE.includes(operatorOf(path) as string));

describe("layers and their gradients are those of PyTorch in float64", () => {
  if (!files.length) {
    it("all vectors", (context) => {
      context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS have no folder layers");
    });
  }
  it.each(known.map((path) => [basename(path, ".json"), path]))("%s", (_, path) => {
    const vector = namedVector(path);
    expectOutputs(vector, layerOf(vector));
  });
});
