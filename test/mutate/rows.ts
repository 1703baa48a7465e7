// Faults in the numerics of rows: norms, softmax, activations, and what must show a NaN.

import type { Mutant } from "./mutant.ts";

const EXTREMES = ["test/operations/row_extremes.gpu.test.ts"];
const POINTWISE = ["test/operations/pointwise.gpu.test.ts"];
const ADDITIVE = ["test/attention/additive.gpu.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/layer_norm.wesl",
    text: "y = from_pivot(y, pivot, d4) - offset;",
    replacement: "y = from_pivot(y, pivot, d4);",
    tests: EXTREMES,
    filter: "rows of 64 are normalised wherever",
  },
  {
    file: "shaders/layer_norm.wesl",
    text: "variance = sums.y / width - offset * offset;",
    replacement: "variance = sums.y / width;",
    tests: EXTREMES,
    filter: "rows of 64 are normalised wherever",
  },
  {
    file: "shaders/layer_norm.wesl",
    text: "scale = scale_of(largest, epsilon);",
    replacement: "scale = 1.0;",
    tests: EXTREMES,
    filter: "rows of 64 are normalised at any magnitude",
  },
  {
    file: "shaders/layer_norm.wesl",
    text: "if (!squares_fit(sums.y + width * epsilon, width, MOST)) {",
    replacement: "if (place.valid) {",
    tests: EXTREMES,
    filter: "rows of 64 of equal numbers",
  },
  {
    file: "shaders/layer_norm.wesl",
    text: "let factor = select(inverse, 0.0, variance + epsilon == 0.0);",
    replacement: "let factor = inverse;",
    tests: EXTREMES,
    filter: "rows of 64 of equal numbers",
  },
  {
    file: "shaders/lib/row_sums.wesl",
    text: "for (var i = 0u; i < LANES; i++) {",
    replacement: "for (var i = 0u; i < BLOCK; i++) {",
    tests: EXTREMES,
    filter: "rows of 4096 are normalised at any magnitude",
  },
  {
    file: "shaders/lib/row_sums.wesl",
    text: "sum += bitcast<f32>(block_shares[at / LANES * BLOCKS + i]);",
    replacement: "sum += bitcast<f32>(block_shares[i]);",
    tests: EXTREMES,
    filter: "rows of 768 are normalised wherever",
  },
  {
    file: "shaders/layer_norm.wesl",
    text: "(pivot + offset) * unscaled(scale)",
    replacement: "pivot + offset",
    tests: EXTREMES,
    filter: "rows of 64 are normalised at any magnitude",
  },
  {
    file: "shaders/lib/magnitude.wesl",
    text: "const MOST_OF_SHARE = 0x7a800000u;",
    replacement: "const MOST_OF_SHARE = 0x7e800000u;",
    tests: EXTREMES,
    filter: "rows of 4096 are normalised at any magnitude",
  },
  {
    file: "shaders/lib/magnitude.wesl",
    text: "const NORM_UNIT = 256.0;",
    replacement: "const NORM_UNIT = 1.0;",
    tests: ADDITIVE,
    filter: "have the scores of float64",
  },
  {
    file: "shaders/row_norms.wesl",
    text: "inverse = scaled_inverse_norm(row);",
    replacement: "inverse = inverse_norm(all, 1.0);",
    tests: ADDITIVE,
    filter: "have the scores of float64",
  },
  {
    file: "shaders/lib/additive.wesl",
    text: "scale = scale_of(largest, 0.0);",
    replacement: "scale = 1.0;",
    tests: ADDITIVE,
    filter: "vectors are of unit length",
  },
  {
    file: "shaders/cache_append.wesl",
    text: "scale = scale_of(largest, epsilon);",
    replacement: "scale = 1.0;",
    tests: ["test/cache/rows.gpu.test.ts"],
    filter: "are normalised at any magnitude",
  },
  {
    file: "shaders/lib/row_totals.wesl",
    text: "spoilt |= spoils(x);",
    replacement: "spoilt = false;",
    tests: ["test/operations/softmax.gpu.test.ts"],
    filter: "slices with NaN or Infinity of 64",
  },
  {
    file: "shaders/variants/activation_gelu_tanh.wesl",
    text: "return 0.5 * x + 0.5 * abs(x) - a / (1.0 + exp2(u2 * LOG2_E));",
    replacement: "return x / (1.0 + exp2(select(-u2, u2, x < vec4f()) * LOG2_E));",
    tests: POINTWISE,
    filter: "gelu of the ends of f32",
  },
  {
    file: "shaders/lib/half.wesl",
    text: "(bits >> vec4u(16u)) | vec4u(0x40u)",
    replacement: "(bits >> vec4u(16u))",
    tests: POINTWISE,
    filter: "NaN in 16 bits",
  },
  {
    file: "shaders/lib/linear.wesl",
    text: "select(exp(log), log, is_nan(log))",
    replacement: "exp(log)",
    tests: ["test/linear/linear_values.gpu.test.ts"],
    filter: "shows a NaN of q, k or decay wherever it counts, recurrent, normalized false",
  },
  {
    file: "shaders/lib/linear.wesl",
    text: "value = select(x + 1.0, exp(x), x <= vec4f());",
    replacement: "value = select(exp(min(x, vec4f())), x + 1.0, x > vec4f());",
    tests: ["test/linear/linear_values.gpu.test.ts"],
    filter: "shows a NaN of q, k or decay wherever it counts, recurrent",
  },
  {
    file: "shaders/top_softmax.wesl",
    text: "(value == other.value && place > other.place)",
    replacement: "(value == other.value && place < other.place)",
    tests: ["test/operations/top_softmax.dawn.test.ts"],
    filter: "the first of equal elements",
  },
  {
    file: "shaders/top_softmax.wesl",
    text: "(places <= vec4u(last.place))",
    replacement: "(places <= vec4u(NONE))",
    tests: ["test/operations/top_softmax.dawn.test.ts"],
    filter: "the first of equal elements",
  },
  {
    file: "shaders/position_bias.wesl",
    text: "let e = exp(-abs(x));",
    replacement: "let e = exp(-clamp(abs(x), 0.0, 80.0));",
    tests: ["test/operations/rows.gpu.test.ts"],
    filter: "gates of a position bias",
  },
];
