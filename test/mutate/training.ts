// Faults in optimisers.

import type { Mutant } from "./mutant.ts";

const UPDATES = ["test/training/optimizers.dawn.test.ts"];
const ERRORS = ["test/training/optimizers_errors.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/lib/power.wesl",
    text: "carry >>= 16u;",
    replacement: "carry = 0u;",
    tests: UPDATES,
    filter: "corrections of Adam",
  },
  {
    file: "shaders/lib/chunks.wesl",
    text: "entries[middle].first_chunk <= number",
    replacement: "entries[middle].first_chunk < number",
    tests: UPDATES,
    filter: "lie with gaps",
  },
  {
    file: "shaders/variants/update_rule_momentum.wesl",
    text: "group.updates > 1u",
    replacement: "group.updates > 0u",
    tests: UPDATES,
    filter: "SGD",
  },
  {
    file: "shaders/optimizer.wesl",
    text: "if (params.clear == 1u) {",
    replacement: "if (params.clear == 2u) {",
    tests: UPDATES,
    filter: "accumulates",
  },
  {
    file: "shaders/optimizer_muon.wesl",
    text: "rows > entry.columns",
    replacement: "rows < entry.columns",
    tests: UPDATES,
    filter: "several shapes",
  },
  {
    file: "shaders/optimizer_norm_total.wesl",
    text: "if (is_nan(norm)) {",
    replacement: "if (false) {",
    tests: UPDATES,
    filter: "told by the norm",
  },
  {
    file: "src/training/optimizers/runs.ts",
    text: "Math.max(wider.size, widerGradients.size, 4 * elements) <= most",
    replacement: "elements > 0",
    tests: ERRORS,
    filter: "where the device's bindings do",
  },
];
