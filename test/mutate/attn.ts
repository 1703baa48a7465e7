// Faults of the numerics of attention: NaN, the ends of f32, sums over many keys.

import type { Mutant } from "./mutant.ts";

const tests = ["test/attention/extremes.gpu.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/variants/terms_modified.wesl",
    text: "min(exp2(given * LOG2_E), params.max_temperature)",
    replacement: "exp2(given * LOG2_E)",
    tests,
    filter: "8x32 limits a learned temperature",
  },
  {
    file: "shaders/lib/softmax.wesl",
    text: "let top = max(m, sink);",
    replacement: "let top = m;",
    tests,
    filter: "8x32 takes sinks far above",
  },
  {
    file: "shaders/variants/lse_stored.wesl",
    text: "NAN_BITS, is_infinite(l)",
    replacement: "NAN_BITS, false",
    tests,
    filter: "a NaN that a row sees.*variant=8x32",
  },
  {
    file: "shaders/variants/row_max_stored.wesl",
    text: "NAN_BITS, is_infinite(l)",
    replacement: "NAN_BITS, false",
    tests,
    filter: "a NaN that a row sees.*variant=8x32",
  },
  {
    file: "shaders/lib/tanh.wesl",
    text: "abs(x) < 0.5), x, is_nan(x))",
    replacement: "abs(x) < 0.5), x, false)",
    tests,
    filter: "a NaN that a row sees.*additive.*8x32",
  },
  {
    file: "shaders/variants/terms_modified.wesl",
    text: "bits >= MASKED_BITS - 1u && bits <= NEGATIVE_INFINITY",
    replacement: "false",
    tests,
    filter: "8x32 keeps finite biases apart",
  },
  {
    file: "shaders/variants/terms_modified.wesl",
    text: "abs(s) < params.softcap * 1.220703125e-4",
    replacement: "false",
    tests,
    filter: "8x32 takes softcaps of any size",
  },
  {
    file: "shaders/lib/units.wesl",
    text: "select(8.0, 0.0, ROW_MAX || LARGE_SCALE)",
    replacement: "select(8.0, 0.0, ROW_MAX)",
    tests,
    filter: "decode-4-quad takes scales of any size",
  },
  {
    file: "shaders/decode.wesl",
    text: "select(v_row, vec4f(), is_unseen(p_row[r][c]))",
    replacement: "select(v_row, vec4f(), p_row[r][c] == 0.0)",
    tests,
    filter: "a NaN that a row sees.*decode-16.*scale=100",
  },
  {
    file: "shaders/decode_quads.wesl",
    text: "marked_weight(exp2((own_score[r] - m_next) * SCORE_LOG2), own_score[r])",
    replacement: "exp2((own_score[r] - m_next) * SCORE_LOG2)",
    tests,
    filter: "a NaN that a row sees.*decode-4-quad",
  },
  {
    file: "shaders/decode_quads.wesl",
    text: "select(vec4u(0xffffffffu), vec4u(), bitcast<vec4u>(p) == vec4u(UNSEEN))",
    replacement: "select(vec4u(0xffffffffu), vec4u(), p == vec4f())",
    tests,
    filter: "a NaN that a row sees.*decode-4-quad",
  },
  {
    file: "shaders/top_keys.wesl",
    text: "select(s, vec4f(-MASKED), are_nan(s))",
    replacement: "s",
    tests,
    filter: "in scores, probabilities and best keys",
  },
  {
    file: "shaders/merge.wesl",
    text: "& (bits != vec3u(params.empty))",
    replacement: "",
    tests,
    filter: "merged LSEs of .Infinity are those",
  },
  {
    file: "src/attention/forward_kernels.ts",
    text: "resolved.mostKeys > LONG_ROW",
    replacement: "resolved.mostKeys > 2 ** 31",
    tests,
    filter: "sums over many keys.* 8x32",
  },
  {
    file: "shaders/decode_quads.wesl",
    text: "const BLOCK_TILES = BLOCK_KEYS / 4u;",
    replacement: "const BLOCK_TILES = 100000u;",
    tests,
    filter: "sums over many keys.* decode-4-quad",
  },
];
