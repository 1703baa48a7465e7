// The problem of a cross-entropy: its tensors, checked before the GPU sees any of them.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { checkedSpec, expectShape, FLOATS, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { IDS } from "../tables/embedding.ts";
import { type Reduction, resolveReduction } from "./reduction.ts";

/** What a cross-entropy is computed from, and how; its gradient takes the same. */
export interface CrossEntropySettings {
  /**
   * f32 [C]: what each class weighs. The mean divides by the weights of the targets that count.
   * Default 1 for all.
   */
  readonly classWeights?: TensorSpec;
  /** A target that does not count: its row has the loss 0 and no gradient. Default -100. */
  readonly ignoreIndex?: number;
  /**
   * The share of each target that all classes have together, from 0 to 1. Default 0. Source:
   * Szegedy et al., Rethinking the Inception Architecture (arXiv 1512.00567), section 7.
   */
  readonly labelSmoothing?: number;
  /** `"mean"`, `"sum"`, or `"none"`: one loss a row. Default `"mean"`. */
  readonly reduction?: Reduction;
}

/** The tensors that a cross-entropy and its gradient read. */
export interface CrossEntropyInputs extends CrossEntropySettings {
  /** [..., C] f32, f16 or bf16, a logit for each class. A tensor, or what it will look like. */
  readonly logits: TensorSpec;
  /** i32 or u32 [...]: the class of each row, from 0 up to C - 1, or `ignoreIndex`. */
  readonly target: TensorSpec;
}

/** The names of all of these. */
export const CROSS_ENTROPY_INPUTS: OptionNames<CrossEntropyInputs> = {
  logits: "any",
  target: "any",
  classWeights: "any",
  ignoreIndex: "number",
  labelSmoothing: "number",
  reduction: "string",
};

/** A checked cross-entropy. */
export interface ResolvedCrossEntropy {
  readonly logits: ResolvedSpec;
  readonly target: ResolvedSpec;
  readonly classWeights: ResolvedSpec | undefined;
  readonly ignoreIndex: number;
  readonly labelSmoothing: number;
  readonly reduction: Reduction;
}

/** Checks logits and their classes, as losses and metrics take them. */
export function resolveClasses(
  label: string,
  problem: Pick<CrossEntropyInputs, "logits" | "target" | "ignoreIndex">,
) {
  const { ignoreIndex = -100 } = problem;
  const logits = checkedSpec(label, "logits", problem.logits, FLOATS);
  const { shape } = logits;
  check(
    shape.length > 0 && shape[shape.length - 1] > 0,
    "argument",
    () => `${label}: logits must be [..., C] with one class or more, got [${shape.join(", ")}].`,
  );
  const target = checkedSpec(label, "target", problem.target, IDS);
  expectShape(label, "target", target, shape.slice(0, -1), "a class for each row of logits");
  check(
    Number.isInteger(ignoreIndex) && Math.abs(ignoreIndex) < 2 ** 31,
    "argument",
    () => `${label}: ignoreIndex must be a whole number of i32, got ${ignoreIndex}.`,
  );
  return { logits, target, ignoreIndex };
}

/** Checks a cross-entropy and fills in its defaults. */
export function resolveCrossEntropy(
  label: string,
  problem: CrossEntropyInputs,
): ResolvedCrossEntropy {
  const { labelSmoothing = 0 } = problem;
  const classes = resolveClasses(label, problem);
  const { shape } = classes.logits;
  const classWeights =
    problem.classWeights && checkedSpec(label, "classWeights", problem.classWeights);
  if (classWeights)
    expectShape(label, "classWeights", classWeights, shape.slice(-1), "one for each class");
  check(
    labelSmoothing >= 0 && labelSmoothing <= 1,
    "argument",
    () => `${label}: labelSmoothing must be from 0 to 1, got ${labelSmoothing}.`,
  );
  const reduction = resolveReduction(label, problem.reduction);
  return { ...classes, classWeights, labelSmoothing, reduction };
}
