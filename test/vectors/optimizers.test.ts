// The float64 optimisers against PyTorch's torch.optim, vector by vector.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, it } from "vitest";
import { vectorsIn } from "../../scripts/vectors.mjs";
import { optimizer } from "../../src/reference/index.ts";
import { parseHeader } from "../conformance/vector.ts";
import { expectOutputs, input, type NamedVector, namedVector } from "../support/named_vectors.ts";

const files = vectorsIn("training").filter((path) =>
  parseHeader(readFileSync(path, "utf8")).op.startsWith("torch.optim."),
);

/** Runs the steps of a vector. */
function stepsOf(vector: NamedVector): Record<string, ArrayLike<number>> {
  const { optimizer: settings, schedule, clip, steps } = vector.attributes;
  const names = Object.keys(vector.inputs).filter((name) => /^p\d+$/.test(name));
  const parameters = names.map((name) => {
    const { data, shape } = input(vector, name);
    return { data: Float64Array.from(data), shape };
  });
  const { update, state } = optimizer({ ...settings, parameters, schedule, clip });
  const results: Record<string, ArrayLike<number>> = {};
  const rates: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < steps; step++) {
    const gradients = parameters.map(({ data: { length } }, index) =>
      input(vector, `g${index}`).data.subarray(step * length, (step + 1) * length),
    );
    const { factor, norm } = update(gradients);
    rates.push(settings.lr * factor);
    norms.push(norm);
    for (const [index, { data }] of parameters.entries())
      results[`p${index}_after_${step + 1}`] = data.slice();
  }
  for (const [index, tensors] of state.entries())
    for (const [name, data] of Object.entries(tensors))
      results[`${name}${index}_after_${steps}`] = data;
  return { ...results, lr: rates, norm: norms };
}

describe("optimisers are those of PyTorch in float64", () => {
  if (!files.length) {
    it("all vectors", (context) => {
      context.skip("no vectors: ../shared/vectors and FOVEA_VECTORS have no folder training");
    });
  }
  it.each(files.map((path) => [basename(path, ".json"), path]))("%s", (_, path) => {
    const vector = namedVector(path);
    expectOutputs(vector, stepsOf(vector));
  });
});
