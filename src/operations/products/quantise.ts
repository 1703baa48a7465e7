// Weights as integers with scales.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { pointwiseWorkgroups } from "../../kernels/pointwise.ts";
import { quantiseSpecialisation } from "../../kernels/products/quantise.ts";
import { rowKernel } from "../../kernels/rows.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkedSpec, expectShape, FLOATS, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { layRows, rowNumbers, withHeads } from "../row_axes.ts";
import {
  checkedIntegers,
  INTEGER_BITS,
  type WeightQuantisation,
  wordsOf,
} from "./weight_integers.ts";

/** What a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface QuantiseProblem extends WeightQuantisation {
  /** [N, K] f32, f16 or bf16, at any strides. A tensor, or what it will look like. */
  readonly weight: TensorSpec;
  /** u32 [N, K / groupSize + K bits / 32], dense. Default: dense. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"quantise"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const QUANTISE_PROBLEM: OptionNames<QuantiseProblem> = {
  weight: "any",
  dtype: "string",
  groupSize: "number",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface QuantiseBindings {
  readonly weight?: Tensor;
  readonly output?: Tensor;
}

/** A compiled quantisation of a weight. */
export type QuantisePlan = Plan<QuantiseBindings>;

/**
 * Compiles the quantisation of a weight, as {@link WeightQuantisation} says: each integer is the
 * nearest one, ties to even, on every device. A group with a NaN or an infinity becomes NaN, and
 * one whose magnitudes are all below 2^-118 becomes 0.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 */
export function planQuantise(device: GPUDevice, problem: QuantiseProblem): Promise<QuantisePlan> {
  return QUANTISE.plan(device, problem);
}

interface ResolvedQuantise {
  readonly weight: ResolvedSpec;
  readonly output: ResolvedSpec;
  readonly bits: 8 | 4;
  readonly group: number;
}

const QUANTISE = operation<
  QuantiseProblem,
  QuantiseBindings,
  ResolvedQuantise,
  { readonly output: Tensor<"u32"> }
>({
  name: "quantise",
  problem: QUANTISE_PROBLEM,
  resolve,
  tensors({ add }, { weight, output }, problem) {
    add("output", output, problem.output, true);
    add("weight", weight, problem.weight);
  },
  kernel,
  results: ({ output }) => ({ output }),
});

function resolve(problem: QuantiseProblem, { label }: Caller): ResolvedQuantise {
  const { dtype, groupSize } = problem;
  const weight = checkedSpec(label, "weight", problem.weight, FLOATS);
  check(
    weight.shape.length === 2,
    "argument",
    () => `${label}: weight must be [N, K], got [${weight.shape.join(", ")}].`,
  );
  const [rows, inner] = weight.shape;
  const integers = checkedIntegers(label, { dtype, groupSize }, inner);
  const shape = [rows, wordsOf(inner, integers)];
  const dense = resolveSpec("output", { shape, dtype: "u32" });
  const output = problem.output ? checkedSpec(label, "output", problem.output, ["u32"]) : dense;
  expectShape(label, "output", output, shape, `for weight [${weight.shape.join(", ")}]`);
  check(
    output.strides.every((stride, axis) => stride === dense.strides[axis]),
    "argument",
    () => `${label}: output must be dense, got strides [${output.strides}].`,
  );
  return { weight, output, bits: INTEGER_BITS[dtype], group: integers.group };
}

function kernel({ weight, output, bits, group }: ResolvedQuantise, { device }: Caller): Stage {
  const [rows, inner] = weight.shape;
  const result = rowNumbers(device, "result", { ...output, strides: [0, 0, output.shape[1]] });
  const laid = layRows(
    device,
    { specs: { source: withHeads(weight) }, rows, width: inner },
    result,
  );
  return {
    source: rowKernel("quantise", quantiseSpecialisation(laid.accesses.source, { bits, group })),
    names: { source: "weight", words: "output" },
    params: laid.params,
    workgroups: pointwiseWorkgroups(rows, (4 * inner) / group),
  };
}

/**
 * Quantises a weight into words, which have the shape that `planQuantise` says. Resolves once the
 * GPU has accepted the work.
 */
export async function quantiseInto(
  weight: Tensor,
  output: Tensor,
  quantised: WeightQuantisation,
): Promise<void> {
  const { device, label } = output;
  const problem = { weight, output, label, ...quantised };
  await QUANTISE.run({ device, name: label, problem, options: { output } });
}
