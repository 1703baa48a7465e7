// The stages of gradients of additive attention, and of the numbers of its layer.

import { unitVectorKernel } from "../../kernels/gradients/additive.ts";
import { type BackwardSpecialisation, backwardKernel } from "../../kernels/gradients/backward.ts";
import { SUMS_COLUMNS, sumsKernel } from "../../kernels/gradients/similarity.ts";
import { slotBindings } from "../../kernels/slots.ts";
import { accessOf } from "../../plan/access.ts";
import { type ResolvedSpec, reorder } from "../../plan/specs.ts";
import {
  asRows,
  clearRows,
  type OwnRows,
  padded,
  type SimilarityContext,
  sumStages,
  viewOf,
} from "./similarity_stages.ts";
import { type BackwardStage, backwardStages, operandIn, TANH_FLOPS } from "./stages.ts";

/**
 * How many queries are few, keys that a lane goes through, and invocations of a workgroup. For the
 * step of a decoder, one query, 8 keys, D = 96 and 50 entries, SwiftShader takes a twelfth of the
 * time of tiles, 8 ms, nearly all of the rest being barriers.
 */
const FEW = { queries: 8, keys: 1024, invocations: 64 } as const;

/**
 * The gradients of queries and keys, and after them those of the layer's numbers: sums of rows that
 * the kernel of queries has kept.
 */
export function additiveStages(context: SimilarityContext): BackwardStage[] {
  const { resolved, own } = context;
  const { headDim, similarityGradients: asked } = resolved;
  const [batch, heads, rows] = resolved.q.shape;
  const kept = {
    vector: asked.dVector !== undefined || asked.dGain !== undefined,
    bias: asked.dInnerBias !== undefined,
    scale: asked.dInnerScale !== undefined,
  };
  const kinds = Object.values(kept).filter(Boolean).length;
  const each = batch * heads * rows * padded(headDim);
  if (kinds) own("rows", kinds * each);
  /** The rows of a kind, which stand after those of others. */
  const rowsOf = (before: readonly boolean[]): OwnRows => ({
    name: "rows",
    shape: [batch, heads, rows, headDim],
    from: before.filter(Boolean).length * each,
  });
  const all: OwnRows = { name: "rows", shape: [batch, kinds * heads, rows, headDim] };
  const [delta, queries, keys] = backwardStages(context, undefined, kept);
  return [
    delta,
    ...(kinds ? clearRows(context, all) : []),
    ...(hasFewQueries(context) ? fewStages(context, queries, keys) : [queries, keys]),
    ...(kept.vector ? vectorStages(context, rowsOf([])) : []),
    ...(kept.bias ? sumsInto(context, rowsOf([kept.vector]), "dInnerBias") : []),
    ...(kept.scale ? totalInto(context, rowsOf([kept.vector, kept.bias]), "dInnerScale") : []),
  ];
}

/** Storage buffers of `pairs`, and of each side, beside those of attention. */
const FEW_BUFFERS = ["dOutput", "workspace", "pairs", "dV or rows"].length;

/** Whether weights of pairs may lie in memory: a few for each key, and not many keys to add up. */
function hasFewQueries({ device, resolved, slots }: SimilarityContext): boolean {
  const { seqQ, seqKv, batch, packed, blockMask, dCaptures } = resolved;
  const { lse: _l, rowMax: _m, ...read } = slots;
  const stored = slotBindings(read).filter(({ type }) => type !== "uniform").length;
  return (
    Math.min(seqQ, seqKv, batch) > 0 &&
    seqQ <= FEW.queries &&
    seqKv <= FEW.keys &&
    !packed &&
    !blockMask &&
    !dCaptures.length &&
    stored + FEW_BUFFERS <= device.limits.maxStorageBuffersPerShaderStage
  );
}

/** The gradients of both sides by the weights of pairs, which lie in memory of the plan. */
function fewStages(
  { resolved, own }: SimilarityContext,
  queries: BackwardStage,
  keys: BackwardStage,
): BackwardStage[] {
  const { batch, heads, kvHeads, seqQ, seqKv, headDim, vDim } = resolved;
  const pairs = batch * heads * seqQ * seqKv;
  own("pairs", 2 * pairs);
  const vec4s = (dim: number) => Math.ceil(dim / 4);
  const stage = (
    side: BackwardStage,
    kernel: Partial<BackwardSpecialisation>,
    { invocations, flops }: { readonly invocations: number; readonly flops: number },
  ): BackwardStage => {
    const slots = { ...(side.slots as BackwardSpecialisation), few: true as const, ...kernel };
    const qTiles = Math.ceil(invocations / FEW.invocations / batch);
    return {
      ...side,
      source: backwardKernel(slots),
      slots,
      names: { ...side.names, pairs: "pairs" },
      grid: { qTile: 1, qTiles, vSplits: 1, heads: 1, flops: 2 * FEW.invocations * flops },
    };
  };
  const group = heads / kvHeads;
  const { kept: _, ...unkept } = queries.slots as BackwardSpecialisation;
  return [
    stage(
      { ...queries, slots: unkept },
      { kernel: "pairs" },
      { invocations: pairs, flops: TANH_FLOPS * headDim + vDim },
    ),
    stage(
      queries,
      {},
      {
        invocations: batch * heads * seqQ * vec4s(headDim),
        flops: 4 * TANH_FLOPS * seqKv,
      },
    ),
    stage(
      keys,
      {},
      {
        invocations: batch * kvHeads * seqKv * vec4s(Math.max(headDim, vDim)),
        flops: 4 * (TANH_FLOPS + 1) * seqQ * group,
      },
    ),
  ];
}

/** Sums for each column, of all heads or of each. */
function sumsInto(
  context: SimilarityContext,
  rows: OwnRows,
  name: "dVector" | "dInnerBias",
): BackwardStage[] {
  const operand = operandIn(context.operands, name);
  const groups = operand.spec.shape.length === 1 ? 1 : rows.shape[1];
  return sumStages(context, rows, { name, operand: asRows(context.resolved, operand), groups });
}

/** The sum of all elements, for a gradient of one number: of each column first. */
function totalInto(
  context: SimilarityContext,
  rows: OwnRows,
  name: "dVector" | "dInnerScale",
): BackwardStage[] {
  const columns = rows.shape[3];
  const sums: OwnRows = { name: `columns of ${name}`, shape: [1, 1, 1, columns] };
  context.own(sums.name, padded(columns));
  const operand = viewOf(context.resolved, sums, false);
  return [
    ...sumStages(context, rows, { name: sums.name, operand, groups: 1 }),
    elementsInto(context, { name: sums.name, count: columns }, name),
  ];
}

/** The sum of elements that follow each other. */
function elementsInto(
  { device, resolved, operands, slots }: SimilarityContext,
  from: { readonly name: string; readonly count: number },
  name: "dVector" | "dInnerScale" | "dGain",
): BackwardStage {
  const spec: ResolvedSpec = {
    shape: [1, 1, from.count, 1],
    strides: [0, 0, 1, 1],
    offset: 0,
    dtype: "f32",
  };
  const view = { ...operandIn(operands, from.name), spec: reorder(spec, resolved.layout) };
  const output = asRows(resolved, operandIn(operands, name));
  const access = { rows: accessOf(device, view), sums: accessOf(device, output) };
  return {
    source: sumsKernel({ dim: 1, ...access }),
    names: { q: from.name, o: name },
    views: { q: view, output },
    slots: { ...slots, q: access.rows, o: access.sums },
    places: { q_outer: 1, n_heads: 1, total_q: from.count, group_size: 1 },
    grid: { qTile: 1, qTiles: 1, vSplits: 1, heads: 1, flops: SUMS_COLUMNS * from.count },
    problem: { ...resolved, batch: 1 },
  };
}

/** The gradient of the vector; with a normalised vector, through its length and gain. */
function vectorStages(context: SimilarityContext, rows: OwnRows): BackwardStage[] {
  const { device, resolved, operands, slots, own } = context;
  const { dVector, dGain } = resolved.similarityGradients;
  const { similarity } = slots;
  const isNumber = dVector?.shape.length === 1 && dVector.shape[0] !== resolved.headDim;
  const vectorOf = (from: OwnRows) =>
    isNumber ? totalInto(context, from, "dVector") : sumsInto(context, from, "dVector");
  if (similarity?.kind !== "additive" || !similarity.unitVector) return vectorOf(rows);
  const [, heads, , columns] = rows.shape;
  const used: OwnRows = { name: "vectors in use", shape: [1, heads, 1, columns] };
  const vectors: OwnRows = { ...used, name: "vectors" };
  own(used.name, heads * padded(columns));
  own(vectors.name, heads * padded(columns));
  own("gains", heads);
  const q = viewOf(resolved, used, false);
  const output = viewOf(resolved, vectors, false);
  const access = accessOf(device, q);
  const gains = (): BackwardStage[] => {
    if (dGain?.shape[0] === 1 && heads !== 1)
      return [elementsInto(context, { name: "gains", count: heads }, "dGain")];
    const operand = asRows(resolved, operandIn(operands, "dGain"));
    const one: OwnRows = { name: "gains", shape: [1, 1, 1, heads] };
    return sumStages(context, one, { name: "dGain", operand, groups: 1 });
  };
  return [
    ...sumStages(context, rows, { name: used.name, operand: q, groups: heads }),
    {
      source: unitVectorKernel(columns),
      names: { q: used.name, o: vectors.name },
      views: { q, output },
      slots: { ...slots, q: access, o: access },
      grid: { qTile: 1, qTiles: heads, vSplits: 1, heads: 1, flops: 64 * columns },
      problem: { ...resolved, batch: 1 },
    },
    ...(dGain ? gains() : []),
    ...(dVector ? vectorOf(vectors) : []),
  ];
}
