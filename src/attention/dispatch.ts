// The uniform of a plan: lengths and strides of the problem, once for every dispatch that its work is cut into.

import { PARAMS_BYTES, type Params, packParams } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import type { Operand, Operands } from "./operands.ts";
import { type ResolvedProblem, reorder } from "./problem.ts";

/** Workgroups of the folded grid, and where the params of the dispatch lie in the plan's uniform buffer. */
export interface Dispatch {
  readonly x: number;
  readonly y: number;
  readonly paramsOffset: number;
}

/** How a kernel covers the problem. */
export interface Grid {
  /** Query rows of a tile. */
  readonly qTile: number;
  /** Query tiles of one head. */
  readonly qTiles: number;
  /** Workgroups that share a query tile. */
  readonly vSplits: number;
}

/** The dispatches of a kernel, and the bytes of the uniform buffer that they read from `offset` on. */
export function dispatchesOf(
  device: GPUDevice,
  problem: ResolvedProblem,
  operands: Operands,
  slots: SlotChoice,
  grid: Grid,
  offset: number,
): { dispatches: Dispatch[]; bytes: ArrayBuffer } {
  // Below 2^30: every workgroup has an element of the output to itself, and a binding ends at 4 GiB.
  const total = grid.qTiles * grid.vSplits * problem.batch * problem.heads;
  const perDimension = device.limits.maxComputeWorkgroupsPerDimension;
  const flops = 2 * grid.qTile * problem.seqKv * (problem.headDim + problem.vDim / grid.vSplits);
  const share = Math.max(1, Math.min(Math.floor(problem.maxDispatchFlops / flops), perDimension ** 2));
  const count = Math.ceil(total / share);
  // Offsets of uniforms are multiples of 256 at most; a device may ask for less, which buys nothing here.
  const stride = Math.ceil(PARAMS_BYTES / 256) * 256;
  const bytes = new ArrayBuffer(Math.max(1, count) * stride);
  const shared = sharedParams(problem, operands, slots, grid);
  const dispatches = Array.from({ length: count }, (_, index): Dispatch => {
    const first = index * share;
    const end = Math.min(first + share, total);
    const x = Math.min(end - first, perDimension);
    const params = { ...shared, grid_x: x, first_workgroup: first, end_workgroup: end };
    packParams(params, bytes, index * stride);
    return { x, y: Math.ceil((end - first) / x), paramsOffset: offset + index * stride };
  });
  return { dispatches, bytes };
}

type GridParams = "grid_x" | "first_workgroup" | "end_workgroup";

function sharedParams(
  problem: ResolvedProblem,
  operands: Operands,
  slots: SlotChoice,
  grid: Grid,
): Omit<Params, GridParams> {
  const q = addresses(operands.get("q"), slots.denseQ, problem);
  const k = addresses(operands.get("k"), slots.denseKv, problem);
  const v = addresses(operands.get("v"), slots.denseKv, problem);
  const o = addresses(operands.get("output"), slots.denseO, problem);
  const lse = addresses(operands.get("lse"), false, problem);
  return {
    seq_q: problem.seqQ,
    seq_kv: problem.seqKv,
    n_heads: problem.heads,
    group_size: problem.heads / problem.kvHeads,
    q_tiles: grid.qTiles,
    v_splits: grid.vSplits,
    causal: Number(problem.causal),
    align_end: Number(problem.alignEnd),
    q_offset: typeof problem.queryOffset === "number" ? problem.queryOffset : 0,
    scale_log2: problem.scale * Math.LOG2E,
    q_base: q.base,
    q_stride_b: q.b,
    q_stride_h: q.h,
    q_stride_m: q.row,
    q_stride_d: q.d,
    k_base: k.base,
    k_stride_b: k.b,
    k_stride_h: k.h,
    k_stride_n: k.row,
    k_stride_d: k.d,
    v_base: v.base,
    v_stride_b: v.b,
    v_stride_h: v.h,
    v_stride_n: v.row,
    v_stride_d: v.d,
    o_base: o.base,
    o_stride_b: o.b,
    o_stride_h: o.h,
    o_stride_m: o.row,
    o_stride_d: o.d,
    lse_base: lse.base,
    lse_stride_b: lse.b,
    lse_stride_h: lse.h,
    lse_stride_m: lse.row,
    kv_lengths_base: operands.get("kvLengths")?.base ?? 0,
    query_offsets_base: operands.get("queryOffset")?.base ?? 0,
  };
}

/** Base and strides in the units of the slot that reads the tensor: vec4s in the dense slots, elements otherwise. */
function addresses(operand: Operand | undefined, dense: boolean, { layout }: ResolvedProblem) {
  if (!operand) return { base: 0, b: 0, h: 0, row: 0, d: 0 };
  const { shape, strides } = operand.spec.shape.length === 4 ? reorder(operand.spec, layout) : operand.spec;
  const unit = dense ? 4 : 1;
  // The stride of an axis with one index is never taken, and need not be a whole number of units.
  const [b, h, row, d] = strides.map((stride, axis) => (shape[axis] > 1 ? stride / unit : 0));
  return { base: operand.base / unit, b, h, row, d: dense ? 0 : (d ?? 0) };
}
