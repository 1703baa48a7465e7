// Faults in how options are read.

import type { Mutant } from "./mutant.ts";

const TESTS = ["test/options.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/given.ts",
    text: "unknown ??= Object.hasOwn(names, name) ? undefined : name;",
    replacement: "unknown ??= name in names ? undefined : name;",
    tests: TESTS,
  },
  {
    file: "src/given.ts",
    text: 'if (options[name] === null && kinds[name].endsWith("?")) delete options[name];',
    replacement: "if (options[name] === null) delete options[name];",
    tests: TESTS,
  },
  {
    file: "src/given.ts",
    text: "if (isArray) return Array.from(list, (item) => copy(label, name, item, depth + 1));",
    replacement: "if (isArray) return list;",
    tests: TESTS,
  },
  {
    file: "src/given.ts",
    text: 'if (kind !== "any" && typeof value !== kind)',
    replacement: 'if (kind !== "any" && typeof value !== kind && value !== null)',
    tests: TESTS,
  },
  {
    file: "src/unknown_option.ts",
    text: "const known = foreign?.filter((ours) => right.includes(ours)) ?? [];",
    replacement: "const known = foreign ?? [];",
    tests: ["test/api/options.dawn.test.ts"],
    filter: "eps of layerNorm|rope of",
  },
  {
    file: "src/unknown_option.ts",
    text: "const swaps = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];",
    replacement: "const swaps = false;",
    tests: TESTS,
  },
  {
    file: "src/attention/bindings.ts",
    text: 'const hidden: readonly string[] = hasCache ? [...OWN, "k", "v"] : OWN;',
    replacement: "const hidden: readonly string[] = [];",
    tests: ["test/api/options.dawn.test.ts"],
    filter: "keys beside a cache",
  },
];
