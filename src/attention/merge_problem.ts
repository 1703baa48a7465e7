// The problem of a merge: its tensors, checked before the GPU sees any of them, and the uniform of
// each dispatch.

import { check, show } from "../errors.ts";
import { elementsOfList, isRecord, type OptionNames, readGiven } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { MERGE_FOLD, MERGE_PARAMS, MERGE_ROW_TILE, mergeKernel } from "../kernels/merge.ts";
import type { Operand } from "../plan/operand.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import type { Caller, Stage } from "../plan/operation.ts";
import type { PlanHooks } from "../plan/plan.ts";
import {
  bindingBase,
  checkBindingLimit,
  checkedSpec,
  checkLayout,
  expectApart,
  expectShape,
  type ResolvedSpec,
  reorder,
  toBhmd,
} from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";

/**
 * The merge that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface MergeProblem {
  /**
   * Results of attention over disjoint sets of keys, one or more: output [B, H, M, Dv] and lse
   * [B, H, M], f32, all of the same shape. Tensors, or what they will look like. A result without
   * its `lse` is refused. A row that has no key has LSE -Infinity (see `infinityIsEmpty`), and its
   * output is not read. Sinks are part of an LSE: give them to one of the results only, because
   * they count once for each result that has them.
   */
  readonly partials: readonly { readonly output: TensorSpec; readonly lse?: TensorSpec }[];
  /** [B, H, M, Dv]. Default: dense. */
  readonly output?: TensorSpec;
  /** [B, H, M]. Default: dense. */
  readonly lse?: TensorSpec;
  /**
   * Take an LSE of +Infinity for a row without a key, as FlashAttention 2 marks one, like
   * -Infinity. Default false: it makes the merged row NaN, as does an LSE that is NaN.
   */
  readonly infinityIsEmpty?: boolean;
  /** Axis order of all outputs; their shapes are then given in that order. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Name of the plan's GPU objects in errors and captures. Default `"mergeAttention"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const MERGE_PROBLEM: OptionNames<MergeProblem> = {
  partials: "any",
  output: "any",
  lse: "any",
  infinityIsEmpty: "boolean",
  layout: "string",
  label: "string",
};
/**
 * Attention over a part of the keys: a result of `attention` with the option `{ lse: true }`, or
 * tensors like it.
 */
export interface PartialAttention {
  readonly output: Tensor;
  readonly lse?: Tensor;
}

/**
 * Memory for one run of a merge plan: tensors that look as the plan was told. The tensors that it
 * was made with are the default.
 */
export interface MergeBindings {
  /** The partial results, as many as the plan merges. */
  readonly partials?: readonly PartialAttention[];
  readonly output?: Tensor;
  readonly lse?: Tensor;
}

/** A tensor of a merge, or of its gradients. */
export interface MergeOperand<Bindings = MergeBindings> extends Operand {
  /** Its name in messages: `partials[1].lse`. */
  readonly name: string;
  /** Elements from one batch entry, head, row and column to the next. */
  readonly strides: readonly number[];
  /** Gives the tensor that a run binds for it. */
  pick(bindings: Bindings): Tensor | undefined;
}

/** A checked merge. */
export interface ResolvedMerge {
  /**
   * Partial i has its output at 2 i and its LSE at 2 i + 1; the merged output and LSE come last.
   */
  readonly operands: readonly MergeOperand[];
  readonly partials: number;
  readonly heads: number;
  readonly seqQ: number;
  readonly vDim: number;
  /** B * H * M */
  readonly rows: number;
  readonly infinityIsEmpty: boolean;
}

/** Checks a merge and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveMerge(problem: MergeProblem, caller: Caller): ResolvedMerge {
  const { layout = "bhmd", infinityIsEmpty = false } = problem;
  const partials = takePartials(caller.label, problem.partials);
  const merge = mergeTensors<MergeBindings>(caller, layout, partials);
  const { operands, add, shape, lseShape, sizes } = merge;
  add("output", problem.output ?? { shape }, (bindings) => bindings.output, true);
  add("lse", problem.lse ?? { shape: lseShape }, (bindings) => bindings.lse, true);
  return { operands, partials: partials.length, ...sizes, infinityIsEmpty };
}

/** What partials are picked from. */
type WithPartials = Pick<MergeBindings, "partials">;

/** Checks partial results, and gives a function that adds other tensors of their shapes. */
export function mergeTensors<Bindings extends WithPartials>(
  { device, label }: Caller,
  layout: Layout,
  partials: MergeProblem["partials"],
) {
  checkLayout(label, layout);
  const first = toBhmd(label, "partials[0].output", partials[0].output, layout);
  const [batch, heads, seqQ, vDim] = first.shape;
  const { shape } = reorder(first, layout);
  const lseShape = [batch, heads, seqQ];
  check(
    vDim >= 1,
    "argument",
    () => `${label}: head dims start at 1: partials[0].output is [${shape}].`,
  );

  const operands: MergeOperand<Bindings>[] = [];
  /** Adds a tensor of outputs, by the end of its name, or one of LSEs. */
  const add = (
    name: string,
    given: TensorSpec,
    pick: MergeOperand<Bindings>["pick"],
    written = false,
  ) => {
    const isOutput = /output$/i.test(name);
    const spec = checkedSpec(label, name, given);
    const why = isOutput
      ? "like partials[0].output"
      : `for partials[0].output [${shape.join(", ")}]`;
    expectShape(label, name, spec, isOutput ? shape : lseShape, why);
    if (written) expectApart(label, name, spec);
    checkBindingLimit(label, name, device, spec);
    const fallback = given instanceof Tensor ? given : undefined;
    const strides = stridesOf(isOutput ? reorder(spec, layout) : spec);
    const operand = {
      name,
      spec,
      strides,
      base: bindingBase(device, spec),
      fallback,
      written,
      pick,
    };
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.push(operand);
  };
  for (const [index, { output, lse }] of partials.entries()) {
    const name = `partials[${index}]`;
    add(`${name}.output`, output, (bindings) => bindings.partials?.[index]?.output);
    add(`${name}.lse`, lse as TensorSpec, (bindings) => bindings.partials?.[index]?.lse);
  }
  return {
    operands,
    add,
    shape,
    lseShape,
    sizes: { heads, seqQ, vDim, rows: batch * heads * seqQ },
  };
}

/** The hooks of a plan of partial results, which are lists in bindings. */
export function mergeHooks<Bindings extends WithPartials>(
  label: string,
  operands: readonly MergeOperand<Bindings>[],
  { partials, names }: { readonly partials: number; readonly names: readonly string[] },
): PlanHooks<Bindings> {
  const named = new Map(operands.map((operand) => [operand.name, operand]));
  // Members of lists are bound with their list, but results have to be known by their names.
  const alone = operands.filter(({ name, written }) => written || !name.includes("["));
  return {
    bindable: new Set([...names, ...alone.map(({ name }) => name)]),
    boundBy: (bindings, name) => named.get(name)?.pick(bindings),
    check(bindings) {
      for (const name of names) {
        const given: unknown = (bindings as Readonly<Record<string, unknown>>)[name];
        const count = Array.isArray(given) ? given.length : partials;
        check(count === partials, "argument", () =>
          name === "partials"
            ? `${label}: the plan merges ${partials} partials, got ${count}.`
            : `${label}: the plan has ${partials} of ${name}, got ${count}.`,
        );
      }
    },
  };
}

/** The names of a partial result. */
const PARTIAL: OptionNames<MergeProblem["partials"][number]> = { output: "any", lse: "any" };

/** A copy of partial results. Throws FoveaError unless there are some, each with an LSE. */
export function takePartials<Partial extends MergeProblem["partials"][number]>(
  label: string,
  given: readonly Partial[],
): readonly Partial[] {
  const partials = elementsOfList<Partial>(given);
  check(
    partials !== undefined && partials.length > 0,
    "argument",
    () =>
      `${label}: partials must be a list of one or more results { output, lse }, got ${partials ? "an empty one" : show(given)}.`,
  );
  return partials.map((partial, index) => {
    check(
      isRecord(partial),
      "argument",
      () => `${label}: partials[${index}] must be { output, lse }, got ${show(partial)}.`,
    );
    const { options } = readGiven<MergeProblem["partials"][number]>(
      `${label}: partials[${index}]`,
      partial,
      PARTIAL,
    );
    check(
      options.lse !== undefined,
      "argument",
      () =>
        `${label}: partials[${index}] has no lse. attention() gives it with the option { lse: true }.`,
    );
    return options as Partial;
  });
}

/** The stride of an axis with one index is never taken; an LSE has no columns. */
const stridesOf = ({ shape, strides }: ResolvedSpec): number[] =>
  [0, 1, 2, 3].map((axis) => (shape[axis] > 1 ? strides[axis] : 0));

/** Bits of f32. */
const INFINITY_BITS = 0x7f800000;
const NEGATIVE_INFINITY_BITS = 0xff800000;

/** Bits of an LSE that stand for a row without a key, beside those of -Infinity. */
export const bitsOfEmpty = (infinityIsEmpty: boolean): number =>
  infinityIsEmpty ? INFINITY_BITS : NEGATIVE_INFINITY_BITS;

/**
 * A dispatch for each few partials: the first one merges its own, and the others add theirs to the
 * result.
 */
export function mergeStages(merge: ResolvedMerge): Stage[] {
  const { operands, partials, heads, seqQ, vDim, rows, infinityIsEmpty } = merge;
  const count = Math.ceil(partials / MERGE_FOLD);
  const [o, lse] = operands.slice(2 * partials);
  return Array.from({ length: count }, (_, index): Stage => {
    const first = MERGE_FOLD * index;
    // If only one partial is left, it is bound twice and read once.
    const last = Math.min(first + MERGE_FOLD, partials) - 1;
    const [o_0, lse_0] = operands.slice(2 * first);
    const [o_1, lse_1] = operands.slice(2 * last);
    const bound = Object.entries({ o_0, lse_0, o_1, lse_1, o, lse });
    const values = {
      o_strides: o.strides,
      o_0_strides: o_0.strides,
      o_1_strides: o_1.strides,
      lse_strides: lse.strides,
      lse_0_strides: lse_0.strides,
      lse_1_strides: lse_1.strides,
      o_base: o.base,
      o_0_base: o_0.base,
      o_1_base: o_1.base,
      lse_base: lse.base,
      lse_0_base: lse_0.base,
      lse_1_base: lse_1.base,
      n_heads: heads,
      seq_q: seqQ,
      v_dim: vDim,
      rows,
      partials: last - first + 1,
      first: Number(index === 0),
      last: Number(index === count - 1),
      empty: bitsOfEmpty(infinityIsEmpty),
    };
    return {
      source: mergeKernel(),
      names: Object.fromEntries(bound.map(([binding, { name }]) => [binding, name])),
      params: { struct: MERGE_PARAMS, values },
      workgroups: Math.max(1, Math.ceil(rows / MERGE_ROW_TILE)),
    };
  });
}
