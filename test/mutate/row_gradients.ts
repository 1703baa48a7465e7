// Faults in the kernels of gradients of rows and positions.

import type { Mutant } from "./mutant.ts";

const NORMS = ["test/operations/layer_norm_backward.gpu.test.ts"];
const ENCODING = ["test/positions/encoding_backward.gpu.test.ts"];
const ROTARY = ["test/positions/rotary_backward.gpu.test.ts"];
const BIAS = ["test/positions/bias_backward.gpu.test.ts"];
const SOFTMAX = ["test/operations/softmax_backward.gpu.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/positions/rotary_backward.ts",
    text: "conjugate: !conjugate",
    replacement: "conjugate",
    tests: ROTARY,
    filter: "turns half pairs back",
  },
  {
    file: "shaders/table_scatter_backward.wesl",
    text: "i < lane && digits[i] == digit",
    replacement: "i <= lane && digits[i] == digit",
    tests: ENCODING,
    filter: "which the GPU sorts",
  },
  {
    file: "shaders/lib/table_keys.wesl",
    text: "position >= 0 && u32(position) < params.table_rows &&",
    replacement: "position >= 0 &&",
    tests: ENCODING,
    filter: "which the GPU sorts",
  },
  {
    file: "shaders/variants/table_sums_stored.wesl",
    text: "return CarriedSum(sums[2u * at], sums[2u * at + 1u]);",
    replacement: "return CarriedSum(vec4f(), sums[2u * at + 1u]);",
    tests: ENCODING,
    filter: "in parts of 65,536",
  },
  {
    file: "shaders/bias_diagonals_backward.wesl",
    text: "batch < n_batch",
    replacement: "batch < min(n_batch, 1u)",
    tests: BIAS,
    filter: "sums the places of each bucket",
  },
  {
    file: "shaders/variants/row_terms_bias.wesl",
    text: "slope *= gates.w * gates.not_r;",
    replacement: "slope *= gates.w * gates.r;",
    tests: BIAS,
    filter: "of a bias of all entries",
  },
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
