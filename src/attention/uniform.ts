// The uniform of a plan: lengths and strides of the problem, written once for every dispatch that
// its work is cut into.

import { isSoftware } from "../gpu/device.ts";
import { isAligned } from "../kernels/access.ts";
import { PARAMS, type Params, UNIFORM_STRIDE } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import { addresses, rowAddresses } from "../plan/access.ts";
import type { Operands } from "../plan/operand.ts";
import type { CompiledStage } from "../plan/plan.ts";
import { cutWork, type Dispatch } from "../plan/work.ts";
import { paramsAtRest } from "../scores/extended_options.ts";
import type { TablePlaces } from "../scores/resolved.ts";
import type { KernelSource } from "../types.ts";
import type { ResolvedScores } from "./resolved.ts";

/**
 * The most operations of a dispatch by default: less than a second on a slow device of the kind.
 */
export const MOST_FLOPS = { gpu: 2 ** 36, software: 2 ** 32 };

/** How a kernel covers the problem. */
export interface Grid {
  /** Query rows of a tile. */
  readonly qTile: number;
  /** Query tiles of one head. */
  readonly qTiles: number;
  /** Workgroups that share a query tile. */
  readonly vSplits: number;
  /** How many of these workgroups share the keys, each taking its own part of them. Default 1. */
  readonly kvSplits?: number;
  /** Heads that the kernel runs over. Default: those of the problem. */
  readonly heads?: number;
  /** How the workgroups are cut into dispatches. Default `cutWork`. */
  readonly cut?: typeof cutWork;
  /** Operations of a workgroup. Default: those of attention. */
  readonly flops?: number;
}

/** A kernel of a plan, and how it covers the problem. */
export interface Stage {
  readonly source: KernelSource;
  /** The names of a compiled stage. A stage that has them isn't a main stage of the plan. */
  readonly names?: CompiledStage["names"];
  readonly grid: Grid;
}

/** The parts that the uniforms of all kernels of a plan are made from. */
export interface UniformInputs {
  readonly device: GPUDevice;
  readonly problem: ResolvedScores;
  readonly operands: Operands;
  readonly places: TablePlaces;
  readonly slots: SlotChoice;
}

/**
 * The dispatches of a kernel, and the bytes of the uniform buffer that they read from `offset` on.
 */
export function dispatchesOf(
  { device, problem, operands, places, slots }: UniformInputs,
  { source, grid }: { readonly source: KernelSource; readonly grid: Grid },
  offset: number,
): { dispatches: Dispatch[]; bytes: ArrayBuffer } {
  // The total stays below 2^30: every workgroup has an element of the output to itself, and a
  // binding ends at 4 GiB.
  const total = grid.qTiles * grid.vSplits * problem.batch * (grid.heads ?? problem.heads);
  const flops =
    grid.flops ??
    2 * grid.qTile * problem.mostKeys * (problem.headDim + problem.vDim / grid.vSplits);
  const { maxDispatchFlops = MOST_FLOPS[isSoftware(device) ? "software" : "gpu"] } = problem;
  const parts = (grid.cut ?? cutWork)(device, total, flops, maxDispatchFlops);
  const stride = UNIFORM_STRIDE;
  const bytes = new ArrayBuffer(Math.max(1, parts.length) * stride);
  const shared = {
    ...paramsAtRest(problem.options),
    ...sharedParams(problem, operands, slots, grid),
    ...places,
  };
  const dispatches = parts.map(({ x, y, ...range }, index): Dispatch => {
    PARAMS.pack({ ...shared, ...range }, bytes, index * stride, source);
    return { x, y, paramsOffset: offset + index * stride };
  });
  return { dispatches, bytes };
}

function sharedParams(
  problem: ResolvedScores,
  operands: Operands,
  slots: SlotChoice,
  grid: Grid,
): Partial<Params> {
  const [kOuter, , kRows] = (problem.cache?.k ?? problem.k).shape;
  return {
    seq_q: problem.seqQ,
    seq_kv: problem.seqKv,
    n_heads: problem.heads,
    group_size: problem.heads / problem.kvHeads,
    q_tiles: grid.qTiles,
    v_splits: grid.vSplits,
    kv_splits: grid.kvSplits ?? 1,
    total_q: problem.totalQ,
    total_kv: problem.totalKv,
    rows_per_batch: problem.packed ? 0 : problem.heads * problem.totalQ,
    align_end: Number(problem.alignEnd),
    q_offset: problem.offset,
    window_left: problem.window[0],
    window_right: problem.window[1],
    chunk: problem.chunk,
    sink_tokens: problem.sinkTokens,
    scale: problem.scale,
    scale_log2: (problem.scale * Math.LOG2E) / (slots.largeScale ? 2 ** 128 : 1),
    q_outer: problem.q.shape[0],
    k_outer: kOuter,
    k_rows: kRows,
    ...addresses("q", "m", operands.get("q"), isAligned(slots.q), problem),
    ...addresses("k", "n", operands.get("k"), isAligned(slots.k), problem.cache ? CACHE : problem),
    ...addresses("v", "n", operands.get("v"), isAligned(slots.v), problem.cache ? CACHE : problem),
    ...addresses("o", "m", operands.get("output"), isAligned(slots.o), problem),
    ...rowAddresses("lse", operands.get("lse")),
    ...rowAddresses("row_max", operands.get("rowMax")),
    ...Object.assign({}, ...problem.options.map(({ params }) => params?.(operands))),
  };
}

/** The axes of a cache are in this order, whatever the order of the queries' axes. */
const CACHE = { layout: "bhmd" } as const;
