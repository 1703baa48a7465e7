// The tensors of a plan: how each must look, how the kernel addresses it, and what is bound.

import { tensor } from "../gpu/make_tensor.ts";
import { Tensor, type TensorOptions } from "../gpu/tensor.ts";
import type { Operand, Operands } from "../plan/operand.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingBase, checkBindingLimit, type ResolvedSpec, reorder } from "../plan/specs.ts";
import type { TableCopy, TablePlaces } from "../scores/resolved.ts";
import type { AttentionProblem, ScoreProblem, TakenProblem, TakenScoreProblem } from "./problem.ts";
import type { ResolvedProblem, ResolvedScores } from "./resolved.ts";

/** The tensors of a plan. */
export interface PlanMemory {
  readonly operands: Operands;
  /** The tensors that the plan owns. */
  readonly owned: readonly Tensor[];
  readonly places: TablePlaces;
  readonly copies: readonly TableCopy[];
  /** Captured numbers, by the names of their bindings, as uniforms hold them. */
  readonly numbers: readonly (readonly [name: string, bytes: ArrayBuffer])[];
}

/** A tensor that the caller binds beside q, k and the tensors of options. */
export interface Asked {
  readonly name: string;
  /** The layout, with axes in the caller's order. */
  readonly spec: ResolvedSpec;
  /** The value that the caller gave; it may be a tensor. */
  readonly given: unknown;
  readonly written: boolean;
}

/**
 * What a plan has beside q, k and the tensors of options: other tensors of the caller, and scratch
 * memory of a shape.
 */
export interface Wanted {
  readonly asked: readonly Asked[];
  readonly workspace?: readonly number[] | undefined;
}

/** The tensors that attention reads and writes beside q, k and those of options. */
export function attentionTensors(problem: TakenProblem, resolved: ResolvedProblem): Asked[] {
  const { layout, v, output, lse, rowMax, cache } = resolved;
  const given = cache?.v ?? (problem as AttentionProblem).v;
  return [
    { name: "v", spec: cache?.v ?? reorder(v, layout), given, written: false },
    { name: "output", spec: reorder(output, layout), given: problem.output, written: true },
    ...(lse ? [{ name: "lse", spec: lse, given: problem.lse, written: true } as const] : []),
    ...(rowMax
      ? [{ name: "rowMax", spec: rowMax, given: problem.rowMax, written: true } as const]
      : []),
  ];
}

/** The operands of a problem, and the tensors that the plan has to own for them. */
export function operandsOf(
  device: GPUDevice,
  problem: TakenScoreProblem,
  resolved: ResolvedScores,
  { asked, workspace }: Wanted,
): PlanMemory {
  const operands = new Map<string, Operand>();
  const owned: Tensor[] = [];
  const given = (value: unknown) => (value instanceof Tensor ? value : undefined);
  const add = (name: string, spec: ResolvedSpec, fallback: Tensor | undefined, written = false) => {
    const operand = { spec, base: bindingBase(device, spec), fallback, written };
    checkBindingLimit(resolved.label, name, device, spec);
    if (fallback) checkOperand(`${resolved.label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  };
  const { layout, options, cache, extension } = resolved;
  add("q", reorder(resolved.q, layout), given(problem.q));
  if (cache) {
    add("k", cache.k, cache.k);
    add("kvState", cache.state, cache.state);
  } else add("k", reorder(resolved.k, layout), given((problem as ScoreProblem).k));
  for (const { name, spec, given: tensorOrNot, written } of asked)
    add(name, spec, given(tensorOrNot), written);
  for (const { operand } of options) if (operand) add(operand.name, operand.spec, operand.fallback);
  const laid = extension?.layTables(options.flatMap(({ tables }) => tables ?? []));
  for (const { from, values } of laid?.tensors ?? []) add(from, values, values);
  const functions = options.flatMap(({ calls }) => calls ?? []);
  const numbers = extension?.capturesOf(device, resolved.label, functions, add) ?? [];
  const own = (name: string, shape: readonly number[], options: TensorOptions, written = false) => {
    const made = tensor(device, shape, { ...options, label: `${resolved.label} ${name}` });
    owned.push(made);
    add(name, made, made, written);
  };
  // Allocation comes last, after the caller's tensors were checked, because nothing would free the
  // memory yet.
  try {
    if (laid?.words.length)
      own("tables", [laid.words.length], { dtype: "i32", data: laid.words }, true);
    if (workspace) own("workspace", workspace, {}, true);
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
  return { operands, owned, places: laid?.places ?? {}, copies: laid?.tensors ?? [], numbers };
}
