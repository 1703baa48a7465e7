// The problem of a projection's gradients: its tensors, checked before the GPU sees any of them.

import type { OptionNames } from "../given.ts";
import { tileLimits } from "../gpu/device.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { rowsOfPart } from "../kernels/gradients/column_sums.ts";
import {
  chooseTurnedTile,
  type TurnedChunks,
  turnedChunks,
} from "../kernels/gradients/matmul_turned.ts";
import { type MatmulTile, matmulTileSize } from "../kernels/matmul.ts";
import { gradientsOf } from "../plan/gradients.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { expectAsked } from "./gradient_names.ts";
import {
  checkedFactors,
  checkedFlops,
  exchangedRows,
  foldRows,
  forFactors,
  type ProjectionProblem,
  padded,
} from "./projection_problem.ts";

/** The names of a projection's gradients. */
export type ProjectionGradient = "dX" | "dWeight" | "dBias";

/**
 * The gradients of a projection that a plan is made for. Shapes and strides are fixed by the plan;
 * memory is given at encode.
 */
export interface ProjectionBackwardProblem
  extends Pick<ProjectionProblem, "x" | "weight" | "maxDispatchFlops" | "variant"> {
  /** [..., N], the gradient of the output. f32, f16 or bf16. */
  readonly dOutput: TensorSpec;
  /**
   * The gradients to compute. Default: all three, `["dX", "dWeight", "dBias"]`. What only others
   * would read is not bound: x is for dWeight, and the weight for dX.
   */
  readonly gradients?: readonly ProjectionGradient[];
  /** [..., K], the gradient of x. Default: dense, of the dtype of x. */
  readonly dX?: TensorSpec;
  /** The gradient of the weight, of its shape. Default: dense, of the dtype of the weight. */
  readonly dWeight?: TensorSpec;
  /** [N], the gradient of the bias. Default: dense, of the dtype of the weight. */
  readonly dBias?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"projectionBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const PROJECTION_BACKWARD_PROBLEM: OptionNames<ProjectionBackwardProblem> = {
  x: "any",
  weight: "any",
  dOutput: "any",
  gradients: "any",
  dX: "any",
  dWeight: "any",
  dBias: "any",
  maxDispatchFlops: "number",
  variant: "string",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface ProjectionBackwardBindings {
  readonly dOutput?: Tensor;
  /** Bound only if the plan computes dWeight. */
  readonly x?: Tensor;
  /** Bound only if the plan computes dX. */
  readonly weight?: Tensor;
  /** Bound only if the plan computes it, as are the members that follow. */
  readonly dX?: Tensor;
  readonly dWeight?: Tensor;
  readonly dBias?: Tensor;
}

/** The gradient of the weight: the product dy^T x, or x^T dy if rows of dWeight are stored so. */
export interface WeightGradient {
  readonly tile: MatmulTile;
  readonly chunks: TurnedChunks;
  /** Names of the tensors that are source and weight of the product. */
  readonly source: "x" | "dOutput";
  readonly weight: "x" | "dOutput";
  /** Tensors with four axes: x and dOutput [b, h, rows, K or N], dWeight [b, h, N or K, K or N]. */
  readonly folded: Readonly<Record<"x" | "dOutput" | "dWeight", ResolvedSpec>>;
  /** Batch entries and heads over which each sum runs. */
  readonly summed: readonly [batches: number, heads: number];
}

/** Checked gradients of a projection. */
export interface ResolvedProjectionBackward {
  readonly maxDispatchFlops: number;
  readonly variant: string | undefined;
  /** The tensors as the caller gave them; undefined if no gradient needs them. */
  readonly given: {
    readonly [Name in "x" | "weight" | "dOutput" | ProjectionGradient]: ResolvedSpec | undefined;
  };
  /** Tensors of dX with four axes, [b, h, rows, K or N], and the weight [b | 1, h | 1, N, K]. */
  readonly ofX: Readonly<Record<"dOutput" | "weight" | "dX", ResolvedSpec>> | undefined;
  readonly ofWeight: WeightGradient | undefined;
  /** dOutput with four axes, and the rows of each part of the sum. */
  readonly ofBias: { readonly dOutput: ResolvedSpec; readonly partRows: number } | undefined;
  /** Elements of f32 that sums in parts need. */
  readonly workspace: number;
}

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveProjectionBackward(
  problem: ProjectionBackwardProblem,
  { label, device }: Caller,
): ResolvedProjectionBackward {
  const { variant } = problem;
  const maxDispatchFlops = checkedFlops(label, problem.maxDispatchFlops);
  const { x, weight, each, shape } = checkedFactors(label, problem);
  const known = { dX: x, dWeight: weight, dBias: shape };
  const asked = gradientsOf<ProjectionGradient>(label, problem.gradients, known);
  const { dX: toX, dWeight: toWeight, dBias: toBias } = problem;
  expectAsked(label, asked, { dX: toX, dWeight: toWeight, dBias: toBias });
  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  expectShape(label, "dOutput", dOutput, shape, forFactors(x, weight));
  const gradient = (name: ProjectionGradient, like: Pick<ResolvedSpec, "shape" | "dtype">) => {
    if (!asked.has(name)) return undefined;
    const given = problem[name];
    const spec =
      given === undefined
        ? resolveSpec(label, { shape: like.shape, dtype: like.dtype })
        : checkedSpec(label, name, given, FLOATS);
    expectShape(label, name, spec, like.shape, forFactors(x, weight));
    expectApart(label, name, spec);
    return spec;
  };
  const dX = gradient("dX", x);
  const dWeight = gradient("dWeight", weight);
  const dBias = gradient("dBias", { shape: shape.slice(-1), dtype: weight.dtype });
  const folded = (one: ResolvedSpec, other: ResolvedSpec) =>
    each ? [padded(one), padded(other)] : foldRows(one, other);
  const given = {
    x: dWeight && x,
    weight: dX && weight,
    dOutput,
    dX,
    dWeight,
    dBias,
  };
  const [foldedDx, ofDx] = dX ? folded(dX, dOutput) : [];
  const ofWeight = dWeight && weightGradient({ x, dOutput, dWeight }, folded, { device, variant });
  const [ofDBias] = foldRows(dOutput, dOutput);
  const partRows = rowsOfPart(rowsOf(ofDBias));
  const parts = Math.ceil(rowsOf(ofDBias) / partRows);
  const [columns] = shape.slice(-1);
  return {
    maxDispatchFlops,
    variant,
    given,
    ofX: foldedDx && ofDx && { dX: foldedDx, dOutput: ofDx, weight: padded(weight) },
    ofWeight,
    ofBias: dBias && { dOutput: ofDBias, partRows },
    workspace: Math.max(
      ofWeight && ofWeight.chunks.shares > 1 ? elementsOfShares(ofWeight) : 0,
      dBias && parts > 1 ? parts * padTo4(columns) : 0,
    ),
  };
}

/** Rows of a tensor of four axes. */
const rowsOf = ({ shape: [batch, heads, rows] }: ResolvedSpec): number => batch * heads * rows;

export const padTo4 = (size: number): number => 4 * Math.ceil(size / 4);

function elementsOfShares({ chunks, folded }: WeightGradient): number {
  const [batches, heads, rows, columns] = folded.dWeight.shape;
  return chunks.shares * batches * heads * rows * padTo4(columns);
}

/** How the gradient of the weight is computed. */
function weightGradient(
  specs: Readonly<Record<"x" | "dOutput" | "dWeight", ResolvedSpec>>,
  fold: (one: ResolvedSpec, other: ResolvedSpec) => readonly ResolvedSpec[],
  { device, variant }: { readonly device: GPUDevice; readonly variant: string | undefined },
): WeightGradient {
  const [x, dOutput] = fold(specs.x, specs.dOutput);
  const whole = padded(specs.dWeight);
  // A gradient that is stored [in, out] is the product of the same two the other way round.
  const [, , byColumn, byInput] = whole.strides;
  const exchanged = byColumn === 1 && byInput !== 1;
  const dWeight = exchanged ? exchangedRows(whole) : whole;
  const [batches, heads, rows, columns] = dWeight.shape;
  const tile = chooseTurnedTile(
    { rows: rows * batches * heads, columns, sourceTurned: true },
    tileLimits(device),
    variant,
  );
  const size = matmulTileSize(tile);
  const summed = [x.shape[0] / batches, x.shape[1] / heads].map((count) => count || 0);
  const chunks = turnedChunks(tile, {
    groups: summed[0] * summed[1],
    inner: x.shape[2],
    tiles: batches * heads * Math.ceil(rows / size.rows) * Math.ceil(columns / size.columns),
  });
  return {
    tile,
    chunks,
    source: exchanged ? "x" : "dOutput",
    weight: exchanged ? "dOutput" : "x",
    folded: { x, dOutput, dWeight },
    summed: [summed[0], summed[1]],
  };
}
