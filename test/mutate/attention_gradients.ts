// Faults in the core kernels of attention's gradients: a wrong row, head, edge, factor or order.

import type { Mutant } from "./mutant.ts";

const TESTS = ["test/attention/gradients/backward.dawn.test.ts"];
const MANY = "sizes and positions .*M=37 N=70 dLse";
const LENGTHS = "entries of different lengths .*qLengths";
const PACKED = "entries of different lengths .*cuSeqlensQ";
const GROUPS = "sizes and positions .*Hkv=2";
const STAGED = "scores that are changed .*softcap";
const QUADS = "tiles .*variant=16x4-quad";
const STAGED_QUADS = "tiles .*softcap=3 .*variant=8x4-quad";
const WIDE = "tiles .*variant=32x64";
const TWO_ROWS = "tiles .*variant=16x32";
const LARGE = "scores of which the log-sum-exp loses digits";
const HIDDEN = "scores that are changed .*hidden";
const INFINITE = "keep a NaN .*8x4-quad";
const LARGE_QUADS = "loses digits .*8x4-quad";
const UNSEEN_KEYS = "tiles .*poison=true .*variant=8x4-quad";
const NANS = "keep a NaN";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/backward_delta.wesl",
    text: "delta -= d_lse[",
    replacement: "delta += d_lse[",
    tests: TESTS,
    filter: MANY,
  },
  {
    file: "shaders/backward_delta.wesl",
    text: "select(load_d_output(batch, head, row, d4), vec4f(), o == vec4f());",
    replacement: "load_d_output(batch, head, row, d4);",
    tests: TESTS,
    filter: WIDE,
  },
  {
    file: "shaders/backward_delta.wesl",
    text: "if (bits == NEGATIVE_INFINITY) {",
    replacement: "if (false) {",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/backward.wesl",
    text: "head < own.end_head; head++",
    replacement: "head < own.first_head + 1u; head++",
    tests: TESTS,
    filter: GROUPS,
  },
  {
    file: "shaders/backward.wesl",
    text: "let first = visited.start + g * GROUP_ROWS;",
    replacement: "let first = visited.start;",
    tests: TESTS,
    filter: WIDE,
  },
  {
    file: "shaders/backward.wesl",
    text: "add_probabilities(&l, &s);",
    replacement: "",
    tests: TESTS,
    filter: LARGE,
  },
  {
    file: "shaders/backward.wesl",
    text: "let row = select(seq.q_start, seq.kv_start, OWN_KEYS) + idx;",
    replacement: "let row = seq.kv_start + idx;",
    tests: TESTS,
    filter: PACKED,
  },
  {
    file: "shaders/backward.wesl",
    text: "work.kv_head, seq.kv_start + idx, column, d_y",
    replacement: "work.kv_head, seq.q_start + idx, column, d_y",
    tests: TESTS,
    filter: PACKED,
  },
  {
    file: "shaders/backward.wesl",
    text: "row, column, d_x[r][j] * params.scale);",
    replacement: "row, column, d_x[r][j]);",
    tests: TESTS,
    filter: MANY,
  },
  {
    file: "shaders/lib/gradient_tile_ends.wesl",
    text: "p * ((*d_p)[r][c] - found.y);",
    replacement: "p * (*d_p)[r][c];",
    tests: TESTS,
    filter: MANY,
  },
  {
    file: "shaders/lib/gradient_tile_ends.wesl",
    text: "(*d_p)[r][c] = select(0.0, (*d_p)[r][c], seen);",
    replacement: "",
    tests: TESTS,
    filter: GROUPS,
  },
  {
    file: "shaders/lib/gradient_tile_ends.wesl",
    text: "(*d_p)[r][c] *= terms.factor;",
    replacement: "",
    tests: TESTS,
    filter: WIDE,
  },
  {
    file: "shaders/lib/gradient_tile_ends.wesl",
    text: "sum += own_tile[lane_y * LANES_X",
    replacement: "sum = own_tile[lane_y * LANES_X",
    tests: TESTS,
    filter: MANY,
  },
  {
    file: "shaders/lib/gradient_tile_ends.wesl",
    text: "store_factor(work, seq, idx, factor);",
    replacement: "",
    tests: TESTS,
    filter: LARGE,
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "if (SINKS && q_idx < seq.q_len) {",
    replacement: "if (false) {",
    tests: TESTS,
    filter: "scores that are changed .*sinks",
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "1.0 / select(total, 1.0, total == 0.0)",
    replacement: "1.0 / total",
    tests: TESTS,
    filter: "sizes and positions .*Hkv=1",
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "if (edge && !is_in(key_range(seq, q_idx), kv_idx)) {",
    replacement: "if (false) {",
    tests: TESTS,
    filter: STAGED,
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "select(1.0, kept, OWN_KEYS)",
    replacement: "kept",
    tests: TESTS,
    filter: STAGED,
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "p * (kept * d_p - row.y) * slope",
    replacement: "p * (d_p - row.y) * slope",
    tests: TESTS,
    filter: STAGED,
  },
  {
    file: "shaders/lib/gradient_weights.wesl",
    text: "if (score == MASKED) {",
    replacement: "if (false) {",
    tests: TESTS,
    filter: HIDDEN,
  },
  {
    file: "shaders/lib/gradient_staged.wesl",
    text: "lane % WG_SIZE / LANES_X + r * LANES_Y;",
    replacement: "lane % WG_SIZE / LANES_X;",
    tests: TESTS,
    filter: TWO_ROWS,
  },
  {
    file: "shaders/lib/gradient_staged.wesl",
    text: "streamed_start + lane % LANES_X + c * LANES_X;",
    replacement: "streamed_start + lane % LANES_X + c;",
    tests: TESTS,
    filter: STAGED,
  },
  {
    file: "shaders/lib/gradient_tiles.wesl",
    text: "let value = streamed_x_column(work, seq, idx, min(d4, X4 - 1u));\n    let dropped = are_infinite(value)",
    replacement:
      "let value = streamed_x_column(work, seq, idx, min(d4, X4 - 1u));\n    let dropped = vec4(false)",
    tests: TESTS,
    filter: NANS,
  },
  {
    file: "shaders/lib/gradient_tiles.wesl",
    text: "let value = streamed_y(work, seq, idx, min(d4, Y4 - 1u));\n    let dropped = are_infinite(value)",
    replacement:
      "let value = streamed_y(work, seq, idx, min(d4, Y4 - 1u));\n    let dropped = vec4(false)",
    tests: TESTS,
    filter: NANS,
  },
  {
    file: "shaders/slots/roles.wesl",
    text: "!covers(bounds, tile.start, tile.start + KV_TILE)",
    replacement: "!covers(bounds, tile.start, tile.start + KV_TILE - 1u)",
    tests: TESTS,
    filter: "sizes and positions .*N=31",
  },
  {
    file: "shaders/slots/roles.wesl",
    text: "|| MASKED_SINGLY",
    replacement: "|| false",
    tests: TESTS,
    filter: "scores that are changed .*mask=",
  },
  {
    file: "shaders/slots/roles.wesl",
    text: "(MASK_FUNCTION && !tile.unmasked)",
    replacement: "(MASK_FUNCTION && tile.unmasked)",
    tests: TESTS,
    filter: "scores that are changed .*maskFunction",
  },
  {
    file: "shaders/variants/roles_keys.wesl",
    text: "|| start + KV_TILE > seq.q_len",
    replacement: "|| start + KV_TILE > seq.q_len + KV_TILE",
    tests: TESTS,
    filter: MANY,
  },
  {
    file: "shaders/variants/roles_keys.wesl",
    text: "head_of_all % kv_heads * params.group_size",
    replacement: "head_of_all % kv_heads",
    tests: TESTS,
    filter: GROUPS,
  },
  {
    file: "shaders/variants/roles_keys.wesl",
    text: "select(params.seq_kv, seq.kv_len, params.rows_per_batch == 0u)",
    replacement: "seq.kv_len",
    tests: TESTS,
    filter: LENGTHS,
  },
  {
    file: "shaders/variants/roles_keys.wesl",
    text: "(MASK_FUNCTION && !found.unmasked)",
    replacement: "(MASK_FUNCTION && found.unmasked)",
    tests: TESTS,
    filter: "scores that are changed .*maskFunction",
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "(d_p[r] - statistics[1]) * terms.factor;",
    replacement: "d_p[r] * terms.factor;",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "s[r][c] = select(0.0, s[r][c], seen);",
    replacement: "",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "is_in(range, own.start + lane + r * LANES_Y);",
    replacement: "is_in(range, own.start + lane);",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "let at = lane + i / STREAMED * LANES_Y;",
    replacement: "let at = lane;",
    tests: TESTS,
    filter: STAGED_QUADS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "let sum = own_row_sum(part) * params.scale;",
    replacement: "let sum = part[0] * params.scale;",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "shaders/backward_factors.wesl",
    text: "l[r] += p.x + p.y + p.z + p.w;\n      }\n    }\n  }",
    replacement: "}\n    }\n  }",
    tests: TESTS,
    filter: LARGE_QUADS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "select(D4, 0u, infinite)",
    replacement: "D4",
    tests: TESTS,
    filter: INFINITE,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "k_passing[d4] = select(key, vec4f(), are_infinite(key));",
    replacement: "k_passing[d4] = key;",
    tests: TESTS,
    filter: UNSEEN_KEYS,
  },
  {
    file: "shaders/backward_rows.wesl",
    text: "if (is_query) {",
    replacement: "if (true) {",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "src/attention/gradients/stages.ts",
    text: "cutGroups(batch * kvHeads)",
    replacement: "cutGroups(2 * batch * kvHeads)",
    tests: TESTS,
    filter: QUADS,
  },
  {
    file: "src/attention/gradients/stages.ts",
    text: 'clear("dV", vDim, [kvHeads, totalKv]),',
    replacement: "",
    tests: TESTS,
    filter: PACKED,
  },
  {
    file: "src/attention/gradients/plan.ts",
    text: "Math.max(1, heads * totalQ)",
    replacement: "heads * totalQ",
    tests: TESTS,
    filter: "entries of different lengths .*M=0",
  },
];
