// The kernels of a plan of gradients, in their order, and how each covers the problem.

import type { Access } from "../../kernels/access.ts";
import {
  type BackwardKernel,
  type BackwardSpecialisation,
  backwardKernel,
  CLEAR_VEC4S,
  clearKernel,
  DELTA_ROWS,
} from "../../kernels/gradients/backward.ts";
import type { BackwardTile } from "../../kernels/gradients/backward_tiles.ts";
import type { SlotChoice } from "../../kernels/slots.ts";
import { accessOf } from "../../plan/access.ts";
import type { Operand, Operands } from "../../plan/operand.ts";
import type { TablePlaces } from "../../scores/resolved.ts";
import type { Grid, Stage } from "../uniform.ts";
import type { ResolvedBackward } from "./problem.ts";

/** A kernel of the plan, and how its uniforms differ from those of attention. */
export interface BackwardStage extends Stage {
  readonly names: NonNullable<Stage["names"]>;
  /** The tensors that stand for attention's in the uniforms. */
  readonly views: Readonly<Record<string, Operand>>;
  readonly slots: SlotChoice;
  readonly places?: TablePlaces;
  /** Batch entries that the grid covers. Default: those of the problem. */
  readonly entries?: number;
}

/** An operand that the plan has. */
export const operandIn = (operands: Operands, name: string) => operands.get(name) as Operand;

/** The statistics of rows, and then the gradients of queries and of keys. */
export function backwardStages(
  device: GPUDevice,
  resolved: ResolvedBackward,
  operands: Operands,
  { slots, tile }: { readonly slots: SlotChoice; readonly tile: BackwardTile },
): BackwardStage[] {
  const { headDim, vDim, batch, heads, kvHeads, seqQ, seqKv, mostKeys, totalQ, packed } = resolved;
  const access = (name: string): Access => accessOf(device, operandIn(operands, name));
  const specialised = (
    kernel: BackwardKernel,
    own: Partial<SlotChoice>,
  ): BackwardSpecialisation => ({
    ...slots,
    ...own,
    kernel,
    headDim,
    vDim,
    tile,
    dOutput: access("dOutput"),
    dV: access("dV"),
    dLse: operands.has("dLse"),
  });
  const [ownQueries, ownKeys] = tile.rows.map((rows) => rows * tile.lanes);
  const names = {
    statistics: "workspace",
    d_output: "dOutput",
    d_v: "dV",
    // A kernel that has no gradient of the log-sum-exp binds something, and does not read it.
    d_lse: operands.has("dLse") ? "dLse" : "lse",
  };
  const rows = (packed ? 1 : batch) * heads * totalQ;
  const grid = (qTiles: number, flops: number): Grid => ({
    qTile: ownQueries,
    qTiles,
    vSplits: 1,
    flops,
  });
  const deltaSlots: SlotChoice = { ...slots, q: access("output") };
  // The grid of rows has no heads or entries of its own.
  const deltaTiles = Math.ceil(rows / DELTA_ROWS / Math.max(1, batch));
  const stage = (
    specialisation: BackwardSpecialisation,
    own: Pick<BackwardStage, "names" | "views" | "grid">,
  ): BackwardStage => ({ source: backwardKernel(specialisation), slots: specialisation, ...own });
  return [
    stage(specialised("delta", deltaSlots), {
      names: { ...names, q: "output" },
      views: { q: operandIn(operands, "output") },
      grid: { ...grid(deltaTiles, 4 * DELTA_ROWS * vDim), heads: 1 },
    }),
    stage(specialised("queries", { o: access("dQ") }), {
      names: { ...names, o: "dQ" },
      views: { output: operandIn(operands, "dQ") },
      grid: grid(Math.ceil(seqQ / ownQueries), 2 * ownQueries * mostKeys * (2 * headDim + vDim)),
    }),
    stage(specialised("keys", { o: access("dK") }), {
      names: { ...names, o: "dK" },
      views: { output: operandIn(operands, "dK") },
      grid: {
        ...grid(
          Math.ceil(seqKv / ownKeys),
          (4 * ownKeys * seqQ * (headDim + vDim) * heads) / kvHeads,
        ),
        heads: kvHeads,
      },
    }),
  ];
}

/** Zeros for the rows of packed sequences that belong to no entry. */
export function clearStages(
  device: GPUDevice,
  resolved: ResolvedBackward,
  operands: Operands,
  slots: SlotChoice,
): BackwardStage[] {
  const { packed, heads, kvHeads, totalQ, totalKv, headDim, vDim, batch } = resolved;
  if (!packed) return [];
  const clear = (
    name: string,
    dim: number,
    [n_heads, total_q]: readonly number[],
  ): BackwardStage => {
    const operand = operandIn(operands, name);
    const access = accessOf(device, operand);
    const vec4s = n_heads * total_q * Math.ceil(dim / 4);
    return {
      source: clearKernel(dim, access),
      names: { o: name },
      views: { output: operand },
      slots: { ...slots, o: access },
      places: { n_heads, total_q },
      grid: {
        qTile: 1,
        qTiles: Math.ceil(vec4s / CLEAR_VEC4S / Math.max(1, batch)),
        vSplits: 1,
        heads: 1,
        flops: CLEAR_VEC4S,
      },
    };
  };
  return [
    clear("dQ", headDim, [heads, totalQ]),
    clear("dK", headDim, [kvHeads, totalKv]),
    clear("dV", vDim, [kvHeads, totalKv]),
  ];
}
