// Faults in the kernels of projections of few rows, and of gradients of projections and activations.

import type { Mutant } from "./mutant.ts";

const PROJECTION = ["test/operations/projection_backward.gpu.test.ts"];
const FEW_ROWS = ["test/operations/products/matvec.dawn.test.ts"];
const ACTIVATIONS = ["test/operations/activations.gpu.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/matvec.wesl",
    text: "scaled[c][r] = fma(scale, acc[c][r], scaled[c][r]);",
    replacement: "scaled[c][r] = scale * acc[c][r];",
    tests: FEW_ROWS,
    filter: "matvec-4 with a weight of int8",
  },
  {
    file: "shaders/matvec.wesl",
    text: "w_block[0u] = select(vec4f(), w_block[0u], inside);",
    replacement: "",
    tests: FEW_ROWS,
    filter: "with NaN behind the ends",
  },
  {
    file: "shaders/matvec.wesl",
    text: "for (var width = LANES / 4u; width >= 4u; width /= 4u) {",
    replacement: "for (var width = LANES / 4u; width > 4u; width /= 4u) {",
    tests: FEW_ROWS,
    filter: "matvec-16 of one row",
  },
  {
    file: "shaders/matvec_columns.wesl",
    text: "if (!MASKED_END || 4u * k4 + e < params.inner) {",
    replacement: "if (params.inner > 0u) {",
    tests: FEW_ROWS,
    filter: "stored .in, out",
  },
  {
    file: "shaders/variants/weight_block_int4.wesl",
    text: "weight[start + index] ^ 0x08888888u",
    replacement: "weight[start + index] ^ 0x88888888u",
    tests: FEW_ROWS,
    filter: "matvec-4 with a weight of int4",
  },
  {
    file: "shaders/quantise.wesl",
    text: "words[start + groups + group * (SOURCE_GROUP / PER_WORD) + word] = bits;",
    replacement: "words[start + groups + word] = bits;",
    tests: FEW_ROWS,
    filter: "quantisation",
  },
  {
    file: "shaders/matmul_turned.wesl",
    text: "if (chunk.start + INNER > params.inner) {",
    replacement: "if (chunk.start > params.inner) {",
    tests: PROJECTION,
    filter: "NaN behind them",
  },
  {
    file: "shaders/matmul_turned.wesl",
    text: "total[r][j] = sum.total;",
    replacement: "",
    tests: PROJECTION,
    filter: "keep their digits .variant 32x32",
  },
  {
    file: "shaders/matmul_turned_rows.wesl",
    text: "select(vec4f(), own, vec4<bool>(own_k.x < params.inner))",
    replacement: "own",
    tests: PROJECTION,
    filter: "belong to nobody",
  },
  {
    file: "shaders/matmul_turned_rows.wesl",
    text: "(vec4u(place) ^ vec4u(0u, 1u, 2u, 3u))",
    replacement: "vec4u(0u, 1u, 2u, 3u)",
    tests: PROJECTION,
    filter: "without the others: dWeight",
  },
  {
    file: "shaders/lib/turned_walk.wesl",
    text: "const BLOCK_CHUNKS = 512u",
    replacement: "const BLOCK_CHUNKS = 524288u",
    tests: PROJECTION,
    filter: "keep their digits .variant undefined",
  },
  {
    file: "shaders/lib/turned_walk.wesl",
    text: "head + group % params.summed_heads",
    replacement: "head + group % params.n_heads",
    tests: PROJECTION,
    filter: "for batch entries and heads",
  },
  {
    file: "shaders/lib/turned_walk.wesl",
    text: "min(params.share_chunks, params.all_chunks - first)",
    replacement: "params.share_chunks",
    tests: PROJECTION,
    filter: "summed where they are shared, over many rows",
  },
  {
    file: "shaders/column_sums.wesl",
    text: "row_of_all % params.o_rows,",
    replacement: "row_of_all,",
    tests: PROJECTION,
    filter: "summed where they are shared, over many rows",
  },
  {
    file: "shaders/column_sums.wesl",
    text: "        head += 1u;",
    replacement: "",
    tests: PROJECTION,
    filter: "lie in another order",
  },
  {
    file: "shaders/variants/activation_slope_gelu.wesl",
    text: "select(-apart, 1.0 + apart, positive)",
    replacement: "select(apart, 1.0 + apart, positive)",
    tests: ACTIVATIONS,
    filter: "gelu of any numbers",
  },
  {
    file: "shaders/variants/activation_slope_gelu_tanh.wesl",
    text: "vec4f(3.0 * 0.044715)",
    replacement: "vec4f(0.044715)",
    tests: ACTIVATIONS,
    filter: "gelu-tanh of any numbers",
  },
  {
    file: "shaders/variants/activation_slope_relu.wesl",
    text: "x > vec4f()",
    replacement: "x >= vec4f()",
    tests: ACTIVATIONS,
    filter: "ReLU has the slope 0 at 0",
  },
  {
    file: "shaders/variants/activation_slope_silu.wesl",
    text: "return select(fma(inside, sigmoid_slope(inside), sigmoid_of(inside)), x, are_nan(x));",
    replacement: "return fma(inside, sigmoid_slope(inside), sigmoid_of(inside));",
    tests: ACTIVATIONS,
    filter: "silu keeps NaN",
  },
  {
    file: "shaders/variants/activation_relu.wesl",
    text: "return select(x, vec4f(), negative);",
    replacement: "return max(x, vec4f());",
    tests: ACTIVATIONS,
    filter: "relu keeps NaN",
  },
  {
    file: "shaders/pointwise_backward.wesl",
    text: "d_t *= load_weight(batch, head, row, d4);",
    replacement: "d_t += load_weight(batch, head, row, d4);",
    tests: ACTIVATIONS,
    filter: "of sums, with a factor",
  },
];
