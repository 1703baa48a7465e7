// The float64 gradients of attention against PyTorch's autograd, vector by vector.

import { basename } from "node:path";
import { describe, it } from "vitest";
import { vectorsIn } from "../../scripts/vectors.mjs";
import { gradientsOf } from "../support/gradient_vectors.ts";
import { expectOutputs, namedVector } from "../support/named_vectors.ts";

const files = vectorsIn("gradients");

describe("gradients of attention are those of PyTorch in float64", () => {
  if (!files.length) {
    it("all vectors", (context) => {
      context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS have no folder gradients");
    });
  }
  it.each(files.map((path) => [basename(path, ".json"), path]))("%s", (_, path) => {
    const vector = namedVector(path);
    expectOutputs(vector, gradientsOf(vector));
  });
});
