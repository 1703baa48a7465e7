// The problem of a loss of single elements, the squared error or the binary cross-entropy: its
// tensors, checked before the GPU sees any of them, and the stages that losses and gradients share.

import type { OptionNames } from "../../given.ts";
import {
  type ElementLoss,
  pointwiseLossSpecialisation,
} from "../../kernels/losses/element_losses.ts";
import { pointwiseWorkgroups } from "../../kernels/pointwise.ts";
import { rowKernel } from "../../kernels/rows.ts";
import type { Caller, Stage } from "../../plan/operation.ts";
import {
  bindingBase,
  checkedSpec,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { broadcastTo, foldRows, layRows } from "../row_axes.ts";
import { lossSumStages, type Reduction, resolveReduction } from "./reduction.ts";

/** What the squared error is computed from. */
export interface MseInputs {
  /** f32, f16 or bf16, of any shape. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** f32, f16 or bf16, of the shape of x: what x should be. */
  readonly target: TensorSpec;
  /** `"mean"`, over all elements, `"sum"`, or `"none"`: one loss an element. Default `"mean"`. */
  readonly reduction?: Reduction;
}

/** What the binary cross-entropy is computed from. */
export interface BceInputs extends MseInputs {
  /**
   * f32, f16 or bf16: what each element weighs; it broadcasts to the shape of x. The mean divides
   * by the number of elements all the same. Default 1.
   */
  readonly weight?: TensorSpec;
  /**
   * f32, f16 or bf16: what a positive target weighs, for classes with few of them; it broadcasts to
   * the shape of x, as one number a class [C] does. Default 1.
   */
  readonly posWeight?: TensorSpec;
}

/** The names of all of these. */
export const MSE_INPUTS: OptionNames<MseInputs> = {
  x: "any",
  target: "any",
  reduction: "string",
};
export const BCE_INPUTS: OptionNames<BceInputs> = {
  ...MSE_INPUTS,
  weight: "any",
  posWeight: "any",
};

/** A checked loss of elements. */
export interface ResolvedElements {
  readonly kind: ElementLoss;
  readonly x: ResolvedSpec;
  readonly target: ResolvedSpec;
  readonly weight: ResolvedSpec | undefined;
  readonly posWeight: ResolvedSpec | undefined;
  readonly reduction: Reduction;
}

/** Checks a loss of elements and fills in its defaults. */
export function resolveElements(
  label: string,
  kind: ElementLoss,
  problem: BceInputs,
): ResolvedElements {
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const target = checkedSpec(label, "target", problem.target, FLOATS);
  expectShape(label, "target", target, x.shape, "like x");
  const optional = (name: "weight" | "posWeight") => {
    if (problem[name] === undefined) return undefined;
    const spec = checkedSpec(label, name, problem[name], FLOATS);
    broadcastTo(label, name, spec, x.shape);
    return spec;
  };
  const reduction = resolveReduction(label, problem.reduction);
  return {
    kind,
    x,
    target,
    weight: optional("weight"),
    posWeight: optional("posWeight"),
    reduction,
  };
}

/** Elements of x. */
export const elementsOf = ({ x }: Pick<ResolvedElements, "x">): number =>
  x.shape.reduce((product, size) => product * size, 1);

/** The tensors as the kernels have them. */
function folded(
  label: string,
  { x, target, weight, posWeight }: ResolvedElements,
  o: ResolvedSpec,
  dLoss?: ResolvedSpec,
) {
  const wide = (name: string, spec: ResolvedSpec) => broadcastTo(label, name, spec, x.shape);
  return foldRows(
    label,
    {
      source: x,
      residual: target,
      ...(weight && { weight: wide("weight", weight) }),
      ...(posWeight && { shift: wide("posWeight", posWeight) }),
      ...(dLoss && { bias: wide("dLoss", dLoss) }),
      o,
    },
    0,
    { residual: "target", shift: "posWeight", bias: "dLoss" },
  );
}

/** The items of a sum of all losses: vec4s of rows. */
export function elementItems(label: string, resolved: ResolvedElements): number {
  const { rows, width } = folded(label, resolved, resolved.x);
  return rows * Math.ceil(width / 4);
}

/** The plan's names for what the kernels bind. */
const NAMES = { source: "x", residual: "target", shift: "posWeight" };

/** The loss of each element, or its gradient by x or by the target. */
export function pointwiseLossStage(
  caller: Caller,
  resolved: ResolvedElements,
  {
    o,
    name,
    by,
    dLoss,
    dLossName = "dLoss",
  }: {
    readonly o: ResolvedSpec;
    /** The plan's name for what is written. */
    readonly name: string;
    readonly by?: "x" | "target";
    readonly dLoss?: ResolvedSpec;
    readonly dLossName?: string;
  },
): Stage {
  const rows = folded(caller.label, resolved, o, dLoss);
  const divisor = resolved.reduction === "mean" ? elementsOf(resolved) : 1;
  const { accesses, params } = layRows(caller.device, rows, { divisor });
  return {
    source: rowKernel("pointwise_loss", pointwiseLossSpecialisation(accesses, resolved.kind, by)),
    names: { ...NAMES, o: name, bias: dLossName },
    params,
    workgroups: pointwiseWorkgroups(rows.rows, rows.width),
  };
}

/** The stages that sum the losses of elements. */
export function elementSumStages(
  caller: Caller,
  resolved: ResolvedElements,
  loss: ResolvedSpec,
): Stage[] {
  const { specs, rows, width } = folded(caller.label, resolved, resolved.x);
  const { o: _, ...read } = specs;
  const { accesses, params } = layRows(caller.device, { specs: read, rows, width });
  return lossSumStages({
    terms: { of: "elements", kind: resolved.kind, tensors: accesses },
    loss: true,
    counted: false,
    items: rows * Math.ceil(width / 4),
    values: params.values,
    names: NAMES,
    into: "loss",
    base: bindingBase(caller.device, loss),
    divisor: resolved.reduction === "mean" ? elementsOf(resolved) : 1,
  });
}
