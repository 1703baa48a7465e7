// Faults of memory, devices and plans that tests must notice.

import type { Mutant } from "./mutant.ts";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/gpu/buffers.ts",
    text: "  checkDevice(device);\n  for (const [scope, result] of results.entries()) {",
    replacement: "  for (const [scope, result] of results.entries()) {",
    tests: ["test/gpu/kept.test.ts"],
    filter: "under way",
  },
  {
    file: "src/gpu/buffers.ts",
    text: "    done.catch(() => {});\n",
    replacement: "",
    tests: ["test/gpu/kept.test.ts"],
    filter: "unhandled rejection",
  },
  {
    file: "src/gpu/buffers.ts",
    text: "  throw cause ?? failures[0];",
    replacement: "  throw failures[0] ?? cause;",
    tests: ["test/gpu/kept.test.ts"],
    filter: "explains the others",
  },
  {
    file: "src/gpu/buffers.ts",
    text: "const { kept } = stateOf(device);\n  if (!kept.has(name))",
    replacement: "const { kept } = stateOf(device);\n  if (!kept.has(name) || name)",
    tests: ["test/gpu/kept.test.ts"],
    filter: "last 256",
  },
  {
    file: "src/gpu/pipelines.ts",
    text: "    compiled.catch(() => pipelines.delete(key));\n",
    replacement: "",
    tests: ["test/gpu/kept.test.ts"],
    filter: "did not compile",
  },
  {
    file: "src/recent.ts",
    text: "    this.#values.delete(key);\n    this.#values.set(key, value);",
    replacement: "    this.#values.set(key, value);",
    tests: ["test/gpu/kept.test.ts"],
    filter: "last 256",
  },
  {
    file: "src/recent.ts",
    text: "this.#values.size > this.#most",
    replacement: "this.#values.size > 2 * this.#most",
    tests: ["test/gpu/kept.test.ts"],
    filter: "256|64 others",
  },
  {
    file: "src/attention/build.ts",
    text: "    for (const tensor of owned) tensor.destroy();\n    throw error;",
    replacement: "    throw error;",
    tests: ["test/api/failures.gpu.test.ts"],
    filter: "does not compile",
  },
  {
    file: "src/attention/operand_checks.ts",
    text: "a.offset + a.size <= b.offset || b.offset + b.size <= a.offset",
    replacement: "a.offset !== b.offset",
    tests: ["test/api/failures.gpu.test.ts"],
    filter: "overlap in part",
  },
  {
    file: "src/attention/operand_checks.ts",
    text: "fallback ? [fallback.allocated] : []",
    replacement: "[]",
    tests: ["test/api/refused.gpu.test.ts"],
    filter: "of q rejects",
  },
  {
    file: "src/attention/operand_checks.ts",
    text: "  Tensor.tie(written, [...tensors.values()]);",
    replacement: "",
    tests: ["test/api/refused.gpu.test.ts"],
    filter: "too late for encode",
  },
];
