// The problem of a pointwise operation: its tensors, checked before the GPU sees any of them.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";

/**
 * A function of each sum: `"gelu"`, x Phi(x) by erf; `"gelu-tanh"`, 0.5 x (1 + tanh(sqrt(2 / pi) (x
 * + 0.044715 x^3))); `"relu"`, max(x, 0); `"silu"`, x / (1 + exp(-x)); `"sigmoid"`, 1 / (1 +
 * exp(-x)); `"tanh"`.
 */
export type Activation = "gelu" | "gelu-tanh" | "relu" | "silu" | "sigmoid" | "tanh";

const ACTIVATIONS: readonly unknown[] = ["gelu", "gelu-tanh", "relu", "silu", "sigmoid", "tanh"];

/** Throws FoveaError for an activation that there is not. */
export function checkActivation(label: string, activation: unknown): void {
  check(
    activation === undefined || ACTIVATIONS.includes(activation),
    "argument",
    () => `${label}: activation must be one of ${ACTIVATIONS.join(", ")}, got ${show(activation)}.`,
  );
}

/**
 * The pointwise operation that a plan is made for. Shapes and strides are fixed by the plan; memory
 * is given at encode.
 */
export interface PointwiseProblem {
  /**
   * f32, f16 or bf16, of any shape; it broadcasts to that of the output. A tensor, or what it will
   * look like.
   */
  readonly x: TensorSpec;
  /**
   * Added to x; broadcasts to the shape of the output, as one row [W] does. f32, f16 or bf16.
   * Default: none.
   */
  readonly bias?: TensorSpec;
  /**
   * Added to x, like `bias`; broadcasts to the shape of the output. f32, f16 or bf16. Default:
   * none.
   */
  readonly residual?: TensorSpec;
  /** Applied to the sum. Default: none. */
  readonly activation?: Activation;
  /**
   * Multiplies the result of the activation; broadcasts to the shape of the output. f32, f16 or
   * bf16. Default 1.
   */
  readonly factor?: TensorSpec;
  /** f32, f16 or bf16. Default: dense, the shape and dtype of x. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"pointwise"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const POINTWISE_PROBLEM: OptionNames<PointwiseProblem> = {
  x: "any",
  bias: "any",
  residual: "any",
  factor: "any",
  activation: "string",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface PointwiseBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
  /** Bound only if the plan was made with one, as are the members that follow. */
  readonly bias?: Tensor;
  readonly residual?: Tensor;
  readonly factor?: Tensor;
}

/** A checked pointwise operation. */
export interface ResolvedPointwise {
  readonly specs: {
    readonly x: ResolvedSpec;
    readonly bias: ResolvedSpec | undefined;
    readonly residual: ResolvedSpec | undefined;
    readonly factor: ResolvedSpec | undefined;
    readonly output: ResolvedSpec;
  };
  readonly activation: Activation | undefined;
}

/**
 * Checks a pointwise operation and fills in its defaults. Throws FoveaError that names what is
 * wrong.
 */
export function resolvePointwise(problem: PointwiseProblem, { label }: Caller): ResolvedPointwise {
  const { activation } = problem;
  checkActivation(label, activation);
  const optional = (name: "bias" | "residual" | "factor") =>
    problem[name] === undefined ? undefined : checkedSpec(label, name, problem[name], FLOATS);
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const output =
    problem.output !== undefined
      ? checkedSpec(label, "output", problem.output, FLOATS)
      : resolveSpec("output", { shape: x.shape, dtype: x.dtype });
  expectApart(label, "output", output);
  const specs = {
    x,
    bias: optional("bias"),
    residual: optional("residual"),
    factor: optional("factor"),
    output,
  };
  return { specs, activation };
}
