// Faults in the choice of tokens, and in adapters.

import type { Mutant } from "./mutant.ts";

const SAMPLING = ["test/models/sampling.dawn.test.ts"];
const ADAPTERS = ["test/models/adapters.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/sampling_chunks.wesl",
    text: "bounded * params.penalty, bounded < vec4f()",
    replacement: "bounded * params.penalty, bounded > vec4f()",
    tests: SAMPLING,
    filter: "greedy, ties, penalty",
  },
  {
    file: "shaders/sampling_chunks.wesl",
    text: "select(found.y, NOT_A_NUMBER, has_nan)",
    replacement: "found.y",
    tests: SAMPLING,
    filter: "of a NaN or an infinity",
  },
  {
    file: "shaders/sampling_greedy.wesl",
    text: "write_token(entry, whole, whole.w,",
    replacement: "write_token(entry, whole, whole.w + 1u,",
    tests: SAMPLING,
    filter: "greedy, whatever else",
  },
  {
    file: "shaders/lib/sampling_parts.wesl",
    text: "b.z > a.z || (b.z == a.z && b.w < a.w)",
    replacement: "b.z >= a.z",
    tests: SAMPLING,
    filter: "by the kernels of GPUs",
  },
  {
    file: "shaders/sampling_choose.wesl",
    text: "vec2u(entry, steps[params.step_base])",
    replacement: "vec2u(0u, steps[params.step_base])",
    tests: SAMPLING,
    filter: "of entries and of steps",
  },
  {
    file: "shaders/sampling_choose.wesl",
    text: "var left = z <= vec4f(params.least);",
    replacement: "var left = z < vec4f(params.least);",
    tests: SAMPLING,
    filter: "min-p 1",
  },
  {
    file: "shaders/lib/sampling_select.wesl",
    text: "(!weighs && !RANKED && level == LAST_OF_KEY)",
    replacement: "(!RANKED && level == LAST_OF_KEY)",
    tests: SAMPLING,
    filter: "top-p of equal logits",
  },
  {
    file: "shaders/lib/sampling_select.wesl",
    text: "select(1u, 0u, share.exact)",
    replacement: "1u",
    tests: SAMPLING,
    filter: "top-p of equal logits",
  },
  {
    file: "shaders/lib/sampling_weights.wesl",
    text: "a.y + b.y + select(0u, 1u, low < a.x)",
    replacement: "a.y + b.y",
    tests: SAMPLING,
    filter: "softmax alone",
  },
  {
    file: "shaders/lib/sampling_edge.wesl",
    text: "select(id, RANKS - id, RANKED)",
    replacement: "id",
    tests: SAMPLING,
    filter: "are found in order",
  },
  {
    file: "shaders/slots/token_probabilities.wesl",
    text: "vec4f(SMALLEST_F32)",
    replacement: "vec4f()",
    tests: SAMPLING,
    filter: "probabilities below those",
  },
  {
    file: "shaders/variants/said_bits.wesl",
    text: "seen[at] |= 1u",
    replacement: "seen[at] = 1u",
    tests: SAMPLING,
    filter: "all settings, 3 rows",
  },
  {
    file: "shaders/top_tokens.wesl",
    text: "(other.x == own.x && other.y > own.y)",
    replacement: "(other.x == own.x && other.y < own.y)",
    tests: SAMPLING,
    filter: "are found in order",
  },
  {
    file: "src/models/adapters/adapters.ts",
    text: "for (const { adapter, weight } of this.#parts) adapter.weigh(weight);",
    replacement: "for (const { adapter } of this.#parts) adapter.weigh(1);",
    tests: ADAPTERS,
    filter: "whole texts, mixed and swapped",
  },
  {
    file: "src/models/generation/session.ts",
    text: "if (this.programs.adopt()) this.#turnedFor = Number.NaN;",
    replacement: "this.programs.adopt();",
    tests: ADAPTERS,
    filter: "also in a session",
  },
  {
    file: "src/models/adapters/config.ts",
    text: "(rooted ? Math.sqrt(own) : own)",
    replacement: "own",
    tests: ADAPTERS,
    filter: "whole texts, mixed and swapped",
  },
];
