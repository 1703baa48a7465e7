// The gradients of attention of the heads, in the middle of those of a layer.
//
// If attention over a learned key was merged with that over the problem's keys, the gradients of the
// merge come first. The probabilities may have gradients, too: they are attention over values that
// are the rows of the identity matrix. A key of zeros has a constant score, so that its probability
// p = exp(-LSE) depends on the log-sum-exp alone, and gives it -p times its own gradient.

import type { Tensor } from "../../gpu/tensor.ts";
import {
  type Heads,
  type PartialHeads,
  type Site,
  writeProbabilities,
} from "../multi_head_build.ts";
import type { PartialPlaces, Scores } from "../multi_head_parts.ts";
import { bound, columnsPlace, type Place, splitPlace, viewed } from "../places.ts";
import type { AttendedPlaces, BackwardParts, Places } from "./parts.ts";
import type { ResolvedMultiHeadBackward } from "./resolve.ts";

/** The state of putting the gradients together. */
export interface BackwardSite extends Site {
  readonly parts: BackwardParts;
  readonly backward: ResolvedMultiHeadBackward;
}

/** Gradients of projected rows, [B, rows, heads * dim], whose sum is asked for. */
export type HeadSums = Record<"dQ" | "dK" | "dV" | "dBiasK" | "dBiasV", Place[]>;

/** Adds the gradients of attention of the heads, from that of their joined results. */
export function attentionGradients(site: BackwardSite, heads: Heads, dJoined: Place): HeadSums {
  const { parts, layer, backward } = site;
  const { dLse, dWeights, ofOptions } = backward;
  const sums: HeadSums = { dQ: [], dK: [], dV: [], dBiasK: [], dBiasV: [] };
  const asked = [...ofOptions.values()];
  const results = asked.map(({ name, spec }) => bound(name, spec));
  const isSummed = dWeights !== undefined && !dWeights.shape.includes(0);
  const share = sinkShare(site, heads);
  const own = () =>
    results.map((place, index) => {
      const { name, spec } = asked[index];
      return isSummed || (share && name === "dSinks") ? parts.own(name, spec.shape) : place;
    });
  const named = (places: readonly Place[]): Places =>
    Object.fromEntries(asked.map(({ name }, index) => [name, places[index]]));
  const ofOutput = own();
  passBackward(site, heads, {
    places: {
      output: splitPlace(heads.joined, layer.sizes.heads),
      lse: heads.lse as Place,
      dOutput: splitPlace(dJoined, layer.sizes.heads),
      dLse: dLse && bound("dLse", dLse),
    },
    partials: heads.merged && [heads.merged.own, heads.merged.added],
    v: heads.v,
    addedV: heads.merged?.added.v,
    options: (options) => options,
    results: named(ofOutput),
    sums,
  });
  const ofWeights = isSummed ? own() : undefined;
  if (ofWeights) probabilityGradients(site, heads, { sums, results: named(ofWeights) });
  for (const [index, into] of results.entries()) {
    const { name } = asked[index];
    const all = ofWeights ? [ofOutput[index], ofWeights[index]] : [ofOutput[index]];
    if (all[0] !== into) parts.sum(all, into, name === "dSinks" ? share : undefined);
  }
  return sums;
}

/**
 * If a sink stands for the key of zeros and for the caller's sink, the share of the latter in its
 * gradient: exp(sink) / (exp(sink) + 1).
 */
function sinkShare({ parts, layer, problem, backward }: BackwardSite, heads: Heads) {
  const { sinks } = problem.options;
  if (!layer.zeroAttention || heads.merged || !Array.isArray(sinks)) return undefined;
  if (!backward.ofOptions.has("dSinks")) return undefined;
  const shares = sinks.map((sink: number) => 1 / (1 + Math.exp(-sink)));
  return parts.constant("share of sinks", [shares.length], shares);
}

/** A run of attention's gradients, with values of some kind. */
interface Pass {
  readonly places: AttendedPlaces;
  /** Results over the problem's keys and over a learned one, if they were merged. */
  readonly partials: readonly PartialPlaces[] | undefined;
  readonly v: Tensor;
  readonly addedV: Tensor | undefined;
  /** What becomes of the options of the forward run. */
  options(options: Scores["options"]): Scores["options"];
  /** Places of gradients of options. */
  readonly results: Places;
  /** Where the gradients of the projected rows are added. */
  readonly sums: HeadSums;
}

function passBackward(site: BackwardSite, { q, k, scores, merged }: Heads, pass: Pass): void {
  const { parts, layer } = site;
  const { places, partials, v, addedV, results, sums } = pass;
  const rowsOf = (name: string, [batch, heads, rows, dim]: readonly number[]) => {
    const whole = parts.own(name, [batch, rows, heads * dim]);
    return { whole, heads: splitPlace(whole, heads) };
  };
  const attend = (
    { options, ...given }: Scores,
    of: Pick<PartialHeads, "k" | "v">,
    kept: AttendedPlaces,
    gradients: Places,
  ) => {
    const dQ = rowsOf("dq", q.shape);
    const dK = rowsOf("dk", of.k.shape);
    const dV = rowsOf("dv", of.v.shape);
    const own = { dQ: dQ.heads, dK: dK.heads, dV: dV.heads };
    const asked = { ...given, options: pass.options(options) };
    parts.attendBackward(asked, { q, ...of }, kept, { ...gradients, ...own });
    sums.dQ.push(dQ.whole);
    return { dK: dK.whole, dV: dV.whole };
  };
  const [own, added] = partials ?? [places];
  const [ofOwn, ofAdded] = partials ? parts.mergeBackward(partials, places) : [places];
  const { dK, dV } = attend(scores, { k, v }, { ...own, ...ofOwn }, results);
  sums.dK.push(dK);
  sums.dV.push(dV);
  // A key of zeros, which may be the only one that is added, has no gradient and gives none to q.
  if (!merged || !addedV || !layer.weights.biasK || !site.problem.batch) return;
  const learned = { k: merged.added.k, v: addedV };
  const found = attend(merged.added.scores, learned, { ...added, ...ofAdded }, {});
  sums.dBiasK.push(found.dK);
  sums.dBiasV.push(found.dV);
}

/** Adds the gradients by that of the probabilities: attention over the rows of the identity. */
function probabilityGradients(
  site: BackwardSite,
  heads: Heads,
  { sums, results }: { readonly sums: HeadSums; readonly results: Places },
): void {
  const { parts, layer, problem, backward } = site;
  const { batch, rowsQ, rowsKv } = problem;
  const { heads: count, kvHeads } = layer.sizes;
  const dWeights = backward.dWeights as Place["spec"];
  const columns = dWeights.shape[dWeights.shape.length - 1];
  const keys = rowsKv + Number(layer.weights.biasK !== undefined);
  const probabilities = parts.own("weights", [batch, count, rowsQ, columns]);
  writeProbabilities(site, heads, probabilities);
  const gradient = gradientOfEach(site, dWeights);
  const identity = parts.constant(
    "identity",
    [keys, keys],
    Float32Array.from({ length: keys ** 2 }, (_, at) => Number(at % (keys + 1) === 0)),
  );
  const rows = (from: number, number: number) =>
    identity.view({
      shape: [batch, kvHeads, number, keys],
      strides: [0, 0, keys, 1],
      offset: from * keys,
    });
  passBackward(site, heads, {
    places: {
      output: columnsPlace(probabilities, 0, keys),
      lse: heads.lse as Place,
      dOutput: columnsPlace(gradient, 0, keys),
      dLse: layer.zeroAttention ? ofZeroKey(site, probabilities, gradient) : undefined,
    },
    partials: heads.merged && partialProbabilities(site, heads.q, heads.merged, keys),
    v: rows(0, rowsKv),
    addedV: layer.weights.biasK && rows(rowsKv, 1),
    // Weights are those before dropout.
    options: ({ dropout: _, ...options }) => options,
    results,
    // The identity has no gradient.
    sums: { ...sums, dV: [], dBiasV: [] },
  });
}

/** Adds the probabilities over the problem's keys, and over the learned one, each with a sum of 1. */
function partialProbabilities(
  { parts, problem }: BackwardSite,
  q: Tensor,
  { own, added }: NonNullable<Heads["merged"]>,
  keys: number,
): readonly PartialPlaces[] {
  const { rowsKv } = problem;
  const write = ({ scores, k, lse }: PartialHeads, from: number, count: number) => {
    const output = parts.own("partial weights", [...lse.spec.shape, keys]);
    const columns = columnsPlace(output, from, count);
    if (count > 0) parts.writeProbabilities(scores, { q, k }, { output: columns, lse });
    return { output, lse };
  };
  return [write(own, 0, rowsKv), write(added, rowsKv, keys - rowsKv)];
}

/** The gradient of the log-sum-exp by that of the probability of a key of zeros, the last column. */
function ofZeroKey({ parts }: BackwardSite, probabilities: Place, gradient: Place): Place {
  const last = (place: Place) => {
    const { shape, strides, offset, dtype } = place.spec;
    const spec = {
      shape: shape.slice(0, 3),
      strides: strides.slice(0, 3),
      offset: offset + (shape[3] - 1) * strides[3],
      dtype,
    };
    const view = (whole: Tensor) =>
      whole.view({
        shape: spec.shape,
        strides: spec.strides,
        offset: (shape[3] - 1) * strides[3],
      });
    return viewed(place, view, spec);
  };
  const product = parts.own("dLse of zeros", probabilities.spec.shape.slice(0, 3));
  const dLse = parts.own("dLse of zeros", product.spec.shape);
  parts.sum([last(probabilities)], product, last(gradient));
  parts.sum([product], dLse, parts.constant("sign", [1], [-1]));
  return dLse;
}

/** The gradient of each head's probabilities, also if theirs is that of the mean over the heads. */
function gradientOfEach(site: BackwardSite, dWeights: Place["spec"]): Place {
  const { parts, layer } = site;
  const given = bound("dWeights", dWeights);
  if (dWeights.shape.length === 4) return given;
  const { heads } = layer.sizes;
  const share = parts.own("dWeights", dWeights.shape);
  parts.sum([given], share, parts.constant("share of a head", [1], [1 / heads]));
  const [batch, rows, keys] = dWeights.shape;
  const shape = [batch, heads, rows, keys];
  const strides = [rows * keys, 0, keys, 1];
  const spec = { shape, strides, offset: 0, dtype: dWeights.dtype };
  return viewed(share, (whole) => whole.view({ shape, strides }), spec);
}
