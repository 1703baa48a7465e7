// Faults of the ONNX operators, of empty axes below them, and of linear attention's gates.

import type { Mutant } from "./mutant.ts";

const OPERATOR = "test/interop/operator.dawn.test.ts";
const EMPTY = "test/interop/empty.dawn.test.ts";
const ROWS = "test/interop/rows.dawn.test.ts";
const ENGINE = "test/attention/empty.dawn.test.ts";

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/lib/linear_gates.wesl",
    text: "select(0.0, log_decays(decays).x, key_used(batch, kv_idx))",
    replacement: "log_decays(decays).x",
    tests: ["test/linear/linear_values.gpu.test.ts"],
    filter: "causal, in chunks N:70",
  },
  {
    file: "shaders/pointwise.wesl",
    text: "value *= load_weight",
    replacement: "value += load_weight",
    tests: [ROWS],
    filter: "BiasSplitGelu",
  },
  {
    file: "src/gpu/tensor.ts",
    text: "const needed = extent && (spec.offset + extent)",
    replacement: "const needed = (spec.offset + extent)",
    tests: [ENGINE],
    filter: "slices what is empty",
  },
  {
    file: "src/operations/row_axes.ts",
    text: "specs.o.shape.includes(0) ? [0] : specs.o.shape",
    replacement: "specs.o.shape",
    tests: [ENGINE],
    filter: "copies as many axes",
  },
  {
    file: "src/interop/onnx/attention_parts.ts",
    text: "if (given.output.size === 0) return;",
    replacement: "",
    tests: [EMPTY],
    filter: "in ai.onnx.Attention",
  },
  {
    file: "src/interop/onnx/group_query/lengths.ts",
    text: "isPrompt ? Math.min(1, S) : S",
    replacement: "isPrompt ? 1 : S",
    tests: [EMPTY],
    filter: "in com.microsoft.GroupQueryAttention",
  },
  {
    file: "src/interop/onnx/relative_position_bias.ts",
    text: "tokens[row] = token;",
    replacement: "tokens[token] = token;",
    tests: ["test/interop/positions.dawn.test.ts"],
    filter: "puts tokens without padding",
  },
  {
    file: "src/interop/onnx/gelu.ts",
    text: "bias: bias.slice(0, half, columns),",
    replacement: "bias: bias.slice(0, 0, half),",
    tests: [ROWS],
    filter: "BiasSplitGelu",
  },
  {
    file: "src/interop/onnx/layer_normalization.ts",
    text: "const Y = call.make(X.shape, scale.dtype);",
    replacement: "const Y = call.make(X.shape, X.dtype);",
    tests: [ROWS],
    filter: "SimplifiedLayerNormalization has",
  },
  {
    file: "src/interop/onnx/operator_checks.ts",
    text: "Number.isFinite(Math.fround(value))",
    replacement: "Number.isFinite(value)",
    tests: [OPERATOR],
    filter: "refuses what it does not know",
  },
  {
    file: "src/interop/onnx/operator_checks.ts",
    text: "return areNumbers ? list.map(Number) : undefined;",
    replacement: "return areNumbers ? (list as readonly number[]) : undefined;",
    tests: [OPERATOR],
    filter: "takes integers as int64",
  },
];
