// The kernel of a product of matrices, and how it covers y.

import { tileLimits } from "../../gpu/device.ts";
import { isAligned } from "../../kernels/access.ts";
import {
  chooseMatmulTile,
  MATMUL_PARAMS,
  type MatmulOperands,
  matmulKernel,
  matmulTileSize,
} from "../../kernels/matmul.ts";
import { chooseMatvec, matvecKernel, matvecTile } from "../../kernels/products/matvec.ts";
import { accessOf, addresses } from "../../plan/access.ts";
import type { Stage } from "../../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../../plan/specs.ts";
import { exchangedRows, type ResolvedProjection } from "../projection_problem.ts";

const BHMD = { layout: "bhmd" } as const;

/** What a product is: its tensors with four axes, and how they are read. */
type Product = Omit<ResolvedProjection, "given">;

/** The stage that computes a product. */
export function productStage(device: GPUDevice, product: Product): Stage {
  const { folded, maxDispatchFlops, variant, quantised } = product;
  const [batch, heads, rows, inner] = folded.x.shape;
  const columns = folded.output.shape[3];
  const [, , byColumn, byInner] = folded.weight.strides;
  const columnsAdjacent = byColumn === 1 && byInner !== 1 && !quantised;
  const shape = chooseMatvec({ rows, inner, columnsAdjacent }, tileLimits(device), variant);
  const turned = shape?.form === "columns";
  const at = (spec: ResolvedSpec) => ({ spec, base: bindingBase(device, spec) });
  const x = at(folded.x);
  const weight = at(turned ? exchangedRows(folded.weight) : folded.weight);
  const output = at(folded.output);
  const bias = folded.bias && at(folded.bias);
  const operands: MatmulOperands = {
    x: accessOf(device, x),
    weight: quantised ? "words" : accessOf(device, weight),
    quantised,
    y: accessOf(device, output),
    bias: bias && accessOf(device, bias),
    oddColumns: columns % 4 === 0 ? undefined : columns,
  };
  const { source, size } = shape
    ? {
        source: matvecKernel({ ...operands, shape, endsWithinVec4: inner % 4 !== 0 }),
        size: matvecTile(shape),
      }
    : tiled(device, product, { ...operands, columnsAdjacent });
  const rowTiles = Math.ceil(rows / size.rows);
  const columnTiles = Math.ceil(columns / size.columns);
  const values = {
    rows,
    columns,
    inner,
    n_heads: heads,
    row_tiles: rowTiles,
    column_tiles: columnTiles,
    ...addresses("source", "n", x, isAligned(operands.x), BHMD),
    ...addresses("weight", "n", weight, isAligned(operands.weight), BHMD),
    ...addresses("bias", "n", bias, isAligned(operands.bias ?? "dense"), BHMD),
    ...addresses("o", "m", output, isAligned(operands.y), BHMD),
  };
  return {
    source,
    names: { source: "x" },
    params: { struct: MATMUL_PARAMS, values },
    workgroups: batch * heads * rowTiles * columnTiles,
    flops: [Math.max(1, 2 * size.rows * size.columns * inner), maxDispatchFlops],
  };
}

/** The kernel for many rows. */
function tiled(
  device: GPUDevice,
  { folded, variant }: Product,
  operands: MatmulOperands & { readonly columnsAdjacent: boolean },
) {
  const [batch, heads, rows] = folded.x.shape;
  const columns = folded.output.shape[3];
  const tile = chooseMatmulTile(batch * heads * rows, columns, tileLimits(device), variant);
  return { source: matmulKernel({ ...operands, tile }), size: matmulTileSize(tile) };
}
