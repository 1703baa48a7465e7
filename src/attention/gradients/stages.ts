// The kernels of a plan of gradients, in their order, and how each covers the problem.

import type { Access } from "../../kernels/access.ts";
import type { KeptRows } from "../../kernels/gradients/additive.ts";
import {
  type BackwardKernel,
  type BackwardSpecialisation,
  backwardKernel,
  CLEAR_VEC4S,
  clearKernel,
  DELTA_ROWS,
} from "../../kernels/gradients/backward.ts";
import type { BackwardTile } from "../../kernels/gradients/backward_tiles.ts";
import { type SlotChoice, slotBindings } from "../../kernels/slots.ts";
import { accessOf } from "../../plan/access.ts";
import type { Operand, Operands } from "../../plan/operand.ts";
import { cutGroups } from "../../plan/work.ts";
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
  /** Stands for the problem where the grid has nothing to do with its batch entries. */
  readonly problem?: ResolvedBackward;
}

/** What stages are made from. */
export interface Planned {
  readonly device: GPUDevice;
  readonly resolved: ResolvedBackward;
  readonly operands: Operands;
  readonly slots: SlotChoice;
  readonly tile: BackwardTile;
}

/** A tensor that a kernel writes, by the plan's name. */
interface Target {
  readonly name: string;
  readonly operand: Operand;
}

/** An operand that the plan has. */
export const operandIn = (operands: Operands, name: string) => operands.get(name) as Operand;

/** Storage buffers of the kernel that adds up d_q beside those of attention: all but `kept`. */
const OWN_BUFFERS = ["dOutput", "workspace", "dV", "dQ"].length;

/** Whether a kernel can add up the gradients of queries in memory, over what the scores compare. */
export function canAddQueries(
  device: GPUDevice,
  operands: Operands,
  { lse, rowMax, ...slots }: SlotChoice,
): boolean {
  const written = ["dQ", "dK", "dV"].map((name) => operandIn(operands, name));
  const stored = slotBindings(slots).filter(({ type }) => type !== "uniform").length;
  return (
    accessOf(device, operandIn(operands, "dQ")) === "dense" &&
    written.every(({ spec }) => !spec.shape.includes(0)) &&
    !slots.similarity &&
    !slots.largeScale &&
    stored + OWN_BUFFERS <= device.limits.maxStorageBuffersPerShaderStage
  );
}

/** Operations of a tanh with its derivative, in pairs, as a multiply-add is one. */
export const TANH_FLOPS = 16;

/**
 * The statistics of rows, and then the gradients of queries and of keys.
 *
 * @param into Where these two go
 * @param kept Rows that the kernel of queries keeps, in the tensor `rows` of the plan
 */
export function backwardStages(
  planned: Planned,
  into: { readonly queries: Target; readonly keys: Target } = {
    queries: { name: "dQ", operand: operandIn(planned.operands, "dQ") },
    keys: { name: "dK", operand: operandIn(planned.operands, "dK") },
  },
  kept?: KeptRows,
): BackwardStage[] {
  const { device, resolved, operands, slots, tile } = planned;
  const { headDim, vDim, batch, heads, kvHeads, seqQ, seqKv, mostKeys, totalQ, packed } = resolved;
  const access = (name: string): Access => accessOf(device, operandIn(operands, name));
  const specialised = (
    kernel: BackwardKernel,
    own: Partial<BackwardSpecialisation>,
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
  const ownRows = tile.rows * tile.lanes;
  const xWork = slots.similarity?.kind === "additive" ? TANH_FLOPS * headDim : headDim;
  const names = {
    statistics: "workspace",
    d_output: "dOutput",
    d_v: "dV",
    // A kernel that has no gradient of the log-sum-exp binds something, and does not read it.
    d_lse: operands.has("dLse") ? "dLse" : "lse",
  };
  const rows = (packed ? 1 : batch) * heads * totalQ;
  const grid = (qTiles: number, flops: number): Grid => ({
    qTile: ownRows,
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
  const delta = stage(specialised("delta", deltaSlots), {
    names: { ...names, q: "output" },
    views: { q: operandIn(operands, "output") },
    grid: { ...grid(deltaTiles, 4 * DELTA_ROWS * vDim), heads: 1 },
  });
  const { queries: dQ, keys: dK } = into;
  // Multiply-adds of a score: for own queries, and for own keys.
  const ofQueries = 2 * xWork + vDim;
  const ofKeys = 2 * (xWork + vDim);
  const keyFlops = (2 * ownRows * seqQ * heads) / kvHeads;
  const keyGrid = { ...grid(Math.ceil(seqKv / ownRows), keyFlops * ofKeys), heads: kvHeads };
  const keys = { o: accessOf(device, dK.operand) };
  if (tile.form === "quads") {
    return [
      ...(packed ? [] : [clearStage(planned, { ...dQ, dim: headDim }, [heads, totalQ])]),
      delta,
      stage(specialised("factors", {}), {
        names,
        views: {},
        grid: grid(Math.ceil(seqQ / ownRows), 2 * ownRows * mostKeys * xWork),
      }),
      stage(specialised("keys", keys), {
        names: { ...names, o: dK.name, d_q: dQ.name },
        views: { output: dK.operand },
        grid: { ...keyGrid, flops: keyFlops * (ofKeys + xWork), cut: cutGroups(batch * kvHeads) },
      }),
    ];
  }
  return [
    delta,
    stage(specialised("queries", { o: accessOf(device, dQ.operand), ...(kept && { kept }) }), {
      names: { ...names, o: dQ.name, kept: "rows" },
      views: { output: dQ.operand },
      grid: grid(Math.ceil(seqQ / ownRows), 2 * ownRows * mostKeys * ofQueries),
    }),
    stage(specialised("keys", keys), {
      names: { ...names, o: dK.name },
      views: { output: dK.operand },
      grid: keyGrid,
    }),
  ];
}

/** Zeros for the rows of packed sequences that belong to no entry. */
export function clearStages(planned: Planned): BackwardStage[] {
  const { resolved, operands } = planned;
  const { packed, heads, kvHeads, totalQ, totalKv, headDim, vDim } = resolved;
  if (!packed) return [];
  const clear = (name: string, dim: number, rows: readonly number[]) =>
    clearStage(planned, { name, operand: operandIn(operands, name), dim }, rows);
  return [
    clear("dQ", headDim, [heads, totalQ]),
    clear("dK", headDim, [kvHeads, totalKv]),
    clear("dV", vDim, [kvHeads, totalKv]),
  ];
}

/** Zeros for rows of `dim` elements. */
export function clearStage(
  { device, resolved, slots }: Planned,
  { name, operand, dim }: Target & { readonly dim: number },
  [n_heads, total_q]: readonly number[],
): BackwardStage {
  const access = accessOf(device, operand);
  const vec4s = resolved.q.shape[0] * n_heads * total_q * Math.ceil(dim / 4);
  return {
    source: clearKernel(dim, access),
    names: { o: name },
    views: { output: operand },
    slots: { ...slots, o: access },
    places: { n_heads, total_q },
    grid: {
      qTile: 1,
      qTiles: Math.ceil(vec4s / CLEAR_VEC4S / Math.max(1, resolved.batch)),
      vSplits: 1,
      heads: 1,
      flops: CLEAR_VEC4S,
    },
  };
}
