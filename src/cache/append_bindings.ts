// The bindings of one run of an append: counts and tensors, checked before anything is counted or
// recorded.

import { check, show } from "../errors.ts";
import { numbersOf } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { Operands } from "../plan/operand.ts";
import { checkOperand, checkOverlap, checkUsed } from "../plan/operand_checks.ts";
import type { AppendBindings, AppendTarget, ResolvedAppend } from "./append_problem.ts";

/**
 * The counts of a run as the kernel needs them, undefined for all rows; and the most rows that each
 * entry can get.
 */
export interface AppendCounts {
  readonly counts: readonly number[] | Tensor | undefined;
  readonly most: readonly number[];
}

const BINDABLE: ReadonlySet<string> = new Set(["k", "v", "q", "qOutput", "positionIds", "counts"]);

/** Checked counts, copied. */
export function countsOf(
  { label, seqQ }: Pick<ResolvedAppend, "label" | "seqQ">,
  batch: number,
  given: AppendBindings["counts"],
): AppendCounts {
  const all = (count: number) => new Array<number>(batch).fill(count);
  if (given === undefined) return { counts: undefined, most: all(seqQ) };
  if (given instanceof Tensor) return { counts: given, most: all(seqQ) };
  const list = typeof given === "number" ? all(given) : numbersOf(given);
  check(
    Array.isArray(list) &&
      list.length === batch &&
      list.every((n) => Number.isInteger(n) && n >= 0 && n <= seqQ),
    "argument",
    () =>
      `${label}: counts must be ${batch} whole numbers (one a batch entry) from 0 to ${seqQ}, the rows of k, or a tensor of them, got ${show(given)}.`,
  );
  const copy = [...list];
  return { counts: copy.every((count) => count === seqQ) ? undefined : copy, most: copy };
}

/**
 * The tensors of a run by the names of their operands: live, as planned, and apart from the cache
 * and each other. Throws FoveaError that names what is wrong.
 */
export function boundTensors(
  target: AppendTarget,
  append: ResolvedAppend,
  bindings: AppendBindings,
) {
  const { label, operands } = append;
  checkUsed(label, BINDABLE, bindings);
  const tensors = new Map<string, Tensor>();
  for (const [name, operand] of operands) {
    const given = bindings[name as keyof AppendBindings] ?? operand.fallback;
    if (name === "counts" && !(given instanceof Tensor)) continue;
    checkOperand(`${label}: ${name}`, target.device, operand, given as Tensor | undefined);
    tensors.set(name, given as Tensor);
  }
  for (const name of ["counts", "q", "qOutput", "positionIds"] as const) {
    check(
      bindings[name] === undefined || !(bindings[name] instanceof Tensor) || operands.has(name),
      "argument",
      () => `${label}: the plan was made without a tensor for ${name}.`,
    );
  }
  const { k, v, state } = target.source;
  for (const [name, tensor] of tensors) {
    check(
      [k, v, state].every(({ buffer }) => buffer !== tensor.buffer),
      "overlap",
      () =>
        `${label}: ${name} is in the memory of ${target.label}; copy rows within a cache with forkEntry().`,
    );
  }
  // Here names only go into messages.
  checkOverlap(label, operands as Operands, tensors as ReadonlyMap<string, Tensor>);
  return tensors;
}
