// Puts multi-head attention together from its parts: a plan for each, and the memory between them.
//
//     query, key, value --project--> q, k, v --attention--> heads --project--> output
//                                                 |
//     a learned key, or one of zeros: --attention-+--merge
//
// q, k, v and heads are [B, rows, heads * dim]; attention reads them as [B, heads, rows, dim] by
// strides. Attention to keys that the layer adds is computed separately and merged, exactly, so
// that no mask, length or position applies to these keys.

import type { AttentionBindings } from "../attention/bindings.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { ScoreOptions } from "../scores/options.ts";
import { splitHeads } from "./heads.ts";
import type { Layer, Part, PartialPlaces, Parts, Scores } from "./multi_head_parts.ts";
import type { ResolvedMultiHead } from "./multi_head_problem.ts";
import { bound, columnsPlace, type Place, splitPlace } from "./places.ts";

/** The state of putting a layer together: the parts so far, the layer and its problem. */
export interface Site {
  readonly parts: Parts;
  readonly layer: Layer;
  readonly problem: ResolvedMultiHead;
}

/** Adds all parts of a layer, and gives them once they are compiled. */
export async function buildParts(site: Site): Promise<Part[]> {
  const { parts, layer, problem } = site;
  const { output: last } = layer.weights;
  const output = bound("output", problem.output);
  const { lse, weights } = problem;
  const heads = await buildHeads(site, {
    joined: last ? undefined : output,
    lse: lse ? bound("lse", lse) : weights !== undefined,
  });
  if (weights) writeProbabilities(site, heads, bound("weightsOutput", weights));
  if (last) parts.project(heads.joined, last, output);
  return parts.done();
}

/** Attention of the heads: what it reads, and the places of its results. */
export interface Heads {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly scores: Scores;
  readonly addedScores: Scores;
  /** The results of the heads, side by side: [B, M, H * Dv]. */
  readonly joined: Place;
  /** The log-sum-exp over all keys. */
  readonly lse: Place | undefined;
  /** If attention over keys that the layer adds is computed separately: the two that are merged. */
  readonly merged: { readonly own: PartialHeads; readonly added: PartialHeads } | undefined;
}

/** Attention of the heads over some of the keys. */
export interface PartialHeads extends PartialPlaces {
  readonly scores: Scores;
  readonly k: Tensor;
  readonly v: Tensor;
}

/**
 * Adds the projections of query, key and value, and attention.
 *
 * @param joined Where the results of the heads go. Default: memory of the plan.
 * @param lse Where the log-sum-exp goes: true for memory of the plan.
 */
export async function buildHeads(
  site: Site,
  { joined: given, lse }: { readonly joined: Place | undefined; readonly lse: Place | boolean },
): Promise<Heads> {
  const { parts, layer, problem } = site;
  const { sizes } = layer;
  const { batch, rowsQ, options, storage } = problem;
  const { heads, vDim } = sizes;
  const mask = await parts.joinedMask();
  const { q, k, v } = projectedHeads(site);

  const extra = extraKey(site);
  const sinks = sinksOf(site, extra !== undefined);
  const scores = { options: { ...options, ...sinks.own }, mask, bindingsOf: ownBindings };
  const addedScores = {
    options: addedOptions(options),
    mask: undefined,
    bindingsOf: addedBindings,
  };
  const joined = given ?? parts.own("heads", [batch, rowsQ, heads * vDim], extra ? "f32" : storage);
  const o = splitPlace(joined, heads);
  const total =
    typeof lse === "object"
      ? lse
      : lse || extra
        ? parts.own("lse", [batch, heads, rowsQ])
        : undefined;

  const built = { q, k, v, scores, addedScores, joined, lse: total };
  if (!extra || !total) {
    parts.attend(scores, { q, k, v }, { output: o, lse: total });
    return { ...built, merged: undefined };
  }
  const partial = (name: string, of: Omit<PartialHeads, keyof PartialPlaces>): PartialHeads => {
    const output = splitPlace(parts.own(`${name} output`, [batch, rowsQ, heads * vDim]), heads);
    const made = { ...of, output, lse: parts.own(`${name} lse`, [batch, heads, rowsQ]) };
    parts.attend(made.scores, { q, k: made.k, v: made.v }, made);
    return made;
  };
  const own = partial("keys", { scores, k, v });
  const withSinks = { ...addedScores.options, ...sinks.added };
  const added = partial("added", { scores: { ...addedScores, options: withSinks }, ...extra });
  parts.merge([own, added], { output: o, lse: total });
  return { ...built, merged: { own, added } };
}

/** q, k and v of each head. */
function projectedHeads({ parts, layer, problem }: Site): Record<"q" | "k" | "v", Tensor> {
  const { heads, kvHeads, headDim, vDim } = layer.sizes;
  const { weights } = layer;
  const { batch, rowsQ, rowsKv, storage, query, key, value } = problem;
  const keySource = key ? "key" : "query";
  const sources = [
    ["query", query, weights.query, heads * headDim],
    [keySource, key ?? query, weights.key, kvHeads * headDim],
    [value ? "value" : keySource, value ?? key ?? query, weights.value, kvHeads * vDim],
  ] as const;
  const projected = sources.map(([name, spec, linear, width], index) => {
    const y = parts.own("qkv"[index], [batch, index ? rowsKv : rowsQ, width], storage);
    parts.project(bound(name, spec), linear, y);
    return y;
  });
  return {
    q: splitHeads(projected[0].tensor, heads),
    k: splitHeads(projected[1].tensor, kvHeads),
    v: splitHeads(projected[2].tensor, kvHeads),
  };
}

/**
 * Adds the parts that write the weights of all keys: one for the problem's keys, and one for each
 * that the layer adds.
 */
export function writeProbabilities(site: Site, heads: Heads, output: Place): void {
  const { parts, layer, problem } = site;
  const { q, k, lse, scores, addedScores } = heads;
  if (!lse || output.spec.shape.includes(0)) return;
  const columns = (from: number, count: number): PartialPlaces => ({
    output: columnsPlace(output, from, count),
    lse,
  });
  parts.writeProbabilities(scores, { q, k }, columns(0, problem.rowsKv));
  const { headDim } = layer.sizes;
  const added = [
    ...(layer.weights.biasK ? [overBatch(site, layer.weights.biasK, headDim)] : []),
    ...(layer.zeroAttention ? [zeros(site, headDim)] : []),
  ];
  for (const [index, key] of added.entries())
    parts.writeProbabilities(addedScores, { q, k: key }, columns(problem.rowsKv + index, 1));
}

/**
 * The added key and value, for attention over them. Undefined if there are none, or if a sink
 * stands for them.
 */
function extraKey(site: Site): { k: Tensor; v: Tensor } | undefined {
  const { weights, sizes, zeroAttention } = site.layer;
  const { headDim, vDim } = sizes;
  const { biasK, biasV } = weights;
  if (biasK && biasV)
    return { k: overBatch(site, biasK, headDim), v: overBatch(site, biasV, vDim) };
  if (!zeroAttention || !(site.problem.options.sinks instanceof Tensor)) return undefined;
  return { k: zeros(site, headDim), v: zeros(site, vDim) };
}

/**
 * A key of zeros has a score of 0 and adds nothing to the output: it is a sink with a logit of 0.
 */
function sinksOf(
  { layer, problem }: Site,
  hasExtra: boolean,
): { own?: ScoreOptions; added?: ScoreOptions } {
  const { zeroAttention, sizes, weights } = layer;
  const { sinks } = problem.options;
  const none = new Array<number>(sizes.heads).fill(0);
  if (!zeroAttention) return {};
  if (hasExtra) return weights.biasK ? { added: { sinks: none } } : {};
  const both = Array.isArray(sinks)
    ? sinks.map((sink: number) => Math.max(sink, 0) + Math.log1p(Math.exp(-Math.abs(sink))))
    : none;
  return { own: { sinks: both } };
}

/** Views [Hkv * D] as [B, Hkv, 1, D]. */
export function overBatch(
  { layer, problem }: Pick<Site, "layer" | "problem">,
  row: Tensor,
  dim: number,
): Tensor {
  const [step] = row.strides;
  return row.view({
    shape: [problem.batch, layer.sizes.kvHeads, 1, dim],
    strides: [0, dim * step, 0, step],
  });
}

function zeros({ parts, layer, problem }: Site, dim: number): Tensor {
  return parts.own("zeros", [dim]).tensor.view({
    shape: [problem.batch, layer.sizes.kvHeads, 1, dim],
    strides: [0, 0, 0, 1],
  });
}

/**
 * The options that hold for added keys, too: their scores are scaled and capped, and unused queries
 * stay unused.
 */
function addedOptions({ scale, softcap, qLengths, dropout }: ScoreOptions): ScoreOptions {
  return {
    ...(scale !== undefined && { scale }),
    ...(softcap !== undefined && { softcap }),
    ...(qLengths !== undefined && { qLengths }),
    // Another seed than that of the other keys, because an added key also has the index 0.
    ...(dropout && { dropout: { ...dropout, seed: (dropout.seed + 1) % 2 ** 53 } }),
  };
}

/** The bindings of attention over the problem's keys, and of that over added keys. */
const ownBindings = (options: AttentionBindings): AttentionBindings => options;
const addedBindings = ({ qLengths, dropoutStep }: AttentionBindings): AttentionBindings => ({
  ...(qLengths && { qLengths }),
  ...(dropoutStep && { dropoutStep }),
});
