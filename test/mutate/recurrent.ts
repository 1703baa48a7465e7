// Faults in LSTM and GRU and in their gradients.

import type { Mutant } from "./mutant.ts";

const REFERENCE = ["test/reference/recurrent.test.ts"];
const ON_GPU = ["test/layers/recurrent.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/reference/recurrent.ts",
    text: "round(fromX[2 * H + unit] + round(r[unit] * kept[unit]))",
    replacement: "round(fromX[2 * H + unit] + kept[unit])",
    tests: REFERENCE,
  },
  {
    file: "src/reference/gradients/recurrent_backward.ts",
    text: "next[unit] = round(cell * f[unit]);",
    replacement: "next[unit] = cell;",
    tests: REFERENCE,
  },
  {
    file: "src/reference/gradients/recurrent_backward.ts",
    text: "fromH.set([round(fresh * r[unit])], 2 * H + unit);",
    replacement: "fromH.set([fresh], 2 * H + unit);",
    tests: REFERENCE,
  },
  {
    file: "shaders/recurrent.wesl",
    text: "    states[hidden_at] = 0.0;\n",
    replacement: "",
    tests: ON_GPU,
    filter: "lengths",
  },
  {
    file: "shaders/recurrent.wesl",
    text: "  if (step == 0u && used == 0u) {",
    replacement: "  if (step == 1u && used == 0u) {",
    tests: ON_GPU,
    filter: "lengths",
  },
  {
    file: "shaders/lib/recurrent_rows.wesl",
    text: "select(step, used - 1u - step, params.reverse == 1u && step < used)",
    replacement: "select(step, params.steps - 1u - step, params.reverse == 1u && step < used)",
    tests: ON_GPU,
    filter: "lengths",
  },
  {
    file: "shaders/recurrent_backward.wesl",
    text: "  if (next >= used) {",
    replacement: "  if (next >= params.steps) {",
    tests: ON_GPU,
    filter: "lengths",
  },
  {
    file: "shaders/recurrent_backward.wesl",
    text: "        d_gates[d_gates_row(at / GATES, entry, step) + at % GATES * params.hidden + unit] = 0.0;\n",
    replacement: "",
    tests: ON_GPU,
    filter: "lengths",
  },
  {
    file: "src/layers/recurrent/backward.ts",
    text: "dMore: isTop ? undefined : above(1),",
    replacement: "dMore: undefined,",
    tests: ON_GPU,
    filter: "both directions",
  },
  {
    file: "src/layers/recurrent/memory.ts",
    text: "offset: (slot * planes + 1) * plane + direction * hidden,",
    replacement: "offset: slot * planes * plane + direction * hidden,",
    tests: ON_GPU,
  },
];
