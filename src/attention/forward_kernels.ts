// The stages of a plan that is one forward kernel.

import { forwardGrid, forwardKernel } from "../kernels/forward.ts";
import type { ForwardTile } from "../kernels/forward_tiles.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import type { ResolvedProblem } from "./resolved.ts";
import type { Stage } from "./uniform.ts";

/** The kernels of a problem: those that it asks for, or that the tables give. */
export interface Kernels {
  /**
   * The row of the table; `kvSplits` are workgroups that share the keys of a row, if the kernel
   * splits them.
   */
  readonly variant: string;
  readonly kvSplits?: number;
  readonly stagesOf: (slots: SlotChoice) => readonly Stage[] | Promise<readonly Stage[]>;
  /** The shape of the scratch memory that the stages share. */
  readonly workspace?: readonly number[];
}

/** From so many keys of a row on, sums have totals: two blocks of shaders/lib/long_sums.wesl. */
const LONG_ROW = 256;

/** The forward kernel with a tile. `term` is the number of operations for a column of a score. */
export function forwardKernels(
  resolved: ResolvedProblem,
  tile: ForwardTile,
  term: number,
): Kernels {
  const { headDim, vDim, seqQ } = resolved;
  const longRows = tile.form !== "half" && resolved.mostKeys > LONG_ROW;
  const grid = forwardGrid(tile, headDim, vDim, seqQ);
  const flops =
    grid.qTile * keysOf(resolved, grid.qTile) * (term * headDim + (2 * vDim) / grid.vSplits);
  return {
    variant: tile.name,
    stagesOf: async (slots) => [
      {
        source: await forwardKernel({ headDim, vDim, tile, ...slots, longRows }),
        grid: { ...grid, flops },
      },
    ],
  };
}

/** The most keys that a tile of queries looks at. */
export function keysOf(
  { mostKeys, window: [left, right], sinkTokens }: ResolvedProblem,
  qTile: number,
): number {
  return left < 0 || right < 0 ? mostKeys : Math.min(mostKeys, left + qTile + right + sinkTokens);
}
