// The stages that gradients of a similarity need beside those of products: from gradients of
// normalised rows to those of q and k, and sums over rows for the numbers that all rows share.

import {
  NORMALIZED_ROWS,
  normalizedKernel,
  SUMS_COLUMNS,
  SUMS_ROWS,
  sumsKernel,
} from "../../kernels/gradients/similarity.ts";
import { accessOf } from "../../plan/access.ts";
import type { Operand } from "../../plan/operand.ts";
import { type ResolvedSpec, reorder } from "../../plan/specs.ts";
import type { TablePlaces } from "../../scores/resolved.ts";
import type { SimilarityGradient } from "./similarity_problem.ts";
import {
  type BackwardStage,
  backwardStages,
  clearStage,
  operandIn,
  type Planned,
} from "./stages.ts";

/** What stages of a similarity are made from. */
export interface SimilarityContext extends Planned {
  readonly places: TablePlaces;
  /** Allocates f32 scratch memory that the plan owns, under a name that no caller may bind. */
  own(name: string, elements: number): void;
}

/** Rows of the plan's own: [B, H, M, D], D padded to a multiple of 4, from an element on. */
export interface OwnRows {
  readonly name: string;
  readonly shape: readonly [batch: number, heads: number, rows: number, columns: number];
  readonly from?: number;
}

export const padded = (columns: number) => Math.ceil(columns / 4) * 4;

const sizeOf = ({ shape: [batch, heads, rows, columns] }: OwnRows) =>
  batch * heads * rows * padded(columns);

/** Own rows as an operand. Columns of padding are left out, or count as columns. */
export function viewOf(
  { layout }: SimilarityContext["resolved"],
  { shape, from = 0 }: OwnRows,
  withPadding: boolean,
): Operand {
  const [batch, heads, rows, columns] = shape;
  const width = padded(columns);
  const strides = [heads * rows * width, rows * width, width, 1];
  const spec: ResolvedSpec = {
    shape: [batch, heads, rows, withPadding ? width : columns],
    strides,
    offset: 0,
    dtype: "f32",
  };
  return { spec: reorder(spec, layout), base: from, fallback: undefined, written: true };
}

/** A gradient of the options, [D] or [H, D], as an operand [1, groups, 1, D]. */
export function asRows(
  { layout }: SimilarityContext["resolved"],
  { spec, ...operand }: Operand,
): Operand {
  const { shape, strides } = spec;
  const [heads, columns] = shape.length === 1 ? [1, shape[0]] : shape;
  const [ofHead, ofColumn] = shape.length === 1 ? [0, strides[0]] : strides;
  const rows = { ...spec, shape: [1, heads, 1, columns], strides: [0, ofHead, 0, ofColumn] };
  return { ...operand, spec: reorder(rows, layout) };
}

/** Where sums go: a tensor of the plan, as the operand [1, groups, 1, D]. */
export interface SumsTarget {
  readonly name: string;
  readonly operand: Operand;
  /** The sums of a group of heads are one row. */
  readonly groups: number;
}

/** The stages that add up rows, in one run or in two. */
export function sumStages(
  context: SimilarityContext,
  rows: OwnRows,
  { name, operand, groups }: SumsTarget,
): BackwardStage[] {
  const { device, resolved, slots } = context;
  const [batch, heads, count, columns] = rows.shape;
  const parts = Math.max(1, Math.ceil((batch * (heads / groups) * count) / SUMS_ROWS));
  const stage = (
    from: { readonly rows: OwnRows; readonly dim: number; readonly parts: number },
    into: { readonly name: string; readonly operand: Operand },
  ): BackwardStage => {
    const q = viewOf(resolved, from.rows, from.dim !== columns);
    const access = { rows: accessOf(device, q), sums: accessOf(device, into.operand) };
    const [q_outer, n_heads, total_q] = from.rows.shape;
    return {
      source: sumsKernel({ dim: from.dim, ...access }),
      names: { q: from.rows.name, o: into.name },
      views: { q, output: into.operand },
      slots: { ...slots, q: access.rows, o: access.sums },
      places: { q_outer, n_heads, total_q, group_size: n_heads / groups },
      grid: {
        qTile: 1,
        qTiles: Math.ceil(from.dim / SUMS_COLUMNS) * from.parts * groups,
        vSplits: 1,
        kvSplits: from.parts,
        heads: 1,
        flops: 16 * SUMS_COLUMNS * Math.ceil((q_outer * n_heads * total_q) / groups / from.parts),
      },
      problem: { ...resolved, batch: 1 },
    };
  };
  if (parts === 1) return [stage({ rows, dim: columns, parts }, { name, operand })];
  const partial: OwnRows = { name: `partials of ${name}`, shape: [1, groups, parts, columns] };
  context.own(partial.name, sizeOf(partial));
  const padding = padded(columns);
  return [
    stage(
      { rows, dim: padding, parts },
      { name: partial.name, operand: viewOf(resolved, partial, true) },
    ),
    stage({ rows: partial, dim: columns, parts: 1 }, { name, operand }),
  ];
}

/** Zeros in own rows of packed sequences, of which some belong to no entry. */
export function clearRows(context: SimilarityContext, rows: OwnRows): BackwardStage[] {
  const { resolved } = context;
  const [, heads, count, columns] = rows.shape;
  if (!resolved.packed) return [];
  const operand = viewOf(resolved, rows, true);
  return [clearStage(context, { name: rows.name, operand, dim: padded(columns) }, [heads, count])];
}

/**
 * The stages of normalised rows. The kernels of products leave gradients of normalised and weighed
 * rows in memory of the plan, f32 whatever the gradients are; those of q are done with before those
 * of k take their place.
 */
export function normalizedStages(context: SimilarityContext): BackwardStage[] {
  const { device, resolved, operands, slots, places } = context;
  const { headDim, similarityGradients } = resolved;
  const rowsOf = ([batch, heads, rows]: readonly number[]): OwnRows => ({
    name: "rows",
    shape: [batch, heads, rows, headDim],
  });
  const qRows = rowsOf(resolved.q.shape);
  const kRows = rowsOf(resolved.k.shape);
  context.own("rows", Math.max(sizeOf(qRows), sizeOf(kRows)));
  const target = (rows: OwnRows) => ({
    name: rows.name,
    operand: viewOf(resolved, rows, true),
  });
  const [delta, queries, keys] = backwardStages(context, {
    queries: target(qRows),
    keys: target(kRows),
  });
  const { similarity } = slots;
  const kind = similarity?.kind === "normalized" ? similarity : undefined;
  const finish = (
    rows: OwnRows,
    {
      x: from,
      dX: into,
      dWeights,
      weighed,
      at,
    }: {
      readonly x: "q" | "k";
      readonly dX: "dQ" | "dK";
      readonly dWeights: SimilarityGradient;
      readonly weighed: boolean;
      readonly at: TablePlaces;
    },
  ): BackwardStage[] => {
    const spec = {
      headDim,
      x: accessOf(device, operandIn(operands, from)),
      dX: accessOf(device, operandIn(operands, into)),
      rms: kind?.rms ?? false,
      weights: weighed,
      keep: similarityGradients[dWeights] !== undefined,
    };
    const [q_outer, n_heads, total_q] = rows.shape;
    const sums = () => {
      const operand = asRows(resolved, operandIn(operands, dWeights));
      return sumStages(context, rows, { name: dWeights, operand, groups: 1 });
    };
    return [
      {
        source: normalizedKernel(spec),
        names: { q: from, o: into, rows: rows.name },
        views: { q: operandIn(operands, from), output: operandIn(operands, into) },
        slots: { ...slots, q: spec.x, o: spec.dX },
        places: { q_outer, n_heads, total_q, ...at },
        grid: {
          qTile: NORMALIZED_ROWS,
          qTiles: Math.ceil((q_outer * n_heads * total_q) / NORMALIZED_ROWS),
          vSplits: 1,
          heads: 1,
          flops: 32 * NORMALIZED_ROWS * headDim,
        },
        problem: { ...resolved, batch: 1 },
      },
      ...(spec.keep ? sums() : []),
    ];
  };
  return [
    delta,
    ...clearRows(context, qRows),
    queries,
    ...finish(qRows, {
      x: "q",
      dX: "dQ",
      dWeights: "dQWeights",
      weighed: kind?.qWeights ?? false,
      at: {},
    }),
    ...clearRows(context, kRows),
    keys,
    ...finish(kRows, {
      x: "k",
      dX: "dK",
      dWeights: "dKWeights",
      weighed: kind?.kWeights ?? false,
      at: { q_norms_at: places.k_norms_at ?? 0, q_weights_at: places.k_weights_at ?? 0 },
    }),
  ];
}
