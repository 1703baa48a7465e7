// The kernels of a projection's gradients, and how they cover their outputs.

import { tileLimits } from "../gpu/device.ts";
import { type Access, isAligned } from "../kernels/access.ts";
import {
  columnSumsKernel,
  columnSumsWorkgroups,
  SUM_PARAMS,
} from "../kernels/gradients/column_sums.ts";
import {
  chooseTurnedTile,
  isLong,
  TURNED_PARAMS,
  type TurnedChunks,
  turnedChunks,
  turnedKernel,
} from "../kernels/gradients/matmul_turned.ts";
import { chooseMatmulTile, type MatmulTile, matmulTileSize } from "../kernels/matmul.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Caller, Stage } from "../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import { productStage } from "./products/product.ts";
import { padTo4, type ResolvedProjectionBackward } from "./projection_backward_problem.ts";
import { exchangedRows } from "./projection_problem.ts";

const BHMD = { layout: "bhmd" } as const;

/** A tensor of a kernel, and how it is reached. */
interface Reached {
  readonly spec: ResolvedSpec;
  readonly base: number;
  readonly access: Access;
}

function reached(device: GPUDevice, spec: ResolvedSpec): Reached {
  const operand = { spec, base: bindingBase(device, spec) };
  return { ...operand, access: accessOf(device, operand) };
}

/** A tensor of the workspace, which begins with it. */
const inWorkspace = (shape: readonly number[]): Reached => ({
  spec: {
    shape,
    strides: shape.map((_, axis) => shape.slice(axis + 1).reduce((all, size) => all * size, 1)),
    offset: 0,
    dtype: "f32",
  },
  base: 0,
  access: "dense",
});

const odd = (columns: number): number | undefined => (columns % 4 === 0 ? undefined : columns);

/** dX = dOutput W. */
export function inputStages(
  { ofX, variant, maxDispatchFlops }: ResolvedProjectionBackward,
  { device }: Caller,
): readonly Stage[] {
  if (!ofX) return [];
  const { dX, dOutput, weight } = ofX;
  const [batch, heads, rows, columns] = dX.shape;
  const limits = tileLimits(device);
  const forward = chooseMatmulTile(batch * heads * rows, columns, limits, variant);
  // A weight that is stored [in, out] is what the forward kernel reads along rows.
  const [, , byColumn, byInput] = weight.strides;
  if (forward.form === "quads" || (byInput !== 1 && byColumn === 1)) {
    const folded = { x: dOutput, weight: exchangedRows(weight), output: dX, bias: undefined };
    const stage = productStage(device, { folded, maxDispatchFlops, variant });
    return [{ ...stage, names: { source: "dOutput", o: "dX" } }];
  }
  const size = { rows: batch * heads * rows, columns, sourceTurned: false };
  const tile = chooseTurnedTile(size, limits, variant);
  const { all, ofGroup, inner } = turnedChunks(tile, {
    groups: 1,
    inner: weight.shape[2],
    tiles: 1,
  });
  return [
    turnedStage({
      device,
      tile,
      chunks: { all, ofGroup, inner, ofShare: all, shares: 1 },
      source: reached(device, dOutput),
      weight: reached(device, weight),
      o: reached(device, dX),
      names: { source: "dOutput", o: "dX" },
      sourceTurned: false,
      summed: [1, 1],
      maxDispatchFlops,
    }),
  ];
}

/** dWeight = dOutput^T x, and the sum of its shares. */
export function weightStages(
  { ofWeight, maxDispatchFlops }: ResolvedProjectionBackward,
  { device }: Caller,
): readonly Stage[] {
  if (!ofWeight) return [];
  const { tile, chunks, folded, source, weight, summed } = ofWeight;
  const { dWeight } = folded;
  const [batches, heads, rows, columns] = dWeight.shape;
  const whole = reached(device, dWeight);
  const { shares } = chunks;
  const isShared = shares > 1;
  const wide = padTo4(columns);
  const product = turnedStage({
    device,
    tile,
    chunks,
    source: reached(device, folded[source]),
    weight: reached(device, folded[weight]),
    o: isShared ? inWorkspace([shares * batches, heads, rows, wide]) : whole,
    names: { source, weight, o: isShared ? "workspace" : "dWeight" },
    sourceTurned: true,
    summed,
    maxDispatchFlops,
    // The shares are counted before the batch entries of the output.
    output: dWeight.shape,
  });
  if (!isShared) return [product];
  const sums = sumStage({
    source: inWorkspace([1, 1, shares, batches * heads * rows * wide]),
    o: whole,
    partRows: shares,
    parts: 1,
    names: { source: "workspace", o: "dWeight" },
  });
  return [product, sums];
}

/** dBias = the sum of the rows of dOutput, in parts if there are many. */
export function biasStages(
  { ofBias, given }: ResolvedProjectionBackward,
  { device }: Caller,
): readonly Stage[] {
  if (!ofBias || !given.dBias) return [];
  const { dOutput, partRows } = ofBias;
  const [batch, heads, rows, columns] = dOutput.shape;
  const [stride] = given.dBias.strides;
  const whole = reached(device, {
    ...given.dBias,
    shape: [1, 1, 1, columns],
    strides: [0, 0, 0, stride],
  });
  const source = reached(device, dOutput);
  const parts = Math.max(1, Math.ceil((batch * heads * rows) / partRows));
  if (parts === 1) {
    const names = { source: "dOutput", o: "dBias" };
    return [sumStage({ source, o: whole, partRows, parts, names })];
  }
  const wide = padTo4(columns);
  return [
    sumStage({
      source,
      o: inWorkspace([parts, 1, 1, wide]),
      partRows,
      parts,
      names: { source: "dOutput", o: "workspace" },
    }),
    sumStage({
      source: inWorkspace([1, 1, parts, wide]),
      o: whole,
      partRows: parts,
      parts: 1,
      names: { source: "workspace", o: "dBias" },
    }),
  ];
}

/** A product with a turned weight. */
interface TurnedProduct {
  readonly device: GPUDevice;
  readonly tile: MatmulTile;
  readonly chunks: TurnedChunks;
  readonly source: Reached;
  readonly weight: Reached;
  readonly o: Reached;
  readonly names: Stage["names"];
  readonly sourceTurned: boolean;
  readonly summed: readonly [batches: number, heads: number];
  readonly maxDispatchFlops: number;
  /** The shape of the output without shares. Default: that of `o`. */
  readonly output?: readonly number[];
}

function turnedStage(product: TurnedProduct): Stage {
  const { tile, chunks, source, weight, o, names, sourceTurned, summed } = product;
  const [batches, heads, rows, columns] = product.output ?? o.spec.shape;
  const size = matmulTileSize(tile);
  const rowTiles = Math.ceil(rows / size.rows);
  const columnTiles = Math.ceil(columns / size.columns);
  const kernel = turnedKernel({
    tile,
    source: source.access,
    weight: weight.access,
    o: o.access,
    sourceTurned,
    grouped: summed[0] * summed[1] > 1,
    carried: sourceTurned && isLong(chunks),
    oddColumns: odd(o.spec.shape[3]),
  });
  const values = {
    rows,
    columns,
    inner: weight.spec.shape[2],
    n_heads: heads,
    batches,
    row_tiles: rowTiles,
    column_tiles: columnTiles,
    summed_heads: summed[1],
    group_chunks: chunks.ofGroup,
    all_chunks: chunks.all,
    share_chunks: chunks.ofShare,
    ...addresses("source", "n", source, isAligned(source.access), BHMD),
    ...addresses("weight", "n", weight, isAligned(weight.access), BHMD),
    ...addresses("o", "m", o, isAligned(o.access), BHMD),
  };
  return {
    source: kernel,
    names,
    params: { struct: TURNED_PARAMS, values },
    workgroups: chunks.shares * batches * heads * rowTiles * columnTiles,
    flops: [
      Math.max(1, 2 * size.rows * size.columns * chunks.inner * chunks.ofShare),
      product.maxDispatchFlops,
    ],
  };
}

/** A sum over rows, whose columns go on over the rows of the output. */
interface Sum {
  readonly source: Reached;
  readonly o: Reached;
  readonly partRows: number;
  readonly parts: number;
  readonly names: Stage["names"];
}

function sumStage({ source, o, partRows, parts, names }: Sum): Stage {
  const [batch, heads, rows] = source.spec.shape;
  const [batches, oHeads, oRows, width] = o.spec.shape;
  const width4 = Math.ceil(width / 4);
  const columns4 = (batches / parts) * oHeads * oRows * width4;
  const values = {
    columns4,
    parts,
    part_rows: partRows,
    all_rows: batch * heads * rows,
    rows,
    source_heads: heads,
    width4,
    o_rows: oRows,
    n_heads: oHeads,
    ...addresses("source", "n", source, isAligned(source.access), BHMD),
    ...addresses("o", "m", o, isAligned(o.access), BHMD),
  };
  return {
    source: columnSumsKernel({ source: source.access, o: o.access, oddColumns: odd(width) }),
    names,
    params: { struct: SUM_PARAMS, values },
    workgroups: columnSumsWorkgroups(columns4, parts),
  };
}
