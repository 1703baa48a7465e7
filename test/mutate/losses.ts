// Faults in embeddings, dropout, losses and metrics.

import type { Mutant } from "./mutant.ts";

const LOSSES = ["test/operations/losses.dawn.test.ts"];
const TABLES = ["test/operations/embedding.dawn.test.ts"];

export const MUTANTS: readonly Mutant[] = [
  {
    file: "shaders/lib/table_keys.wesl",
    text: " && u32(position) != params.left_out",
    replacement: "",
    tests: TABLES,
    filter: "of repeated ids",
  },
  {
    file: "shaders/table_backward.wesl",
    text: "params.table_scale * rounded_sum(sum)",
    replacement: "rounded_sum(sum)",
    tests: TABLES,
    filter: "of repeated ids",
  },
  {
    file: "shaders/slots/element_factor.wesl",
    text: "steps[params.step_base]",
    replacement: "0u * steps[params.step_base]",
    tests: TABLES,
    filter: "is replayed with a step",
  },
  {
    file: "src/operations/dropout.ts",
    text: "strides: denseStrides(x.shape)",
    replacement: "strides: x.strides",
    tests: TABLES,
    filter: "keeps what the generator keeps",
  },
  {
    file: "shaders/cross_entropy.wesl",
    text: "(whole.m - x) + log_l, bitcast",
    replacement: "(whole.m + log_l) - x, bitcast",
    tests: LOSSES,
    filter: "of large logits",
  },
  {
    file: "shaders/variants/logit_gradients_stored.wesl",
    text: "target_row.own + target_row.shared_by_all * target_row.all_weights",
    replacement: "target_row.own + target_row.shared_by_all",
    tests: LOSSES,
    filter: "of weighted and smoothed classes",
  },
  {
    file: "shaders/lib/row_counts.wesl",
    text: " && class_idx != params.ignored",
    replacement: "",
    tests: LOSSES,
    filter: "of weighted and smoothed classes",
  },
  {
    file: "shaders/loss_sums.wesl",
    text: "select(0u, params.items, group < params.sum_workgroups)",
    replacement: "params.items",
    tests: LOSSES,
    filter: "on grids of any width",
  },
  {
    file: "shaders/row_argmax.wesl",
    text: "select(keys, vec4u(0xffffffffu), are_nan(x))",
    replacement: "keys",
    tests: LOSSES,
    filter: "find the first of the largest",
  },
];
