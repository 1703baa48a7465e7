// Problems of the gradients of LSTM and GRU layers.

import { check } from "../../errors.ts";
import type { OptionNames, Taken } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import type { CellKind } from "../../kernels/recurrent.ts";
import { expectAsked } from "../../operations/gradient_names.ts";
import { checkedFlops } from "../../operations/projection_problem.ts";
import { gradientsOf } from "../../plan/gradients.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { Dtype, TensorSpec } from "../../types.ts";
import { expectDense } from "./memory.ts";
import {
  type GruProblem,
  ofNetwork,
  type RecurrentWeights,
  type ResolvedNetwork,
  resolveNetwork,
  shapesOf,
} from "./problem.ts";

/** The names of a GRU's gradients; `"parameters"` stands for those of all weights. */
export type GruGradient = "dX" | "dH0" | "parameters";

/** The names of an LSTM's gradients. */
export type LstmGradient = GruGradient | "dC0";

/**
 * The gradients of a network that a plan is made for: x, weights and options of the forward run,
 * what it kept, and the gradients of its results, of which there is one at least.
 */
export interface GruBackwardProblem
  extends Pick<GruProblem, "x" | "weights" | "lengths" | "batchFirst" | "maxDispatchFlops"> {
  /** As the forward run left them with `keep`. Default: dense. */
  readonly gates?: TensorSpec;
  /** Likewise. */
  readonly states?: TensorSpec;
  /** f32, of the shape of the output. What it holds past an entry's length is not read. */
  readonly dOutput?: TensorSpec;
  /** [L D, B, H] f32, the gradient of hN. */
  readonly dHN?: TensorSpec;
  /** The gradients to compute. Default: all. */
  readonly gradients?: readonly GruGradient[];
  /** Of the shape of x; 0 past an entry's length. Default: dense, of the dtype of x. */
  readonly dX?: TensorSpec;
  /** [L D, B, H] f32. Default: dense. */
  readonly dH0?: TensorSpec;
  /**
   * The gradients of the weights, under their names and of their shapes. Default for each: dense,
   * of the dtype of the weight.
   */
  readonly parameters?: RecurrentWeights<TensorSpec>;
  /** Name of the plan's GPU objects in errors and captures. Default: the name of the function. */
  readonly label?: string;
}

/** The gradients of an LSTM that a plan is made for. */
export interface LstmBackwardProblem extends Omit<GruBackwardProblem, "gradients"> {
  /** [L D, B, H] f32, the gradient of cN. */
  readonly dCN?: TensorSpec;
  /** The gradients to compute. Default: all. */
  readonly gradients?: readonly LstmGradient[];
  /** [L D, B, H] f32. Default: dense. */
  readonly dC0?: TensorSpec;
}

/** The names of all members of a problem. */
export const GRU_BACKWARD_PROBLEM: OptionNames<GruBackwardProblem> = {
  x: "any",
  weights: "any",
  lengths: "any",
  batchFirst: "boolean",
  gates: "any",
  states: "any",
  dOutput: "any",
  dHN: "any",
  gradients: "any",
  dX: "any",
  dH0: "any",
  parameters: "any",
  maxDispatchFlops: "number",
  label: "string",
};

/** The names of all members of a problem. */
export const LSTM_BACKWARD_PROBLEM: OptionNames<LstmBackwardProblem> = {
  ...GRU_BACKWARD_PROBLEM,
  dCN: "any",
  dC0: "any",
};

/** Memory for one run of a plan: tensors that look as the plan was told. */
export interface GruBackwardBindings {
  readonly x?: Tensor;
  readonly weights?: RecurrentWeights;
  readonly lengths?: Tensor;
  readonly gates?: Tensor;
  readonly states?: Tensor;
  /** Bound only if the plan was made with it, as dHN. */
  readonly dOutput?: Tensor;
  readonly dHN?: Tensor;
  /** Bound only if the plan computes it, as are the members that follow. */
  readonly dX?: Tensor;
  readonly dH0?: Tensor;
  readonly parameters?: RecurrentWeights;
}

/** The same for an LSTM. */
export interface LstmBackwardBindings extends GruBackwardBindings {
  readonly dCN?: Tensor;
  readonly dC0?: Tensor;
}

/** A checked problem. */
export interface ResolvedBackward extends ResolvedNetwork {
  readonly maxDispatchFlops: number;
  readonly asked: ReadonlySet<LstmGradient>;
  /** What the plan reads beside x, weights and lengths. */
  readonly reads: ReadonlyMap<"gates" | "states" | "dOutput" | "dHN" | "dCN", ResolvedSpec>;
  /** What it writes, by the names of operands: dX, dH0, dC0, and `parameters.weight_ih_l0`. */
  readonly results: ReadonlyMap<string, ResolvedSpec>;
}

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveBackward(
  label: string,
  cell: CellKind,
  problem: Taken<LstmBackwardProblem>,
): ResolvedBackward {
  const maxDispatchFlops = checkedFlops(label, problem.maxDispatchFlops);
  const network = resolveNetwork(label, cell, problem);
  const isLstm = cell === "lstm";
  const known = { dX: true, dH0: true, dC0: isLstm || undefined, parameters: true };
  const asked = gradientsOf<LstmGradient>(label, problem.gradients, known);
  const { dX, dH0, dC0, parameters } = problem;
  expectAsked(label, asked, { dX, dH0, dC0, parameters });
  const shapes = shapesOf(network);
  const why = ofNetwork(network);
  const reads = new Map<"gates" | "states" | "dOutput" | "dHN" | "dCN", ResolvedSpec>();
  for (const name of ["gates", "states"] as const) {
    const spec = problem[name]
      ? checkedSpec(label, name, problem[name])
      : resolveSpec(label, { shape: shapes[name], dtype: "f32" });
    expectShape(label, name, spec, shapes[name], why);
    expectDense(label, name, spec);
    reads.set(name, spec);
  }
  for (const name of ["dOutput", "dHN", "dCN"] as const) {
    if (problem[name] === undefined) continue;
    const spec = checkedSpec(label, name, problem[name]);
    expectShape(label, name, spec, name === "dOutput" ? shapes.output : shapes.ends, why);
    reads.set(name, spec);
  }
  check(
    reads.size > 2,
    "argument",
    () =>
      `${label}: give the gradient of a result: dOutput, dHN${isLstm ? " or dCN" : ""}. There is none.`,
  );
  const results = new Map<string, ResolvedSpec>();
  const result = (
    name: string,
    given: TensorSpec | undefined,
    like: { readonly shape: readonly number[]; readonly dtype: Dtype },
    dtypes?: readonly Dtype[],
  ) => {
    const spec = given ? checkedSpec(label, name, given, dtypes) : resolveSpec(label, like);
    expectShape(label, name, spec, like.shape, why);
    expectApart(label, name, spec);
    results.set(name, spec);
  };
  const { x } = network;
  if (asked.has("dX")) result("dX", dX, { shape: x.shape, dtype: x.dtype }, FLOATS);
  for (const name of ["dH0", "dC0"] as const)
    if (asked.has(name)) result(name, problem[name], { shape: shapes.ends, dtype: "f32" });
  if (asked.has("parameters")) {
    const given = (parameters ?? {}) as Readonly<Record<string, TensorSpec | undefined>>;
    const stray = Object.keys(given).find((name) => !network.weights.has(name));
    check(
      stray === undefined,
      "argument",
      () =>
        `${label}: parameters has no use for ${stray}; weights has ${[...network.weights.keys()].join(", ")}.`,
    );
    for (const [name, { shape, dtype }] of network.weights)
      result(`parameters.${name}`, given[name], { shape, dtype }, FLOATS);
  }
  return { ...network, maxDispatchFlops, asked, reads, results };
}
