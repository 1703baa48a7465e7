// The kernels that add up the gradients of what options hold: how each covers the problem.

import type { BackwardTile } from "../../kernels/gradients/backward_tiles.ts";
import {
  SUM_LANES,
  type SumOf,
  scoreSumsKernel,
  scoreTotalsKernel,
  sinkSumsKernel,
  TOTAL_LANES,
} from "../../kernels/gradients/scores.ts";
import type { SlotChoice } from "../../kernels/slots.ts";
import { accessOf } from "../../plan/access.ts";
import type { Operands } from "../../plan/operand.ts";
import type { ResolvedScores } from "../resolved.ts";
import type { ResolvedBackward } from "./problem.ts";
import type { ScoreGradient, ScoreGradientName } from "./score_problem.ts";
import { type BackwardStage, operandIn } from "./stages.ts";

/** What each gradient is a sum of; sinks have their own kernel. */
const SUMS: Readonly<Record<Exclude<ScoreGradientName, "dSinks">, SumOf>> = {
  dBias: "scores",
  dAlibiSlopes: "distances",
  dRelativeBias: "buckets",
  dTemperature: "products",
  dLogTemperature: "products",
};

/** Workgroups that keep a GPU busy. */
const BUSY = 1024;
/** The most operations of a workgroup, as long as there is memory for shares. */
const MOST_FLOPS = 2 ** 27;
/** The most numbers that the shares of a gradient take, if it has fewer elements. */
const MOST_SHARES = 2 ** 22;

/** How the sum of a gradient is shared out. */
export interface ScoreSum {
  readonly gradient: ScoreGradient;
  /** Elements of the gradient. */
  readonly elements: number;
  /** Tiles of elements, and of parts of a table. */
  readonly tiles: number;
  readonly parts: number;
  /** Workgroups that share a tile, and the operations of each. */
  readonly shares: number;
  readonly flops: number;
  readonly tile: BackwardTile;
}

const product = (sizes: readonly number[]) => sizes.reduce((all, size) => all * size, 1);

/** Shares out the sums of a plan, whose kernels have this tile. */
export const scoreSums = (resolved: ResolvedBackward, tile: BackwardTile): ScoreSum[] =>
  resolved.scoreGradients.map((gradient) => scoreSum(gradient, resolved, tile));

function scoreSum(
  gradient: ScoreGradient,
  { batch, heads, seqQ, seqKv, headDim, vDim }: ResolvedScores,
  tile: BackwardTile,
): ScoreSum {
  const { name, overScores } = gradient;
  const elements = product(overScores.shape);
  const isSinks = name === "dSinks";
  const qTile = isSinks ? SUM_LANES : tile.rows * tile.lanes;
  const all = [batch, heads, Math.ceil(seqQ / qTile), Math.ceil(seqKv / tile.streamed)];
  // Tables have buckets where others have queries, and sinks have no keys.
  const axes = isSinks ? 3 : 4;
  const isElement = (axis: number) =>
    overScores.shape[axis] !== 1 && (name === "dBias" || axis < 2);
  const tiles = elements && product(all.map((count, axis) => (isElement(axis) ? count : 1)));
  const visits = product(all.slice(0, axes).map((count, axis) => (isElement(axis) ? 1 : count)));
  const parts = name === "dRelativeBias" ? Math.ceil(overScores.shape[2] / SUM_LANES) : 1;
  const flops = isSinks ? 16 * SUM_LANES : 2 * qTile * tile.streamed * (headDim + vDim);
  const wanted = Math.max(BUSY / Math.max(tiles * parts, 1), (visits * flops) / MOST_FLOPS);
  const room = Math.floor(MOST_SHARES / Math.max(elements, 1));
  const shares = Math.max(1, Math.min(Math.ceil(wanted), visits, room));
  return {
    gradient,
    elements,
    tiles,
    parts,
    shares,
    flops: Math.max(1, Math.ceil(visits / shares)) * flops,
    tile,
  };
}

/** What the stages of a plan are made from. */
interface StageParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedBackward;
  readonly operands: Operands;
  readonly slots: SlotChoice;
}

/** The stages of a sum, whose shares lie in the workspace from `at` on. */
export function scoreStages(
  { gradient: { name, overScores }, elements, tiles, parts, shares, flops, tile }: ScoreSum,
  { device, operands, slots, resolved }: StageParts,
  at: number,
): BackwardStage[] {
  const { headDim, vDim } = resolved;
  const [b, h, m, n] = overScores.shape;
  const strideOf = (size: number, stride: number) => (size === 1 ? 0 : stride * shares);
  // The grid is that of all entries, not of each.
  const whole = { ...resolved, batch: 1 };
  const grid = (workgroups: number, each: number) => ({
    qTile: 1,
    qTiles: workgroups,
    vSplits: 1,
    heads: 1,
    flops: each,
  });
  const operand = operandIn(operands, name);
  const [strideB, strideH, strideM, strideN] = overScores.strides;
  return [
    {
      source:
        name === "dSinks"
          ? sinkSumsKernel(slots)
          : scoreSumsKernel(
              {
                ...slots,
                kernel: "queries",
                headDim,
                vDim,
                tile,
                dOutput: accessOf(device, operandIn(operands, "dOutput")),
                dV: "dense",
                dLse: false,
              },
              SUMS[name],
            ),
      names: { d_output: "dOutput" },
      views: {},
      slots,
      problem: whole,
      places: {
        o_base: at,
        o_stride_b: strideOf(b, h * m * n),
        o_stride_h: strideOf(h, m * n),
        o_stride_m: strideOf(m, n),
        o_stride_d: strideOf(n, 1),
        kv_splits: shares,
        q_tiles: parts,
        chosen_rows: m,
      },
      grid: grid(tiles * parts * shares, flops),
    },
    {
      source: scoreTotalsKernel(),
      names: { shares: "workspace", o: name },
      views: {},
      slots,
      problem: whole,
      places: {
        q_base: at,
        kv_splits: shares,
        q_outer: b,
        n_heads: h,
        total_q: m,
        chosen_rows: n,
        o_base: operand.base,
        o_stride_b: strideB,
        o_stride_h: strideH,
        o_stride_m: strideM,
        o_stride_d: strideN,
      },
      grid: grid(Math.ceil(elements / TOTAL_LANES), 4 * TOTAL_LANES * shares),
    },
  ];
}
