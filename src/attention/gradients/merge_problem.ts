// The problem of a merge's gradients: its tensors, checked before the GPU sees any of them.

import { check, show } from "../../errors.ts";
import { elementsOfList, isRecord, type OptionNames, readGiven } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Caller } from "../../plan/operation.ts";
import type { TensorSpec } from "../../types.ts";
import {
  type MergeOperand,
  type MergeProblem,
  mergeTensors,
  type PartialAttention,
  takePartials,
} from "../merge_problem.ts";

/** The gradients of one partial result, or what they look like. */
export interface PartialGradients<T> {
  /** [B, H, M, Dv] f32: of the partial output. */
  readonly dOutput?: T;
  /** [B, H, M] f32: of the partial log-sum-exp. */
  readonly dLse?: T;
}

/** The gradients of a merge that a plan is made for. */
export interface MergeBackwardProblem
  extends Pick<MergeProblem, "partials" | "infinityIsEmpty" | "layout"> {
  /** [B, H, M, Dv] f32: what the merge gave. Default: dense. */
  readonly output?: TensorSpec;
  /** [B, H, M, Dv] f32: the gradient of the merged output. Default: dense. */
  readonly dOutput?: TensorSpec;
  /** [B, H, M] f32: the gradient of the merged LSE, `true` for a dense tensor. Default: none. */
  readonly dLse?: boolean | TensorSpec;
  /** The gradients of each partial result, as many as there are partials. Default: dense. */
  readonly dPartials?: readonly PartialGradients<TensorSpec>[];
  /** Name of the plan's GPU objects in errors and captures. Default `"mergeAttentionBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const MERGE_BACKWARD_PROBLEM: OptionNames<MergeBackwardProblem> = {
  partials: "any",
  output: "any",
  dOutput: "any",
  dLse: "any",
  dPartials: "any",
  infinityIsEmpty: "boolean",
  layout: "string",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface MergeBackwardBindings {
  /** The partial results, as many as the plan has. */
  readonly partials?: readonly PartialAttention[];
  readonly output?: Tensor;
  readonly dOutput?: Tensor;
  /** Needed if the plan was made with it. */
  readonly dLse?: Tensor;
  readonly dPartials?: readonly PartialGradients<Tensor>[];
}

/** Checked gradients of a merge. */
export interface ResolvedMergeBackward {
  readonly operands: readonly MergeOperand<MergeBackwardBindings>[];
  readonly partials: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly vDim: number;
  /** B * H * M */
  readonly rows: number;
  readonly infinityIsEmpty: boolean;
}

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveMergeBackward(
  problem: MergeBackwardProblem,
  caller: Caller,
): ResolvedMergeBackward {
  const { layout = "bhmd", infinityIsEmpty = false, output, dOutput, dLse } = problem;
  const partials = takePartials(caller.label, problem.partials);
  const gradients = takeGradients(caller.label, problem.dPartials, partials.length);
  const merge = mergeTensors<MergeBackwardBindings>(caller, layout, partials);
  const { operands, add, shape, lseShape, sizes } = merge;
  const dense = { shape: lseShape };
  add("output", output ?? { shape }, (bindings) => bindings.output);
  add("dOutput", dOutput ?? { shape }, (bindings) => bindings.dOutput);
  if (dLse) add("dLse", dLse === true ? dense : dLse, (bindings) => bindings.dLse);
  for (const [index, given] of gradients.entries()) {
    const name = `dPartials[${index}]`;
    const of = ({ dPartials }: MergeBackwardBindings) => dPartials?.[index];
    add(`${name}.dOutput`, given.dOutput ?? { shape }, (bindings) => of(bindings)?.dOutput, true);
    add(`${name}.dLse`, given.dLse ?? dense, (bindings) => of(bindings)?.dLse, true);
  }
  return { operands, partials: partials.length, ...sizes, infinityIsEmpty };
}

/** The names of the gradients of a partial result. */
const GRADIENTS: OptionNames<PartialGradients<TensorSpec>> = { dOutput: "any", dLse: "any" };

/** A copy of what the gradients of partials look like. Throws FoveaError unless it is a list. */
export function takeGradients<T>(
  label: string,
  given: readonly PartialGradients<T>[] | undefined,
  partials: number,
): readonly PartialGradients<T>[] {
  if (given === undefined) return new Array<PartialGradients<T>>(partials).fill({});
  const list = elementsOfList<PartialGradients<T>>(given);
  check(
    list !== undefined && list.length === partials,
    "argument",
    () =>
      `${label}: dPartials must be a list of ${partials} of { dOutput, dLse }, one for each partial, got ${list ? list.length : show(given)}.`,
  );
  return list.map((one, index) => {
    const what = `${label}: dPartials[${index}]`;
    check(isRecord(one), "argument", () => `${what} must be { dOutput, dLse }, got ${show(one)}.`);
    const { options, unknown } = readGiven<PartialGradients<TensorSpec>>(
      what,
      one as PartialGradients<TensorSpec>,
      GRADIENTS,
    );
    check(
      unknown === undefined,
      "argument",
      () => `${what} has dOutput and dLse, and no ${show(unknown)}.`,
    );
    return options as PartialGradients<T>;
  });
}
