// What losses have in common: how they are reduced, and the stages that sum them.

import { check, show } from "../../errors.ts";
import { resolveSpec } from "../../gpu/tensor.ts";
import {
  type LossSumChoice,
  type LossTerms,
  lossSumsSpecialisation,
  PARTIAL_NUMBERS,
  sumWorkgroups,
} from "../../kernels/losses/loss_sums.ts";
import { ROW_PARAMS, rowKernel } from "../../kernels/rows.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import type { Stage } from "../../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, type ResolvedSpec } from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import type { TensorSpec } from "../../types.ts";

/** `"mean"`, `"sum"`, or `"none"`: each loss by itself. */
export type Reduction = "mean" | "sum" | "none";

const REDUCTIONS: readonly unknown[] = ["mean", "sum", "none"];

/** Throws FoveaError for a reduction that there is not. */
export function resolveReduction(label: string, reduction: unknown): Reduction {
  check(
    reduction === undefined || REDUCTIONS.includes(reduction),
    "argument",
    () => `${label}: reduction must be mean, sum or none, got ${show(reduction)}.`,
  );
  return (reduction ?? "mean") as Reduction;
}

/**
 * The spec of a loss or of its gradient: f32, one number, [] or [1], or `shape` if nothing is
 * reduced.
 */
export function resolveLoss(
  label: string,
  name: "loss" | "dLoss",
  given: TensorSpec | undefined,
  { reduction, shape }: { readonly reduction: Reduction; readonly shape: readonly number[] },
): ResolvedSpec {
  const fresh = reduction === "none" ? shape : [];
  if (given === undefined) return resolveSpec(name, { shape: fresh, dtype: "f32" });
  const spec = checkedSpec(label, name, given);
  if (reduction === "none") expectShape(label, name, spec, shape, "with reduction none");
  else
    check(
      spec.shape.length <= 1 && spec.shape.every((size) => size === 1),
      "argument",
      () => `${label}: ${name} must be one number, [] or [1], got [${spec.shape.join(", ")}].`,
    );
  if (name === "loss") expectApart(label, name, spec);
  return spec;
}

/** A number of the plan's own that stands for a gradient of the loss that is not given: 1. */
export const ONE: ResolvedSpec = { shape: [], strides: [], offset: 0, dtype: "f32" };

export interface LossSum extends Omit<LossSumChoice, "whole"> {
  readonly terms: LossTerms;
  /** What is summed: vec4s, of elements or of rows. */
  readonly items: number;
  /** The uniform of the terms. */
  readonly values: UniformValues;
  /** The plan's names for what the terms bind. */
  readonly names: Readonly<Record<string, string>>;
  /** The plan's name for the result, and the element at which it begins in its binding. */
  readonly into: string;
  readonly base?: number;
  /** What the sum is divided by, unless by what its terms count. Default 1. */
  readonly divisor?: number;
}

/** Adds memory for what workgroups have summed; its name in the plan is blocks. */
export function ownPartialSums(own: PlanTensors["own"], items: number): void {
  const groups = sumWorkgroups(items);
  if (groups > 1) own("blocks", [PARTIAL_NUMBERS * groups], {});
}

/** The stages of a sum: one workgroup, or many and one that adds what they have found. */
export function lossSumStages({ terms, items, values, names, into, ...sum }: LossSum): Stage[] {
  const { loss, counted, counts = false, base = 0, divisor = 1 } = sum;
  const groups = sumWorkgroups(items);
  const stage = (what: LossTerms, whole: boolean, more: UniformValues): Stage => ({
    source: rowKernel(
      "loss_sums",
      lossSumsSpecialisation(what, { loss, counted, counts: counts && whole, whole }),
    ),
    names: { ...names, partials: "blocks", sums: whole ? into : "blocks" },
    params: {
      struct: ROW_PARAMS,
      values: { ...values, divisor, sums_base: whole ? base : 0, ...more },
    },
    workgroups: whole ? 1 : groups,
  });
  const last = groups > 1 ? ({ of: "partial" } as const) : terms;
  const end = stage(last, true, { items: groups > 1 ? groups : items, sum_workgroups: 1 });
  return groups > 1 ? [stage(terms, false, { items, sum_workgroups: groups }), end] : [end];
}
