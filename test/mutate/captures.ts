// Faults in derivatives of score functions, gradients of what they capture, and checks of both.

import type { Mutant } from "./mutant.ts";

const CAPTURES = ["test/attention/gradients/captures.dawn.test.ts"];
const FUNCTIONS = ["test/functions/check_gradient.dawn.test.ts"];
const CHECK = "checkGradients";
const SUMS = "gradients of captures";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/lib/captured_sums.wesl",
    text: "let low = a.x + b.x;\n  return vec2u(low, a.y + b.y + u32(low < a.x));",
    replacement: "return a + b;",
    tests: CAPTURES,
    filter: SUMS,
  },
  {
    file: "shaders/lib/captured_sums.wesl",
    text: "exponent_of(bits) - exponent_of(largest) + i32(room) - 24;",
    replacement: "exponent_of(bits) - exponent_of(largest) + i32(room) - 25;",
    tests: CAPTURES,
    filter: SUMS,
  },
  {
    file: "shaders/backward_captures.wesl",
    text: "let carry = u32(before + held.units.x < before);",
    replacement: "let carry = 0u;",
    tests: CAPTURES,
    filter: SUMS,
  },
  {
    file: "shaders/backward_captures.wesl",
    text: "if (is_infinite(term)) {",
    replacement: "if (false) {",
    tests: CAPTURES,
    filter: SUMS,
  },
  {
    file: "shaders/backward_captures.wesl",
    text: "  return p * (kept * d_p - row.y);",
    replacement: "  return p * kept * d_p;",
    tests: CAPTURES,
    filter: SUMS,
  },
  {
    file: "src/functions/scores.ts",
    text: "  return -abs(f32(at.position - i32(at.kv_idx)));\n}`",
    replacement: "  return abs(f32(at.position - i32(at.kv_idx)));\n}`",
    tests: FUNCTIONS,
  },
  {
    file: "src/functions/scores.ts",
    text: "return t - s / softcap_limit * ((1.0 - t) * (1.0 + t));",
    replacement: "return t;",
    tests: FUNCTIONS,
  },
  {
    file: "src/functions/gradient_comparison.ts",
    text: "return Number.isNaN(part) ? Number.POSITIVE_INFINITY : part;",
    replacement: "return part;",
    tests: FUNCTIONS,
  },
  {
    file: "src/functions/gradient.ts",
    text: "listed?.[1] === count && Boolean(listed),",
    replacement: "Boolean(listed),",
    tests: FUNCTIONS,
  },
  {
    file: "src/attention/gradients/check.ts",
    text: "if (far > worst.difference) worst = { at, difference: far };",
    replacement: "if (at === 0) worst = { at, difference: far };",
    tests: CAPTURES,
    filter: CHECK,
  },
];
