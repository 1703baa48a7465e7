// The problem of an append: its tensors, checked before the GPU sees any of them.

import type { KvSource } from "../attention/kv_source.ts";
import { check } from "../errors.ts";
import type { Numbers, OptionNames, Taken } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import { appendStruct, appendTile } from "../kernels/cache.ts";
import { ANGLE_POSITIONS, type RotaryChoice } from "../kernels/rotary_angles.ts";
import type { Operand } from "../plan/operand.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import {
  bindingBase,
  checkBindingLimit,
  checkedSpec,
  checkLayout,
  expectApart,
  expectShape,
  FLOATS,
  reorder,
  toBhmd,
} from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { AppendMoment } from "./append_moment.ts";
import type { CacheState } from "./state.ts";

/** The RMSNorm of the rows of q and k, as the kernels take it. */
export interface ResolvedNorm {
  readonly epsilon: number;
  /** [D]; undefined means 1 throughout. */
  readonly q: Float32Array | undefined;
  readonly k: Float32Array | undefined;
}

/** The rotary embedding of the rows of q and k, as the kernels take it. */
export interface CacheRotary {
  readonly choice: RotaryChoice;
  /** Tables of angles, which the cache owns. */
  readonly angles: Tensor;
}

/** A cache, as appends see it. */
export interface AppendTarget {
  readonly device: GPUDevice;
  readonly label: string;
  readonly destroyed: boolean;
  /** Its source as it is now. */
  readonly source: KvSource;
  readonly state: CacheState;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  /** The meaning of a call that is made now. */
  moment(): AppendMoment;
}

/**
 * The append that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface AppendProblem {
  /**
   * `[B, Hkv, M, D]`: M tokens for each entry, or as many of them as `counts` says. f32, f16 or bf16;
   * each tensor has its own dtype.
   */
  readonly k: TensorSpec;
  /** [B, Hkv, M, Dv] */
  readonly v: TensorSpec;
  /**
   * `[B, H, M, D]`: queries of the same tokens, to be normalised and rotated like k, if the cache
   * does either.
   */
  readonly q?: TensorSpec;
  /** Where these queries go; it shares its buffer with no other tensor. Default: in place of q. */
  readonly qOutput?: TensorSpec;
  /** [B] i32, if counts will be on the GPU: a tensor, or what it will look like. */
  readonly counts?: TensorSpec;
  /**
   * Added to the positions that tokens are rotated by, which count from the start of the sequence.
   * Default 0.
   */
  readonly positionOffset?: number;
  /**
   * [B, M] i32, if the positions to rotate by come from the GPU; [3, B, M], of time, height and
   * width, if the rotary embedding has sections (by default all three are the token's position). A
   * tensor, or what it will look like.
   */
  readonly positionIds?: TensorSpec;
  /** Axis order of k, v and q. Default `"bhmd"`. */
  readonly layout?: Layout;
  /**
   * Name of the plan's GPU objects in errors and captures. Default: that of the cache and
   * `" append"`.
   */
  readonly label?: string;
}

/** The names of the members of a problem. */
export const APPEND_PROBLEM: OptionNames<AppendProblem> = {
  k: "any",
  v: "any",
  q: "any",
  qOutput: "any",
  counts: "any",
  positionOffset: "number",
  positionIds: "any",
  layout: "string",
  label: "string",
};

/**
 * Memory for one run of an append: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface AppendBindings {
  readonly k?: Tensor;
  readonly v?: Tensor;
  readonly q?: Tensor;
  readonly qOutput?: Tensor;
  readonly positionIds?: Tensor;
  /**
   * How many of the M rows, from the first on, each entry gets: one number for all, one for each,
   * or i32 [B] on the GPU, if the plan was made for that. Default M. The host counts a tensor as M
   * for each entry, because it cannot know: `lengths` and the room that is left are then bounds.
   * Numbers on the GPU are limited to 0..M.
   */
  readonly counts?: number | Numbers | Tensor;
}

/** A checked append. */
export interface ResolvedAppend {
  readonly label: string;
  readonly layout: Layout;
  /** The operands by the names of their bindings. */
  readonly operands: ReadonlyMap<string, Operand>;
  /** M */
  readonly seqQ: number;
  /** H; 0 without q. */
  readonly heads: number;
  readonly inPlace: boolean;
  readonly positionOffset: number;
  readonly grid: { readonly x: number; readonly y: number };
  /** Bytes of the uniform `append`. */
  readonly appendBytes: number;
}

/** Checks an append and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveAppend(target: AppendTarget, problem: Taken<AppendProblem>): ResolvedAppend {
  const { device, source, norm, rotary } = target;
  const { layout = "bhmd", label = `${target.label} append` } = problem;
  checkLayout(label, layout);
  const { batch, kvHeads, headDim, vDim } = source;
  const operands = new Map<string, Operand>();
  const add = (
    name: keyof AppendBindings,
    given: TensorSpec,
    shape: readonly number[],
    written: boolean,
  ) => {
    const spec = reorder(toBhmd(label, name, given, layout, FLOATS), layout);
    expectShape(
      label,
      name,
      spec,
      reorder({ ...spec, shape }, layout).shape,
      `for ${target.label}`,
    );
    if (written) expectApart(label, name, spec);
    addOperand(name, given, spec, written);
  };
  const addOperand = (
    name: keyof AppendBindings,
    given: TensorSpec,
    spec: Operand["spec"],
    written: boolean,
  ) => {
    checkBindingLimit(label, name, device, spec);
    const fallback = given instanceof Tensor ? given : undefined;
    const operand = { spec, base: bindingBase(device, spec), fallback, written };
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  };
  const { shape: kShape } = toBhmd(label, "k", problem.k, layout, FLOATS);
  const seqQ = kShape[2];
  add("k", problem.k, [batch, kvHeads, seqQ, headDim], false);
  add("v", problem.v, [batch, kvHeads, seqQ, vDim], false);
  const inPlace = problem.qOutput === undefined;
  const heads = problem.q !== undefined ? queryHeads(label, problem.q, layout, target) : 0;
  if (problem.q !== undefined) add("q", problem.q, [batch, heads, seqQ, headDim], inPlace);
  check(
    problem.q !== undefined || inPlace,
    "argument",
    () => `${label}: qOutput is given, but no q to be written there.`,
  );
  check(
    problem.q === undefined || norm !== undefined || rotary !== undefined,
    "argument",
    () =>
      `${label}: ${target.label} neither normalises nor rotates rows, so q would stay as it is; leave q out.`,
  );
  if (problem.qOutput !== undefined)
    add("qOutput", problem.qOutput, [batch, heads, seqQ, headDim], true);
  if (problem.counts !== undefined) {
    const spec = checkedSpec(label, "counts", problem.counts, ["i32"]);
    expectShape(label, "counts", spec, [batch], "one a batch entry");
    addOperand("counts", problem.counts, spec, false);
  }
  const { positionIds, positionOffset = 0 } = problem;
  checkPositions(label, problem, target);
  if (positionIds !== undefined) {
    const spec = checkedSpec(label, "positionIds", positionIds, ["i32"]);
    expectShape(label, "positionIds", spec, [...(rotary?.choice.sections ? [3] : []), batch, seqQ]);
    addOperand("positionIds", positionIds, spec, false);
  }
  const rows = batch * (2 * kvHeads + heads) * seqQ;
  const workgroups = Math.max(1, Math.ceil(rows / appendTile({ headDim, vDim }).rows));
  const x = Math.min(workgroups, device.limits.maxComputeWorkgroupsPerDimension);
  const appendBytes = appendStruct(headDim).bytes;
  const grid = { x, y: Math.ceil(workgroups / x) };
  return { label, layout, operands, seqQ, heads, inPlace, positionOffset, grid, appendBytes };
}

function checkPositions(
  label: string,
  { positionIds, positionOffset }: AppendProblem,
  target: AppendTarget,
): void {
  if (positionIds === undefined && positionOffset === undefined) return;
  check(
    target.rotary !== undefined,
    "argument",
    () =>
      `${label}: ${target.label} does not rotate rows; leave positionIds and positionOffset out.`,
  );
  check(
    positionIds === undefined || positionOffset === undefined,
    "argument",
    () => `${label}: give positionIds or positionOffset, not both.`,
  );
  check(
    positionOffset === undefined ||
      (Number.isInteger(positionOffset) && Math.abs(positionOffset) < ANGLE_POSITIONS),
    "argument",
    () =>
      `${label}: positionOffset must be a whole number between -${ANGLE_POSITIONS} and ${ANGLE_POSITIONS}, got ${positionOffset}.`,
  );
}

function queryHeads(
  label: string,
  q: TensorSpec,
  layout: Layout,
  { source }: AppendTarget,
): number {
  const [, heads] = toBhmd(label, "q", q, layout, FLOATS).shape;
  check(
    heads > 0 && heads % source.kvHeads === 0,
    "argument",
    () =>
      `${label}: q must have a multiple of the cache's ${source.kvHeads} heads, got ${heads} (q is [${q.shape}]).`,
  );
  return heads;
}
