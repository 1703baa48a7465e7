// How a loss of single elements and its gradients are declared, whichever loss it is.

import type { OptionNames, Taken } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import type { ElementLoss } from "../../kernels/losses/element_losses.ts";
import { gradientsOf } from "../../plan/gradients.ts";
import { operation } from "../../plan/operation.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { expectAsked } from "../gradient_names.ts";
import {
  type BceInputs,
  elementItems,
  elementSumStages,
  pointwiseLossStage,
  type ResolvedElements,
  resolveElements,
} from "./element_problem.ts";
import { ONE, ownPartialSums, resolveLoss } from "./reduction.ts";

/** What the problem of a loss of elements has beside its inputs. */
export interface LossResult {
  /** f32: one number, [] or [1], or the shape of x with reduction none. Default: dense. */
  readonly loss?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default: that of the loss. */
  readonly label?: string;
}

/** The gradients of a loss of elements. */
export type LossGradient = "dX" | "dTarget";

/** What the problem of its gradients has beside the inputs. */
export interface LossGradientResults {
  /** f32, the gradient of the loss, of its shape. Default: 1, for a loss that ends the program. */
  readonly dLoss?: TensorSpec;
  /** Which gradients are computed, `"dX"`, `"dTarget"`. Default: dX. */
  readonly gradients?: readonly LossGradient[];
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly dX?: TensorSpec;
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of target. */
  readonly dTarget?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default: that of the gradients. */
  readonly label?: string;
}

/** The gradients; those that were not asked for are absent. */
export interface LossGradients {
  readonly dX?: FloatTensor;
  readonly dTarget?: FloatTensor;
}

/** Memory for the inputs of a loss of elements, and for one run of a plan of it. */
export interface MseBindings {
  readonly x?: Tensor;
  readonly target?: Tensor;
  readonly loss?: Tensor;
}

/** The same for the plan of its gradients. */
export interface MseBackwardBindings {
  readonly x?: Tensor;
  readonly target?: Tensor;
  /** Bound only if the plan was made for it, as are the members that follow. */
  readonly dLoss?: Tensor;
  readonly dX?: Tensor;
  readonly dTarget?: Tensor;
}

/** What the binary cross-entropy binds besides: only if the plan was made with it. */
export interface BceWeightBindings {
  readonly weight?: Tensor;
  readonly posWeight?: Tensor;
}

interface ResolvedLoss extends ResolvedElements {
  readonly loss: ResolvedSpec;
  readonly items: number;
}

interface ResolvedGradients extends ResolvedElements {
  readonly dLoss: ResolvedSpec | undefined;
  readonly dX: ResolvedSpec | undefined;
  readonly dTarget: ResolvedSpec | undefined;
}

/** The inputs that there are, as a plan adds them. */
function addInputs(
  add: (name: string, spec: ResolvedSpec, given: unknown) => void,
  resolved: ResolvedElements,
  problem: BceInputs,
): void {
  for (const name of ["x", "target", "weight", "posWeight"] as const) {
    const spec = resolved[name];
    if (spec) add(name, spec, problem[name]);
  }
}

/** Declares a loss. */
export const elementLoss = <Problem extends BceInputs & LossResult, Bindings extends object>(
  kind: ElementLoss,
  name: string,
  problem: OptionNames<Problem>,
) =>
  operation<Problem, Bindings, ResolvedLoss, { readonly loss: Tensor<"f32"> }>({
    name,
    problem,
    resolve(given: Taken<Problem>, { label }) {
      const inputs = given as BceInputs & LossResult;
      const resolved = resolveElements(label, kind, inputs);
      const { reduction, x } = resolved;
      const loss = resolveLoss(label, "loss", inputs.loss, { reduction, shape: x.shape });
      return { ...resolved, loss, items: elementItems(label, resolved) };
    },
    tensors({ add, own }, resolved, given) {
      const inputs = given as BceInputs & LossResult;
      add("loss", resolved.loss, inputs.loss, true);
      addInputs(add, resolved, inputs);
      if (resolved.reduction !== "none") ownPartialSums(own, resolved.items);
    },
    kernel: (resolved, caller) =>
      resolved.reduction === "none"
        ? pointwiseLossStage(caller, resolved, { o: resolved.loss, name: "loss" })
        : elementSumStages(caller, resolved, resolved.loss),
    results: ({ loss }) => ({ loss }),
  });

/** Declares the gradients of a loss. */
export const elementLossBackward = <
  Problem extends BceInputs & LossGradientResults,
  Bindings extends object,
>(
  kind: ElementLoss,
  name: string,
  problem: OptionNames<Problem>,
) =>
  operation<Problem, Bindings, ResolvedGradients, LossGradients>({
    name,
    problem,
    resolve(given: Taken<Problem>, { label }) {
      const inputs = given as BceInputs & LossGradientResults;
      const resolved = resolveElements(label, kind, inputs);
      const { reduction, x, target } = resolved;
      const asked = gradientsOf<LossGradient>(label, inputs.gradients ?? ["dX"], {
        dX: x,
        dTarget: target,
      });
      expectAsked(label, asked, { dX: inputs.dX, dTarget: inputs.dTarget });
      const written = (name: LossGradient, dtype: ResolvedSpec["dtype"]) => {
        if (!asked.has(name)) return undefined;
        const spec = inputs[name]
          ? checkedSpec(label, name, inputs[name], FLOATS)
          : resolveSpec(name, { shape: x.shape, dtype });
        expectShape(label, name, spec, x.shape, "like x");
        expectApart(label, name, spec);
        return spec;
      };
      const like = { reduction, shape: x.shape };
      return {
        ...resolved,
        dLoss: inputs.dLoss && resolveLoss(label, "dLoss", inputs.dLoss, like),
        dX: written("dX", x.dtype),
        dTarget: written("dTarget", target.dtype),
      };
    },
    tensors({ add, own }, resolved, given) {
      const inputs = given as BceInputs & LossGradientResults;
      const { dX, dTarget, dLoss } = resolved;
      if (dX) add("dX", dX, inputs.dX, true);
      if (dTarget) add("dTarget", dTarget, inputs.dTarget, true);
      addInputs(add, resolved, inputs);
      if (dLoss) add("dLoss", dLoss, inputs.dLoss);
      // The plan's name for a gradient of the loss of 1: angles.
      else own("angles", [1], { data: [1] });
    },
    kernel(resolved, caller) {
      const { dX, dTarget, dLoss } = resolved;
      const from = { dLoss: dLoss ?? ONE, dLossName: dLoss ? "dLoss" : "angles" };
      const stage = (o: ResolvedSpec, name: LossGradient, by: "x" | "target") =>
        pointwiseLossStage(caller, resolved, { ...from, o, name, by });
      return [
        ...(dX ? [stage(dX, "dX", "x")] : []),
        ...(dTarget ? [stage(dTarget, "dTarget", "target")] : []),
      ];
    },
    results: ({ dX, dTarget }) => ({ dX, dTarget }),
  });
