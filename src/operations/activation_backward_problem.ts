// The problem of a pointwise operation's gradients: its tensors, checked before the GPU sees any of
// them.

import type { OptionNames } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { gradientsOf } from "../plan/gradients.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { expectAsked } from "./gradient_names.ts";
import { type Activation, checkActivation, type PointwiseProblem } from "./pointwise_problem.ts";

/** The names of the gradients. */
export type ActivationGradient = "dX" | "dFactor";

/**
 * The gradients of a pointwise operation that a plan is made for. Shapes and strides are fixed by
 * the plan; memory is given at encode.
 */
export interface ActivationBackwardProblem
  extends Pick<PointwiseProblem, "x" | "bias" | "residual" | "factor" | "activation"> {
  /**
   * The gradient of the output, to whose shape the other tensors broadcast. f32, f16 or bf16, of
   * any shape.
   */
  readonly dOutput: TensorSpec;
  /** The gradients to compute. Default: dX, and dFactor if there is a factor. */
  readonly gradients?: readonly ActivationGradient[];
  /** The gradient of the sum, of the shape of dOutput. Default: dense, of the dtype of x. */
  readonly dX?: TensorSpec;
  /** The gradient of the factor. Default: dense, of the shape of dOutput and the factor's dtype. */
  readonly dFactor?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"activationBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const ACTIVATION_BACKWARD_PROBLEM: OptionNames<ActivationBackwardProblem> = {
  x: "any",
  bias: "any",
  residual: "any",
  factor: "any",
  activation: "string",
  dOutput: "any",
  gradients: "any",
  dX: "any",
  dFactor: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface ActivationBackwardBindings {
  readonly x?: Tensor;
  readonly dOutput?: Tensor;
  /** Bound only if the plan was made with one, as are the members that follow. */
  readonly bias?: Tensor;
  readonly residual?: Tensor;
  /** Bound only if the plan computes dX, for which alone it is read. */
  readonly factor?: Tensor;
  readonly dX?: Tensor;
  readonly dFactor?: Tensor;
}

/** Checked gradients of a pointwise operation. */
export interface ResolvedActivationBackward {
  readonly specs: {
    readonly x: ResolvedSpec;
    readonly dOutput: ResolvedSpec;
    readonly bias: ResolvedSpec | undefined;
    readonly residual: ResolvedSpec | undefined;
    /** Undefined if it isn't read. */
    readonly factor: ResolvedSpec | undefined;
    readonly dX: ResolvedSpec | undefined;
    readonly dFactor: ResolvedSpec | undefined;
  };
  readonly activation: Activation | undefined;
}

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveActivationBackward(
  problem: ActivationBackwardProblem,
  { label }: Caller,
): ResolvedActivationBackward {
  const { activation } = problem;
  checkActivation(label, activation);
  const optional = (name: "bias" | "residual" | "factor") =>
    problem[name] === undefined ? undefined : checkedSpec(label, name, problem[name], FLOATS);
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  const factor = optional("factor");
  const known = { dX: x, dFactor: factor };
  const asked = gradientsOf<ActivationGradient>(label, problem.gradients, known);
  expectAsked(label, asked, { dX: problem.dX, dFactor: problem.dFactor });
  const gradient = (name: ActivationGradient, dtype: ResolvedSpec["dtype"]) => {
    if (!asked.has(name)) return undefined;
    const given = problem[name];
    const spec =
      given === undefined
        ? resolveSpec(label, { shape: dOutput.shape, dtype })
        : checkedSpec(label, name, given, FLOATS);
    expectShape(label, name, spec, dOutput.shape, "as dOutput");
    expectApart(label, name, spec);
    return spec;
  };
  const dX = gradient("dX", x.dtype);
  const specs = {
    x,
    dOutput,
    bias: optional("bias"),
    residual: optional("residual"),
    factor: dX && factor,
    dX,
    dFactor: gradient("dFactor", factor?.dtype ?? x.dtype),
  };
  return { specs, activation };
}
