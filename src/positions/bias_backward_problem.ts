// The problem of a position bias' gradients: its tensors, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { BIAS_TERMS } from "../kernels/gradients/position_bias.ts";
import { broadcastTo } from "../operations/row_axes.ts";
import { groupSums, type SumGroups } from "../operations/row_gradients.ts";
import { gradientsOf } from "../plan/gradients.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import {
  type BiasGates,
  GATES,
  POSITION_BIAS_PROBLEM,
  type PositionBiasBindings,
  type PositionBiasProblem,
  type ResolvedBias,
  resolveBias,
} from "./bias_problem.ts";

/** The gradients of a position bias. */
export type PositionBiasGradient = "dTable" | "dBias" | "dUpdate" | "dReset" | "dScale";

/** The gradients that a plan is made for: the forward problem, and the gradient of its output. */
export interface PositionBiasBackwardProblem extends Omit<PositionBiasProblem, "output" | "label"> {
  /** [B, H, M, N] f32, f16 or bf16: the gradient of the output. */
  readonly dOutput: TensorSpec;
  /** Which gradients are computed. Default: those of all tensors that are given. */
  readonly gradients?: readonly PositionBiasGradient[];
  /**
   * f32, f16 or bf16, of the shapes of their tensors, summed over the axes along which these are
   * broadcast. Default: dense, of the dtypes of their tensors.
   */
  readonly dTable?: TensorSpec;
  /** Of `bias`. */
  readonly dBias?: TensorSpec;
  /** Of `update`. */
  readonly dUpdate?: TensorSpec;
  /** Of `reset`. */
  readonly dReset?: TensorSpec;
  /** Of `scale`. */
  readonly dScale?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"positionBiasBackward"`. */
  readonly label?: string;
}

const { output: _, ...SHARED } = POSITION_BIAS_PROBLEM;
/** The names of all members of a problem. */
export const POSITION_BIAS_BACKWARD_PROBLEM: OptionNames<PositionBiasBackwardProblem> = {
  ...SHARED,
  dOutput: "any",
  gradients: "any",
  dTable: "any",
  dBias: "any",
  dUpdate: "any",
  dReset: "any",
  dScale: "any",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface PositionBiasBackwardBindings extends Omit<PositionBiasBindings, "output"> {
  readonly dOutput?: Tensor;
  readonly dTable?: Tensor;
  readonly dBias?: Tensor;
  readonly dUpdate?: Tensor;
  readonly dReset?: Tensor;
  readonly dScale?: Tensor;
}

/** The checked gradients of a position bias. */
export interface ResolvedBiasBackward {
  readonly forward: ResolvedBias;
  readonly dOutput: ResolvedSpec;
  /** The gradients that are computed, as the caller sees them. */
  readonly gradients: { readonly [Name in PositionBiasGradient]?: ResolvedSpec };
  /** The sums over rows that all gradients but that of a table are. */
  readonly sums: SumGroups;
  /** Whether the values of the bias are read, for the gradients of gates. */
  readonly readsBias: boolean;
}

/** Checks the gradients of a position bias. Throws FoveaError that names what is wrong. */
export function resolveBiasBackward(
  { dOutput: given, gradients: list, ...problem }: Taken<PositionBiasBackwardProblem>,
  caller: Caller,
): ResolvedBiasBackward {
  const { label } = caller;
  const { dTable, dBias, dUpdate, dReset, dScale, ...options } = problem;
  const dOutput = checkedSpec(label, "dOutput", given, FLOATS);
  const { shape } = dOutput;
  check(
    shape.length === 4,
    "argument",
    () => `${label}: dOutput must have the four axes BHMN, got shape [${shape.join(", ")}].`,
  );
  const output = resolveSpec("output", { shape });
  const forward = resolveBias({ ...options, output } as PositionBiasProblem, caller);
  const { source, isTable, gates } = forward;
  const known: Record<PositionBiasGradient, ResolvedSpec | undefined> = {
    dTable: isTable ? source : undefined,
    dBias: isTable ? undefined : source,
    dUpdate: gates?.update,
    dReset: gates?.reset,
    dScale: gates?.scale,
  };
  if (!isTable) broadcastTo(label, "bias", source, shape);
  for (const name of gates ? GATES : [])
    broadcastTo(label, name, (gates as BiasGates<ResolvedSpec>)[name], [...shape.slice(0, 3), 1]);
  const asked = gradientsOf(label, list, known);
  const specs = { dTable, dBias, dUpdate, dReset, dScale };
  const written = (name: PositionBiasGradient) => {
    const like = known[name] as ResolvedSpec;
    const spec =
      specs[name] === undefined
        ? resolveSpec(name, { shape: like.shape, dtype: like.dtype })
        : checkedSpec(label, name, specs[name], FLOATS);
    expectShape(label, name, spec, like.shape, "like what it is the gradient of");
    expectApart(label, name, spec);
    return [name, spec] as const;
  };
  const gradients = Object.fromEntries(
    [...asked].map(written),
  ) as ResolvedBiasBackward["gradients"];
  const summed = [...asked].filter((name) => name !== "dTable");
  const isEmpty = shape.includes(0);
  const sums = summed
    .map((name) => ({ name, term: BIAS_TERMS[name], spec: gradients[name] as ResolvedSpec }))
    .filter(({ spec }) => !isEmpty || !spec.shape.includes(0))
    .map(({ spec, ...sum }) => ({ ...sum, spec: isEmpty ? alone(spec) : wide(spec, sum.name) }));
  return {
    forward,
    dOutput,
    gradients,
    sums: groupSums(sums, shape, isEmpty),
    readsBias: summed.some((name) => name !== "dBias"),
  };

  function wide(spec: ResolvedSpec, name: string) {
    return broadcastTo(label, name, spec, shape);
  }
  function alone(spec: ResolvedSpec): ResolvedSpec {
    const missing = 4 - spec.shape.length;
    const zeros = new Array<number>(missing).fill(0);
    return {
      ...spec,
      shape: [...zeros.map(() => 1), ...spec.shape],
      strides: [...zeros, ...spec.strides],
    };
  }
}
