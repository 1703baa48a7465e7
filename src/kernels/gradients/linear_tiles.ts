// How the kernels of linear attention's gradients divide states and tokens among lanes and
// workgroups.

import { check } from "../../errors.ts";

export type LinearBackwardKernel =
  | "delta"
  | "sums"
  | "scan"
  | "reads"
  | "held"
  | "sums reversed"
  | "scan reversed"
  | "reads reversed"
  | "columns"
  | "decay"
  | "weights"
  | "gradient"
  | "scalars"
  | "enter"
  | "prepare"
  | "pairs"
  | "applied"
  | "applied held"
  | "applied reversed";

/** The walks, scans and products that a problem may have. */
export const linearBackwardKernels = ({
  causal,
  decayDim,
  delta,
  normalized,
}: BackwardSizes): LinearBackwardKernel[] => [
  ...(delta
    ? (["delta", "held"] as const)
    : (["sums", "scan", "sums reversed", "scan reversed"] as const)),
  "reads",
  "reads reversed",
  "columns",
  ...(decayDim && causal ? (["applied", "applied reversed", "pairs", "decay"] as const) : []),
  ...(decayDim && delta ? (["applied held"] as const) : []),
  ...(normalized ? (["weights"] as const) : []),
  "enter",
];

/** What tiles depend on. */
export interface BackwardSizes {
  readonly headDim: number;
  readonly vDim: number;
  /** Elements of a row of the decay: 1, or D. 0 without decay. */
  readonly decayDim: number;
  readonly normalized: boolean;
  readonly causal: boolean;
  readonly delta: boolean;
  /** Query heads that read one state. */
  readonly group: number;
}

/** The bytes of workgroup memory that WebGPU guarantees. */
const WORKGROUP_BYTES = 16384;
/** The most vec4s of a row, or of a column, that a lane holds. */
const MOST_VEC4S = 8;
/** Lanes of a workgroup that has a column of the state in each. */
const COLUMN_LANES = 32;
/** The largest head dim of delta rules, of which a lane holds 128 elements of a column. */
const WIDEST_DELTA = 1024;
/** The most tokens of a chunk if there are gradients of decays, and if there are none. */
export const DECAY_CHUNK = 16;
export const PLAIN_CHUNK = 64;
/** Lanes of a workgroup of the kernel for decays, each a row of the state. */
const DECAY_LANES = 64;
/** Invocations of a workgroup that computes one result each, and of a scan. */
export const INVOCATIONS = 64;

const vec4s = (width: number) => Math.ceil(width / 4);
const blocksOf = (count: number, most: number) => {
  const blocks = Math.ceil(count / most);
  return { blocks, size: Math.ceil(count / blocks) };
};

/** Elements of a state in the workspace: rows of whole vec4s, z, and a factor for each row. */
export const stateStride = ({ headDim, vDim }: BackwardSizes): number =>
  4 * vec4s(headDim) * (4 * vec4s(vDim) + 2);

/** How lanes divide the state by rows: lanes of a workgroup, and the columns of each. */
function rowBlocks({ headDim, vDim }: BackwardSizes) {
  const lanes = headDim <= 32 ? 32 : 64;
  const columns = blocksOf(vec4s(vDim), MOST_VEC4S);
  return { lanes, columns4: columns.size, blocks: columns.blocks };
}

/** How lanes divide the state by columns. Delta rules need whole columns in a workgroup. */
function columnBlocks({ headDim, vDim, delta }: BackwardSizes) {
  const d4 = vec4s(headDim);
  const shared = d4 <= 16 ? 1 : d4 <= 32 ? 2 : d4 <= 64 ? 4 : 8;
  const rows = blocksOf(d4, MOST_VEC4S);
  const rowLanes = delta ? shared : 1;
  return {
    rowLanes,
    stateRows: delta ? Math.ceil(d4 / shared) : rows.size,
    rowBlocks: delta ? 1 : rows.blocks,
    columns4: COLUMN_LANES / rowLanes / 4,
    columnBlocks: Math.ceil(vec4s(vDim) / (COLUMN_LANES / rowLanes / 4)),
  };
}

/** Parts of a row's gradient, one a block of columns, and those of a value's, one a block of rows. */
export const partsOf = (sizes: BackwardSizes): { rows: number; values: number } => ({
  rows: rowBlocks(sizes).blocks,
  values: columnBlocks(sizes).rowBlocks,
});

/** The most tokens, and the most readers of each, whose rows fit into workgroup memory. */
function tileThatFits(group: number, bytes: (tokens: number, readers: number) => number) {
  const choices = [8, 4, 2, 1].map((tokens) => ({ tokens, readers: group }));
  for (let readers = Math.ceil(group / 2); ; readers = Math.ceil(readers / 2)) {
    choices.push({ tokens: 1, readers });
    if (readers === 1) break;
  }
  return (
    choices.find(({ tokens, readers }) => bytes(tokens, readers) <= WORKGROUP_BYTES) ??
    choices[choices.length - 1]
  );
}

/** The constants of a walk with a row of the state in each lane. */
export function rowTile(kernel: LinearBackwardKernel, sizes: BackwardSizes) {
  const { lanes, columns4 } = rowBlocks(sizes);
  const { decayDim, delta } = sizes;
  const reversed = kernel === "sums reversed" || kernel === "reads reversed";
  const reads = kernel === "reads" || kernel === "applied" || reversed;
  const row = 4 * lanes;
  const columns = 16 * columns4;
  const { tokens, readers } = tileThatFits(
    reads ? sizes.group : 1,
    (tokens, readers) =>
      tokens * ((decayDim > 1 ? row : 4) + columns + (reversed && !delta ? 0 : row)) +
      tokens * (delta && reversed ? columns : 0) +
      tokens * readers * (columns + (reversed ? row + 4 : 0)) +
      64,
  );
  return { LANES: lanes, LANE_COLS4: columns4, TOKENS: tokens, READERS: readers };
}

/** The constants of a walk with a column of the state in each lane. */
export function columnTile(kernel: LinearBackwardKernel, sizes: BackwardSizes) {
  const { rowLanes, stateRows, columns4 } = columnBlocks(sizes);
  const padded = 16 * rowLanes * stateRows;
  const reads = kernel === "columns";
  const { tokens, readers } = tileThatFits(
    reads ? sizes.group : 1,
    (tokens, readers) =>
      tokens * (padded + (sizes.decayDim > 1 ? padded : 16) + 4) +
      tokens * (reads ? readers * (padded + 16 * columns4) : 16 * columns4) +
      4 * COLUMN_LANES +
      64,
  );
  return { ROW_LANES: rowLanes, STATE_ROWS: stateRows, TOKENS: tokens, READERS: readers };
}

/** Throws FoveaError("limit") for a state that no workgroup has room for. */
export function checkSizes(label: string, { headDim, delta }: BackwardSizes): void {
  check(
    !delta || headDim <= WIDEST_DELTA,
    "limit",
    () =>
      `${label}: head dim ${headDim} is too large for a delta rule, which runs token by token; the largest is ${WIDEST_DELTA}.`,
  );
}

/**
 * Workgroups of a kernel for each batch entry and state's head, of one chunk if it has several, and
 * operations of a workgroup for each token.
 */
export function workOf(
  kernel: LinearBackwardKernel,
  sizes: BackwardSizes,
): { workgroups: number; flops: number; chunked: boolean } {
  const { headDim, vDim, group, normalized } = sizes;
  const rows = rowBlocks(sizes);
  const columns = columnBlocks(sizes);
  const byColumns = 8 * COLUMN_LANES * columns.stateRows;
  const byRows = 8 * rows.lanes * rows.columns4;
  switch (kernel) {
    case "delta":
      return { workgroups: columns.columnBlocks, flops: 2 * byColumns, chunked: false };
    case "columns":
      return {
        workgroups: columns.columnBlocks * columns.rowBlocks,
        flops: byColumns * (2 + group),
        chunked: !sizes.delta,
      };
    case "decay":
      return {
        workgroups: Math.ceil(headDim / DECAY_LANES),
        flops: DECAY_LANES * (group + 1) * 4 * DECAY_CHUNK,
        chunked: true,
      };
    case "scan":
    case "scan reversed": {
      const elements = headDim * vec4s(vDim) + (normalized ? vec4s(headDim) : 0);
      return { workgroups: Math.ceil(elements / INVOCATIONS), flops: 0, chunked: false };
    }
    default:
      return {
        workgroups: Math.ceil(headDim / rows.lanes) * rows.blocks,
        flops: byRows * (2 + group),
        chunked: true,
      };
  }
}
