// Faults that somebody could make in what packs the uniforms of attention, in the checks and
// choices of the host, in conversions, and in the reference itself.

import type { Mutant } from "./mutant.ts";

const DESCRIPTORS = ["test/scores/descriptors.test.ts"];
const FEATURES = ["test/attention/features_values.gpu.test.ts"];
const DECODE = ["test/attention/decode.gpu.test.ts"];

const HOST: readonly Mutant[] = [
  {
    file: "src/kernels/uniform.ts",
    text: 'i: "setInt32"',
    replacement: 'i: "setUint8"',
    tests: ["test/shader/reflect.test.ts"],
  },
  {
    file: "src/kernels/uniform.ts",
    text: "writeScalar(view, member.offset + 4 * i,",
    replacement: "writeScalar(view, member.offset,",
    tests: ["test/shader/reflect.test.ts"],
  },
  {
    file: "src/kernels/uniform.ts",
    text: "if (!this.has(name))",
    replacement: 'if (name === "")',
    tests: ["test/shader/reflect.test.ts"],
  },
  {
    file: "src/kernels/uniform.ts",
    text: "given[member.name] ?? (read?.has(member.name) === false ? 0 : undefined)",
    replacement: "given[member.name] ?? 0",
    tests: ["test/shader/reflect.test.ts"],
  },
  {
    file: "src/plan/work.ts",
    text: "const end = Math.min(first + share, total);",
    replacement: "const end = Math.min(first + share - 1, total);",
    tests: ["test/plan/work.test.ts"],
  },
  {
    file: "src/plan/work.ts",
    text: "Math.floor(maxFlops / flopsEach)",
    replacement: "Math.ceil(maxFlops / flopsEach)",
    tests: ["test/plan/work.test.ts"],
  },
  {
    file: "src/scores/dropout.ts",
    text: "seed_high: (Math.floor(seed / 2 ** 32) +",
    replacement: "seed_high: (0 +",
    tests: FEATURES,
    filter: "dropout H=2",
  },
  {
    file: "src/scores/functions.ts",
    text: "const [b, h] = strides.map((stride, axis) => (shape[axis] > 1 ? stride : 0));",
    replacement: "const [b, h] = strides;",
    tests: FEATURES,
    filter: "block masks H=2 M=200 N=300 maskFunction=window",
  },
  {
    file: "src/functions/block_mask.ts",
    text: 'words[row + words[row]] = 2 * (index % kvBlocks) + Number(kind === "full");',
    replacement: 'words[row + words[row]] = 2 * (index % kvBlocks) + Number(kind === "partial");',
    tests: ["test/attention/block_lists.dawn.test.ts"],
  },
  {
    file: "src/scores/sequences.ts",
    text: "return Math.max(0, ...cumulative.slice(1).map((n, i) => n - cumulative[i]));",
    replacement: "return Math.max(0, ...cumulative.slice(1).map((n, i) => n - cumulative[i])) - 1;",
    tests: FEATURES,
    filter:
      "packed sequences H=2 M=61 N=90 cuSeqlensQ=\\[0,17,17,60,61\\] cuSeqlensKv=\\[0,40,55,55,90\\]$",
  },
  {
    file: "src/scores/head_tables.ts",
    text: "const stride = perEntry ? heads : 0;",
    replacement: "const stride = perEntry ? 1 : 0;",
    tests: FEATURES,
    filter: "scores B=2 H=3",
  },
  {
    file: "src/scores/head_tables.ts",
    text: "slots: { alibi: true },",
    replacement: "",
    tests: DESCRIPTORS,
    filter: "alibiSlopes",
  },
  {
    file: "src/scores/softcap.ts",
    text: 'keeps: "nothing",',
    replacement: 'keeps: "all",',
    tests: DESCRIPTORS,
    filter: "softcap",
  },
  {
    file: "src/scores/relative_bias.ts",
    text: "params: () => ({ relative_reach: distances.length / 2 - 1 }),",
    replacement: "",
    tests: DESCRIPTORS,
    filter: "relativeBias",
  },
  {
    file: "src/attention/plan_attention.ts",
    text: "const inWindow = window[0] < 0 ? problem.mostKeys : window[0] + seqQ + sinkTokens;",
    replacement: "const inWindow = problem.mostKeys;",
    tests: DECODE,
    filter: "splits the keys that a window leaves",
  },
  {
    file: "src/kernels/decode.ts",
    text: "Math.ceil((seqQ * Math.ceil(vDim / 4)) / COMBINE_LANES)",
    replacement: "Math.floor((seqQ * Math.ceil(vDim / 4)) / COMBINE_LANES)",
    tests: DECODE,
    filter: "splits of the keys .*kvSplits=3 .*decode-16$",
  },
  {
    file: "src/attention/prewarm.ts",
    text: 'if (!(error instanceof FoveaError && error.code === "out-of-memory")) throw error;',
    replacement: "throw error;",
    tests: ["test/attention/prewarm.dawn.test.ts"],
  },
  {
    file: "src/tune/tune.ts",
    text: "const most = Math.min(4096, Math.max(1, Math.ceil(keys / 16)));",
    replacement: "const most = Math.min(4096, Math.max(1, keys));",
    tests: ["test/tune/tune.dawn.test.ts"],
    filter: "tries no splits",
  },
  {
    file: "src/attention/tuned.ts",
    text: "kvSplits: kvSplits ?? tuned.kvSplits",
    replacement: "kvSplits: tuned.kvSplits",
    tests: ["test/tune/tune.dawn.test.ts"],
    filter: "tuned|tries splits|its adapter",
  },
  {
    file: "src/plan/operand_checks.ts",
    text: "strides.every((stride, axis) => stride === spec.strides[axis] || shape[axis] <= 1)",
    replacement:
      "strides.every((stride, axis) => stride === spec.strides[axis] || shape[axis] > 1)",
    tests: ["test/api/errors.gpu.test.ts"],
    filter: "encode refuses",
  },
  {
    file: "src/layers/heads.ts",
    text: "strides: [b, headDim * d, m, d]",
    replacement: "strides: [b, heads * d, m, d]",
    tests: ["test/layers/heads.dawn.test.ts"],
  },
  {
    file: "src/positions/buckets.ts",
    text: "Math.log(maxDistance / exact) + 1e-9",
    replacement: "Math.log(maxDistance / exact)",
    tests: ["test/positions/buckets.test.ts"],
  },
  {
    file: "src/gpu/elements.ts",
    text: "rest > 0.5 || (rest === 0.5 && floor % 2 === 1)",
    replacement: "rest >= 0.5",
    tests: ["test/gpu/tensor.gpu.test.ts"],
    filter: "rounds to f16",
  },
  {
    file: "src/gpu/elements.ts",
    text: "if (Number.isNaN(value)) return (bits >>> 16) | 0x40;",
    replacement: "if (Number.isNaN(value)) return bits >>> 16;",
    tests: [],
    equivalent:
      "a NaN that was a number of JavaScript on its way is quiet, so the bit is set already",
  },
  {
    file: "src/gpu/elements.ts",
    text: "row -= strides[axis] * shape[axis];",
    replacement: "row -= strides[axis] * (shape[axis] - 1);",
    tests: ["test/gpu/elements.test.ts"],
  },
];

const REFERENCE: readonly Mutant[] = [
  {
    file: "src/reference/rows.ts",
    text: "const chunk = Math.floor(position / attentionChunk) * attentionChunk;",
    replacement: "const chunk = Math.trunc(position / attentionChunk) * attentionChunk;",
    tests: ["test/reference/masks.test.ts"],
  },
  {
    file: "src/reference/rows.ts",
    text: 'const aligned = causal === "top-left" ? 0 : keys - queries;',
    replacement: 'const aligned = causal === "top-left" ? 0 : keys - (qEnd - qRow);',
    tests: ["test/reference/masks.test.ts", "test/reference/attention.test.ts"],
  },
  {
    file: "src/reference/softmax.ts",
    text: "const top = Math.max(max, sink);",
    replacement: "const top = max;",
    tests: ["test/reference/scores.test.ts"],
  },
  {
    file: "src/reference/scores.ts",
    text: "Math.floor(head / (H / kvHeads))",
    replacement: "head % kvHeads",
    tests: ["test/reference/attention.test.ts"],
  },
  {
    file: "src/reference/dropout.ts",
    text: "const factor = round(1 / round(1 - dropout.p));",
    replacement: "const factor = 1;",
    tests: ["test/reference/dropout.test.ts"],
  },
  {
    file: "src/reference/merge.ts",
    text: "lse[row] = round(max + round(Math.log(sum)));",
    replacement: "lse[row] = round(Math.log(sum));",
    tests: ["test/reference/merge.test.ts"],
  },
  {
    file: "src/reference/compare.ts",
    text: "return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;",
    replacement: "return difference;",
    tests: ["test/reference/attention.test.ts"],
    filter: "worstElement",
  },
];

export const MUTANTS: readonly Mutant[] = [...HOST, ...REFERENCE];
