// Deliberate faults in how texts of users are read and linked.

import type { Mutant } from "./mutant.ts";

const READ = ["test/shader/guest_text.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/shader/tokens.ts",
    text: "const LINE_END = /\\r\\n|[\\n\\v\\f\\r\\u0085\\u2028\\u2029]/g;",
    replacement: "const LINE_END = /\\r\\n|[\\n\\v\\f\\u0085\\u2028\\u2029]/g;",
    tests: READ,
    filter: "a line ends",
  },
  {
    file: "src/shader/tokens.ts",
    text: 'depth += edge[0] === "/*" ? 1 : -1;',
    replacement: 'depth = edge[0] === "/*" ? 1 : 0;',
    tests: READ,
    filter: "tokens",
  },
  {
    file: "src/shader/tokens.ts",
    text: "if (this.#take(GLUED))",
    replacement: "if (false as boolean)",
    tests: READ,
    filter: "tokens",
  },
  {
    file: "src/shader/guest_reader.ts",
    text: 'for (const parameter of this.#parameters.splice(0)) this.#enter(parameter);\n    this.#readUntil("}", "body");\n    this.#leave(0);',
    replacement:
      'for (const parameter of this.#parameters.splice(0)) this.#enter(parameter);\n    this.#readUntil("}", "body");',
    tests: READ,
    filter: "a text is refused",
  },
  {
    file: "src/shader/guest_reader.ts",
    text: 'const scope = loop === "body" ? loopScope : this.#scope.length;',
    replacement: "const scope = this.#scope.length;",
    tests: READ,
    filter: "a text is refused",
  },
  {
    file: "src/shader/guest_reader.ts",
    text: 'if (stretch === "head") this.#parameters.push(text);',
    replacement: 'if (stretch === "head") this.#enter(text);',
    tests: READ,
    filter: "a text is refused",
  },
  {
    file: "src/shader/guest_text.ts",
    text: "if (exact && column < text.length) flush();",
    replacement: "",
    tests: READ,
    filter: "the lines of a text",
  },
  {
    file: "src/shader/guests.ts",
    text: "!parts[0].text.isPredeclared(name) &&",
    replacement: "",
    tests: READ,
    filter: "the lines of a text",
  },
  {
    file: "src/shader/guests.ts",
    text: "!locals.has(name) && !keys.has(name)",
    replacement: "!keys.has(name)",
    tests: READ,
    filter: "the lines of a text",
  },
  {
    file: "src/shader/unroll.ts",
    text: "left.lines -= body.length;",
    replacement: "left.lines -= 0;",
    tests: ["test/shader/unroll.test.ts"],
    filter: "more lines",
  },
  {
    file: "src/recent.ts",
    text: "this.#values.delete(key);\n    this.#values.set(key, value);",
    replacement: "this.#values.set(key, value);",
    tests: ["test/kernels/kernel_cache.test.ts"],
    filter: "asked for last",
  },
];
