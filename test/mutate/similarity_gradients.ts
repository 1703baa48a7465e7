// Faults in the gradients of attention through similarities.

import type { Mutant } from "./mutant.ts";

const SIMILARITY = ["test/attention/gradients/similarity.dawn.test.ts"];
const MULTIPLICATIVE = ["test/layers/multiplicative_backward.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/backward_normalized.wesl",
    text: "along /= f32(HEAD_DIM);",
    replacement: "",
    tests: SIMILARITY,
    filter: "normalised rows .*M=9 N=37 dLse",
  },
  {
    file: "shaders/backward_normalized.wesl",
    text: "rows[row_of_all * D4 + d4] = select(d_a * u, vec4f(), d_a == vec4f());",
    replacement: "rows[row_of_all * D4 + d4] = d_a * u;",
    tests: SIMILARITY,
    filter: "normalised rows .*kvLengths",
  },
  {
    file: "shaders/variants/gradient_rows_normalized.wesl",
    text: "row, head, d4) * NORM_UNIT;",
    replacement: "row, head, d4);",
    tests: SIMILARITY,
    filter: "rows of length 1 .*cosine",
  },
  {
    file: "shaders/backward_sums.wesl",
    text: "let end = min((part + 1u) * share, rows);",
    replacement: "let end = min((part + 1u) * share, rows) - 1u;",
    tests: SIMILARITY,
    filter: "normalised rows .*M=9 N=37 dLse",
  },
  {
    file: "shaders/lib/tanh_slope.wesl",
    text: "select(far_slope, 1.0 - value * value, near)",
    replacement: "1.0 - value * value * 1.0001",
    tests: SIMILARITY,
    filter: "additive attention .*M=9 N=37 dLse",
  },
  {
    file: "shaders/backward_additive.wesl",
    text: "let found = tanh_slope(select(x, vec4f(), are_nan(x)));",
    replacement: "let found = tanh_slope(x);",
    tests: SIMILARITY,
    filter: "keep a NaN",
  },
  {
    file: "shaders/backward_additive.wesl",
    text: "d_x[j] += slopes[j] * (vector_elements(",
    replacement: "d_x[j] = slopes[j] * (vector_elements(",
    tests: SIMILARITY,
    filter: "additive attention .*Hkv=2",
  },
  {
    file: "shaders/backward_unit_vector.wesl",
    text: "- along * n) * factor",
    replacement: ") * factor",
    tests: SIMILARITY,
    filter: "additive attention .*normalize",
  },
  {
    file: "src/attention/gradients/similarity_stages.ts",
    text: "if (!resolved.packed) return [];",
    replacement: "return [];",
    tests: SIMILARITY,
    filter: "normalised rows .*cuSeqlensQ",
  },
  {
    file: "src/layers/multiplicative_views.ts",
    text: "[first, axes[0], columns, rows]",
    replacement: "[axes[0], first, columns, rows]",
    tests: MULTIPLICATIVE,
    filter: "a matrix for each head",
  },
];
