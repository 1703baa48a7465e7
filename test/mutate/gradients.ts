// Faults in the gradients of the float64 reference.

import type { Mutant } from "./mutant.ts";

const ATTENTION = ["test/reference/attention_backward.test.ts"];
const LINEAR = ["test/reference/linear_backward.test.ts"];
const LAYERS = ["test/reference/multi_head_backward.test.ts"];
const ROWS = ["test/reference/rows_backward.test.ts"];

const MERGE_ON_GPU = ["test/attention/gradients/merge_backward.dawn.test.ts"];
const LAYERS_ON_GPU = ["test/layers/multi_head_backward.dawn.test.ts"];
const LINEAR_ON_GPU = ["test/linear/linear_backward.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "src/reference/softmax.ts",
    text: "let delta = -dLse;",
    replacement: "let delta = 0;",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/attention_backward.ts",
    text: "dP[j] = round(z * dot(",
    replacement: "dP[j] = round(dot(",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/attention_backward.ts",
    text: "dSinks[head] = round(dSinks[head] - round(weight * delta));",
    replacement: "dSinks[head] = round(dSinks[head] - delta);",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/similarity_backward.ts",
    text: "const rest = round(dUnit[d] - round(round(one.c * along) * one.unit[d]));",
    replacement: "const rest = round(dUnit[d] - round(along * one.unit[d]));",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/similarity_backward.ts",
    text: "round(round(gain * round(x - round(along * unit[d]))) / length),",
    replacement: "round(round(gain * x) / length),",
    tests: ATTENTION,
  },
  {
    file: "src/reference/similarity.ts",
    text: "? { value: maxTemperature, derivative: 0 }",
    replacement: "? { value: maxTemperature, derivative: exp }",
    tests: ATTENTION,
  },
  {
    file: "src/reference/steps.ts",
    text: "derivative: (s) => tanhDerivative(s / cap),",
    replacement: "derivative: () => 1,",
    tests: ATTENTION,
  },
  {
    file: "src/reference/steps.ts",
    text: "derivative: -Math.abs(row.position - key),",
    replacement: "derivative: Math.abs(row.position - key),",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/scores_backward.ts",
    text: "if (derivative) dS = round(dS * round(derivative(s, row, j)));",
    replacement: "if (derivative && index === 0) dS = round(dS * round(derivative(s, row, j)));",
    tests: ATTENTION,
  },
  {
    file: "src/reference/gradients/scores_backward.ts",
    text: "factor = round(factor * value);",
    replacement: "",
    tests: ATTENTION,
  },
  {
    file: "src/reference/tensors.ts",
    text: "sums[at] = round(sums[at] + gradient[index]);",
    replacement: "sums[at] = gradient[index];",
    tests: ROWS,
  },
  {
    file: "src/reference/gradients/linear_backward.ts",
    text: "dZ[d] = round(dZ[d] * factor);",
    replacement: "",
    tests: LINEAR,
  },
  {
    file: "src/reference/gradients/linear_backward.ts",
    text: "dS[place] = round(dS[place] + round(key[d] * dHeld));",
    replacement: "",
    tests: LINEAR,
  },
  {
    file: "src/reference/gradients/linear_backward.ts",
    text: "round(dWeight * state.z[d])",
    replacement: "0",
    tests: LINEAR,
  },
  {
    file: "src/reference/gradients/multi_head_backward.ts",
    text: "round(dBiasK[at] + round(scaled * q.data[qAt + d]))",
    replacement: "round(dBiasK[at] + round((scaled / scale) * q.data[qAt + d]))",
    tests: LAYERS,
  },
  {
    file: "src/reference/gradients/multi_head_backward.ts",
    text: "dP[j] = dWeights?.[index * keys + j] ?? 0;",
    replacement: "dP[j] = 0;",
    tests: LAYERS,
  },
  {
    file: "src/reference/projection.ts",
    text: "if (unused) used.fill(0, row * width, (row + 1) * width);",
    replacement: "",
    tests: LAYERS,
  },
  {
    file: "src/reference/gradients/normalise_backward.ts",
    text: "const average = rms ? 0 : meanOf(dN);",
    replacement: "const average = meanOf(dN);",
    tests: ROWS,
  },
  {
    file: "src/reference/merge.ts",
    text: "round(dO * round(output[at] - merged.output[at]))",
    replacement: "round(dO * output[at])",
    tests: ROWS,
  },
  {
    file: "shaders/merge_backward.wesl",
    text: "fma(l, exp(before - m), exp(added - m))",
    replacement: "(l + exp(added - m))",
    tests: MERGE_ON_GPU,
    filter: "five partials",
  },
  {
    file: "shaders/merge_backward.wesl",
    text: "d_value *= weight;",
    replacement: "",
    tests: MERGE_ON_GPU,
    filter: "two partials",
  },
  {
    file: "src/layers/gradients/attention.ts",
    text: 'parts.constant("sign", [1], [-1])',
    replacement: 'parts.constant("sign", [1], [1])',
    tests: LAYERS_ON_GPU,
    filter: "gradients of probabilities",
  },
  {
    file: "src/layers/gradients/attention.ts",
    text: "1 / (1 + Math.exp(-sink))",
    replacement: "1 / (1 + Math.exp(sink))",
    tests: LAYERS_ON_GPU,
    filter: "added keys",
  },
  {
    file: "src/reference/position_bias.ts",
    text: "const factor = round(round(u * inner) + 2);\n      let",
    replacement: "const factor = round(round(u * inner) + 1);\n      let",
    tests: ROWS,
  },
  {
    file: "src/reference/positions.ts",
    text: "dX[row * D + d] = round(scale * dy);",
    replacement: "dX[row * D + d] = dy;",
    tests: ROWS,
  },
  {
    file: "shaders/linear_backward_columns.wesl",
    text: "let held = -beta_tile[t] * du;",
    replacement: "let held = 0.0;",
    tests: LINEAR_ON_GPU,
    filter: "delta rules",
  },
  {
    file: "shaders/linear_backward_rows_reversed.wesl",
    text: "sum_of(sum) + select(0.0, dz, column_block == 0u);",
    replacement: "sum_of(sum);",
    tests: LINEAR_ON_GPU,
    filter: "normalised, causal",
  },
  {
    file: "shaders/linear_backward_weights.wesl",
    text: "-(sum_of(product) * inverse) * inverse",
    replacement: "-(sum_of(product) * inverse)",
    tests: LINEAR_ON_GPU,
    filter: "normalised, causal",
  },
  {
    file: "shaders/linear_backward_decay.wesl",
    text: "y = fma(decay, y, key * (",
    replacement: "y = fma(decay, y, 0.0 * (",
    tests: LINEAR_ON_GPU,
    filter: "gated",
  },
  {
    file: "shaders/linear_backward_scalars.wesl",
    text: "select(0.0, sum_of(gradient), key_used(batch, token))",
    replacement: "sum_of(gradient)",
    tests: LINEAR_ON_GPU,
    filter: "gated N:40",
  },
  {
    file: "src/linear/backward_steps.ts",
    text: "if (causal && needs.states && index < keys.length - 1) phases.forwards(segment, index);",
    replacement: "",
    tests: LINEAR_ON_GPU,
    filter: "delta rules N:150",
  },
];
