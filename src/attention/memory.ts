// The tensors of a plan: how each must look, how the kernel addresses it, and what is bound.

import { Tensor, type TensorOptions, tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingBase, checkBindingLimit, type ResolvedSpec, reorder } from "../plan/specs.ts";
import type { KvSourceOwner } from "./kv_source.ts";
import type {
  AttentionProblem,
  ResolvedProblem,
  ResolvedScores,
  ScoreProblem,
  TakenProblem,
  TakenScoreProblem,
} from "./problem.ts";

/**
 * Memory for one run of a plan. Each tensor must look as the plan was told: same shape, strides and dtype, and the same
 * distance from a multiple of the device's binding alignment (256 bytes). A tensor that the plan was made with is the
 * default.
 */
export interface AttentionBindings {
  readonly q?: Tensor;
  readonly k?: Tensor;
  readonly v?: Tensor;
  readonly output?: Tensor;
  /** Another cache than the plan was made with, of the same make. */
  readonly cache?: KvSourceOwner;
  /** If the plan was asked for it. */
  readonly lse?: Tensor;
  readonly rowMax?: Tensor;
  /** Of the best keys. */
  readonly indices?: Tensor;
  readonly weights?: Tensor;
  /** These if the plan was made with a tensor for it. */
  readonly mask?: Tensor;
  readonly bias?: Tensor;
  readonly qLengths?: Tensor;
  readonly kvLengths?: Tensor;
  readonly queryOffset?: Tensor;
  readonly cuSeqlensQ?: Tensor;
  readonly cuSeqlensKv?: Tensor;
  readonly alibiSlopes?: Tensor;
  readonly sinks?: Tensor;
  /** Of the similarity. */
  readonly temperature?: Tensor;
  readonly logTemperature?: Tensor;
  readonly qWeights?: Tensor;
  readonly kWeights?: Tensor;
  readonly vector?: Tensor;
  readonly innerBias?: Tensor;
  readonly gain?: Tensor;
  /** The table of the relative bias. */
  readonly relativeBias?: Tensor;
  /** Tensors in place of those that the functions captured, by name. */
  readonly captures?: Readonly<Record<string, Tensor>>;
}

/**
 * The tensors of a plan, of attention or of another operation: what a caller binds, and those that are the plan's own or
 * were given with it.
 */
export type OperandName =
  | Exclude<keyof AttentionBindings, "captures" | "cache">
  | `captures.${string}`
  | "x"
  | "residual"
  | "residualBias"
  | "factor"
  | "update"
  | "reset"
  | "scale"
  | "sum"
  | "statistics"
  | "weight"
  | "table"
  | "cos"
  | "sin"
  | "positionIds"
  | "positionOffset"
  | "positions"
  | "angles"
  | "query"
  | "key"
  | "value"
  | "weightsOutput"
  | "ignoreMask"
  | "keyMask"
  | "ignoreKeyMask"
  | "workspace"
  | "tables"
  | "kvState"
  | "blocks";

/** What is a plan's own, and not the caller's to bind. */
export const OWN: readonly OperandName[] = ["workspace", "tables", "blocks", "positions", "angles", "kvState"];

/** A tensor of the plan. */
export interface Operand {
  /** In the caller's axis order. */
  readonly spec: ResolvedSpec;
  /** Elements from the start of the binding, which is aligned, to the first element. */
  readonly base: number;
  /** Bound where the caller gives none: a tensor that the plan was made with, or one of the plan's own. */
  readonly fallback: Tensor | undefined;
  readonly written: boolean;
}

export type Operands = ReadonlyMap<OperandName, Operand>;

/** Where the tables lie, as the params say it. */
export type TablePlaces = Partial<Params>;

/** A tensor whose elements have to be copied into the tables in every run. */
export interface TableCopy {
  readonly from: OperandName;
  /** Word of the tables. */
  readonly at: number;
}

/** The tensors of a plan. */
export interface PlanMemory {
  readonly operands: Operands;
  /** The plan's own. */
  readonly owned: readonly Tensor[];
  readonly places: TablePlaces;
  readonly copies: readonly TableCopy[];
  /** Captured numbers, by the names of their bindings, as uniforms hold them. */
  readonly numbers: readonly (readonly [name: string, bytes: ArrayBuffer])[];
}

/** A tensor that the caller binds beside q, k and what the options bring. */
export interface Asked {
  readonly name: OperandName;
  /** In the caller's axis order. */
  readonly spec: ResolvedSpec;
  /** What the caller gave for it: maybe a tensor. */
  readonly given: unknown;
  readonly written: boolean;
}

/** What attention reads and writes. */
export function attentionTensors(problem: TakenProblem, resolved: ResolvedProblem): Asked[] {
  const { layout, v, output, lse, rowMax, source } = resolved;
  const given = source?.v ?? (problem as AttentionProblem).v;
  return [
    { name: "v", spec: source?.v ?? reorder(v, layout), given, written: false },
    { name: "output", spec: reorder(output, layout), given: problem.output, written: true },
    ...(lse ? [{ name: "lse", spec: lse, given: problem.lse, written: true } as const] : []),
    ...(rowMax ? [{ name: "rowMax", spec: rowMax, given: problem.rowMax, written: true } as const] : []),
  ];
}

/** The operands of a problem, and the tensors that the plan has to own for them. */
export function operandsOf(
  device: GPUDevice,
  problem: TakenScoreProblem,
  resolved: ResolvedScores,
  asked: readonly Asked[],
  workspace?: readonly number[],
): PlanMemory {
  const operands = new Map<OperandName, Operand>();
  const owned: Tensor[] = [];
  const given = (value: unknown) => (value instanceof Tensor ? value : undefined);
  const add = (name: OperandName, spec: ResolvedSpec, fallback: Tensor | undefined, written = false) => {
    const operand = { spec, base: bindingBase(device, spec), fallback, written };
    checkBindingLimit(resolved.label, name, device, spec);
    if (fallback) checkOperand(`${resolved.label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  };
  const { layout, tables, source, extension } = resolved;
  add("q", reorder(resolved.q, layout), given(problem.q));
  if (source) {
    add("k", source.k, source.k);
    add("kvState", source.state, source.state);
  } else add("k", reorder(resolved.k, layout), given((problem as ScoreProblem).k));
  for (const { name, spec, given: tensorOrNot, written } of asked) add(name, spec, given(tensorOrNot), written);
  if (resolved.mask) add("mask", resolved.mask, given(problem.mask));
  if (resolved.bias) add("bias", resolved.bias, given(problem.bias));
  const laid = extension?.layTables(tables);
  for (const { from, values } of laid?.tensors ?? []) add(from, values, values);
  if (problem.blockMask) add("blocks", problem.blockMask.blocks, problem.blockMask.blocks);
  const numbers = extension?.capturesOf(device, resolved.label, problem, add) ?? [];
  const own = (name: OperandName, shape: readonly number[], options: TensorOptions, written = false) => {
    const made = tensor(device, shape, { ...options, label: `${resolved.label} ${name}` });
    owned.push(made);
    add(name, made, made, written);
  };
  // Last, when nothing of the caller's is wrong: there is nobody yet to free them.
  try {
    if (laid?.words.length) own("tables", [laid.words.length], { dtype: "i32", data: laid.words }, true);
    if (workspace) own("workspace", workspace, {}, true);
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
  return { operands, owned, places: laid?.places ?? {}, copies: laid?.tensors ?? [], numbers };
}

/** Whether the rows of a tensor are sequences of aligned vec4s. */
export function isDense({ spec, base }: Pick<Operand, "spec" | "base">): boolean {
  const rowAxis = spec.shape.length - 1;
  return (
    spec.shape[rowAxis] % 4 === 0 &&
    spec.strides[rowAxis] === 1 &&
    base % 4 === 0 &&
    spec.shape.every((size, axis) => axis === rowAxis || size <= 1 || spec.strides[axis] % 4 === 0)
  );
}
