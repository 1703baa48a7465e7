// Faults in the gradients of biases, slopes, tables, sinks and temperatures on the GPU.

import type { Mutant } from "./mutant.ts";

const TESTS = ["test/attention/gradients/score_gradients.dawn.test.ts"];
const LENGTHS = "qLengths";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/lib/score_sums.wesl",
    text: "return -abs(f32(i32(q_idx) + seq.q_offset - i32(kv_idx))) * d_s;",
    replacement: "return -abs(f32(i32(q_idx) - i32(kv_idx))) * d_s;",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/lib/score_sums.wesl",
    text: "return select(1.0 / given, 1.0, given == 0.0);",
    replacement: "return 1.0;",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/lib/score_joins.wesl",
    text: "let key = lane + row + 1u - OWN_TILE;",
    replacement: "let key = lane + row - OWN_TILE;",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/backward_sinks.wesl",
    text: "let end = min((share + 1u) * share_tiles, gradient.batch * tiles);",
    replacement: "let end = min((share + 1u) * share_tiles, tiles);",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/backward_totals.wesl",
    text: "share < params.kv_splits; share++",
    replacement: "share + 1u < params.kv_splits; share++",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "src/attention/gradients/score_stages.ts",
    text: "o_stride_h: strideOf(h, m * n),",
    replacement: "o_stride_h: strideOf(h, m),",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "src/attention/gradients/score_problem.ts",
    text: "problem[OPTIONS[name]] !== undefined,",
    replacement: "true,",
    tests: TESTS,
    filter: "are refused",
  },
];
