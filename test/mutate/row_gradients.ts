// Faults in the kernels of gradients of rows and positions.

import type { Mutant } from "./mutant.ts";

const NORMS = ["test/operations/layer_norm_backward.gpu.test.ts"];
const SOFTMAX = ["test/operations/softmax_backward.gpu.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/layer_norm_backward.wesl",
    text: "select(0.0, means.x, CENTRED)",
    replacement: "means.x",
    tests: NORMS,
    filter: "rmsNormBackward of rows of any magnitude",
  },
  {
    file: "shaders/lib/norm_gradient.wesl",
    text: "apart * row.factor * moments.scale",
    replacement: "apart * row.factor",
    tests: NORMS,
    filter: "of rows of any mean and magnitude",
  },
  {
    file: "shaders/row_sums_backward.wesl",
    text: "reduced += ROW_LANES",
    replacement: "reduced += ROW_LANES + 1u",
    tests: NORMS,
    filter: "of short rows, with weight and bias",
  },
  {
    file: "shaders/row_sums_end_backward.wesl",
    text: "chunk < params.chunks",
    replacement: "chunk < min(params.chunks, 1u)",
    tests: NORMS,
    filter: "of short rows, with weight and bias",
  },
  {
    file: "shaders/row_softmax_backward.wesl",
    text: "let gradient = select(vec4f(), load_gradient(place.batch, place.head, place.row, d4), counts);",
    replacement: "let gradient = load_gradient(place.batch, place.head, place.row, d4);",
    tests: SOFTMAX,
    filter: "softmaxBackward of -Infinity is 0, whatever the gradient is",
  },
  {
    file: "shaders/row_softmax_backward.wesl",
    text: "select(part.w, 1.0, spoils(x))",
    replacement: "part.w",
    tests: SOFTMAX,
    filter: "a NaN or .Infinity stays in its row",
  },
  {
    file: "shaders/row_softmax_backward.wesl",
    text: "a.z * of_a + b.z * of_b",
    replacement: "a.z + b.z",
    tests: SOFTMAX,
    filter: "softmaxBackward of rows of any length",
  },
];
