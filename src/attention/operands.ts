// The tensors of a plan: how each must look, how the kernel addresses it, and what is bound.

import { check } from "../errors.ts";
import { BYTES } from "../gpu/elements.ts";
import { extentOf, Tensor, type TensorOptions, tensor } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import { type CapturedNumber, functionsOf } from "./functions.ts";
import type { AttentionProblem, ResolvedProblem, ResolvedScores, ScoreProblem } from "./problem.ts";
import { bindingBase, bindingStep, checkBindingLimit, type ResolvedSpec, reorder } from "./specs.ts";
import { layTables } from "./tables.ts";

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
  /** The table of the relative bias. */
  readonly relativeBias?: Tensor;
  /** Tensors in place of those that the functions captured, by name. */
  readonly captures?: Readonly<Record<string, Tensor>>;
}

/** The tensors of a plan: those that a caller binds, and those that are the plan's own or were given with it. */
export type OperandName =
  | Exclude<keyof AttentionBindings, "captures">
  | `captures.${string}`
  | "workspace"
  | "tables"
  | "blocks";

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
  /** Captured numbers, by the names of their bindings. */
  readonly numbers: ReadonlyMap<string, CapturedNumber>;
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
export function attentionTensors(problem: AttentionProblem, resolved: ResolvedProblem): Asked[] {
  const { layout, v, output, lse, rowMax } = resolved;
  return [
    { name: "v", spec: reorder(v, layout), given: problem.v, written: false },
    { name: "output", spec: reorder(output, layout), given: problem.output, written: true },
    ...(lse ? [{ name: "lse", spec: lse, given: problem.lse, written: true } as const] : []),
    ...(rowMax ? [{ name: "rowMax", spec: rowMax, given: problem.rowMax, written: true } as const] : []),
  ];
}

/** The operands of a problem, and the tensors that the plan has to own for them. */
export function operandsOf(
  device: GPUDevice,
  problem: ScoreProblem,
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
  const { layout, tables } = resolved;
  const own = (name: OperandName, shape: readonly number[], options: TensorOptions, written = false) => {
    const made = tensor(device, shape, { ...options, label: `${resolved.label} ${name}` });
    owned.push(made);
    add(name, made, made, written);
  };
  add("q", reorder(resolved.q, layout), given(problem.q));
  add("k", reorder(resolved.k, layout), given(problem.k));
  for (const { name, spec, given: tensorOrNot, written } of asked) add(name, spec, given(tensorOrNot), written);
  if (resolved.mask) add("mask", resolved.mask, given(problem.mask));
  if (resolved.bias) add("bias", resolved.bias, given(problem.bias));
  const laid = layTables(tables);
  for (const { from, values } of laid.tensors) add(from, values, values);
  if (tables.length) own("tables", [laid.words.length], { dtype: "i32", data: laid.words }, true);
  if (workspace) own("workspace", workspace, {}, true);
  if (problem.blockMask) add("blocks", problem.blockMask.blocks, problem.blockMask.blocks);
  const numbers = new Map<string, CapturedNumber>();
  for (const { captures } of functionsOf(problem)) {
    for (const [name, value] of Object.entries(captures)) {
      if (value instanceof Tensor) {
        add(`captures.${name}`, value, value);
        checkStart(`${resolved.label}: capture ${name}`, device, value);
      } else numbers.set(`captures.${name}`, value);
    }
  }
  return { operands, owned, places: laid.places, copies: laid.tensors, numbers };
}

/** Whether the rows of a tensor are sequences of aligned vec4s. */
export function isDense({ spec, base }: Operand): boolean {
  const rowAxis = spec.shape.length - 1;
  return (
    spec.shape[rowAxis] % 4 === 0 &&
    spec.strides[rowAxis] === 1 &&
    base % 4 === 0 &&
    spec.shape.every((size, axis) => axis === rowAxis || size <= 1 || spec.strides[axis] % 4 === 0)
  );
}

/** Throws FoveaError unless `given` is a live tensor of the device that looks as planned. */
export function checkOperand(
  what: string,
  device: GPUDevice,
  { spec, base }: Operand,
  given: Tensor | undefined,
): asserts given is Tensor {
  check(given !== undefined, "argument", () => `${what} is missing: the plan was made without a tensor for it.`);
  check(given instanceof Tensor, "argument", () => `${what} must be a Tensor; wrap a buffer with tensor().`);
  check(!given.destroyed, "destroyed", () => `${what}: the tensor was destroyed.`);
  check(
    given.device === device,
    "device",
    () => `${what} belongs to another GPUDevice; tensors can't move between devices.`,
  );
  const { dtype, offset } = given;
  // A mask or bias may have been given without its leading axes of size 1.
  const missing = Math.max(0, spec.shape.length - given.shape.length);
  const leading = spec.shape.slice(0, missing).every((size) => size === 1);
  const shape = [...new Array<number>(missing).fill(1), ...given.shape];
  const strides = [...new Array<number>(missing).fill(0), ...given.strides];
  const sameShape =
    leading && shape.length === spec.shape.length && shape.every((size, axis) => size === spec.shape[axis]);
  check(
    sameShape && dtype === spec.dtype,
    "argument",
    () => `${what} is ${dtype} [${given.shape}]; the plan was made for ${spec.dtype} [${spec.shape}].`,
  );
  check(
    strides.every((stride, axis) => stride === spec.strides[axis] || shape[axis] <= 1),
    "argument",
    () => `${what} has strides [${strides}]; the plan was made for [${spec.strides}].`,
  );
  check(
    offset % bindingStep(device, spec.dtype) === base,
    "argument",
    () =>
      `${what} starts ${offset % bindingStep(device, spec.dtype)} elements after a multiple of the binding alignment of ${device.limits.minStorageBufferOffsetAlignment} bytes; the plan was made for ${base}. Plan with a tensor of that offset.`,
  );
}

/** Throws FoveaError if an output shares its buffer with an input, or its elements with another output. */
export function checkOverlap(label: string, operands: Operands, tensors: ReadonlyMap<OperandName, Tensor>): void {
  for (const [name, written] of tensors) {
    if (!operands.get(name)?.written) continue;
    for (const [other, tensor] of tensors) {
      if (other === name || tensor.buffer !== written.buffer) continue;
      check(
        operands.get(other)?.written === true,
        "overlap",
        () =>
          `${label}: ${name} and ${other} are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give ${name} a buffer of its own.`,
      );
      const [a, b] = [bindingRange(written), bindingRange(tensor)];
      check(
        a.offset + a.size <= b.offset || b.offset + b.size <= a.offset,
        "overlap",
        () => `${label}: ${name} and ${other} overlap in their buffer (bindings start at multiples of 256 bytes).`,
      );
    }
  }
}

/** The part of its buffer that a tensor is bound by: from an aligned offset to its last element. */
export function bindingRange({ device, shape, strides, offset, dtype }: Tensor): { offset: number; size: number } {
  const begin = (offset - (offset % bindingStep(device, dtype))) * BYTES[dtype];
  const size = (offset + extentOf(shape, strides)) * BYTES[dtype] - begin;
  return { offset: begin, size: Math.ceil(size / 4) * 4 };
}

/** Functions index their arrays from the start of the binding. */
function checkStart(what: string, device: GPUDevice, { offset, dtype }: Tensor): void {
  check(
    offset % bindingStep(device, dtype) === 0,
    "argument",
    () =>
      `${what} starts at element ${offset} of its buffer; a captured tensor must start at a multiple of ${bindingStep(device, dtype)} (${device.limits.minStorageBufferOffsetAlignment} bytes).`,
  );
}
