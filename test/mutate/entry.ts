// Faults in what a user meets first: files, state dicts, frequencies for long texts, the build.

import type { Mutant } from "./mutant.ts";

const FILES = ["test/files/files.test.ts"];
const STATES = ["test/layers/multi_head_state.gpu.test.ts"];
const ROTARY = ["test/reference/rotary.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/files/safetensors.ts",
    text: "place.begin >= end,",
    replacement: "true,",
    tests: FILES,
    filter: "overlap|share",
  },
  {
    file: "src/files/safetensors.ts",
    text: "const MAX_DEPTH = 3;",
    replacement: "const MAX_DEPTH = 1e9;",
    tests: FILES,
    filter: "nested",
  },
  {
    file: "src/files/json.ts",
    text: 'text[at] === "\\\\" ? 2 : 1',
    replacement: "1",
    tests: ["test/files/files_hostile.test.ts"],
    filter: "names with quotes",
  },
  {
    file: "src/files/tensors.ts",
    text: "shape.includes(0) ? 0 : ",
    replacement: "",
    tests: ["test/files/files_hostile.test.ts", ...FILES],
    filter: "empty",
  },
  {
    file: "bench/npy.ts",
    text: "fortranOrder ? fromFortran(data, shape) : data",
    replacement: "data",
    tests: FILES,
    filter: "column-major",
  },
  {
    file: "src/positions/rotary_scaling.ts",
    text: "Math.max(scaling.length, originalMaxPositions)",
    replacement: "scaling.length",
    tests: ROTARY,
    filter: "dynamic",
  },
  {
    file: "src/positions/rotary_scaling.ts",
    text: "length > originalMaxPositions ?",
    replacement: "length >= originalMaxPositions ?",
    tests: ROTARY,
    filter: "LongRoPE",
  },
  {
    file: "src/layers/multi_head_state.ts",
    text: "key: partOf(all, before, each),",
    replacement: "key: partOf(all, before + each, each),",
    tests: STATES,
    filter: "Phi-3",
  },
  {
    file: "src/layers/state_dict.ts",
    text: `!other.startsWith(\`\${name}.\`) ||`,
    replacement: "true ||",
    tests: STATES,
    filter: "an adapter",
  },
];
