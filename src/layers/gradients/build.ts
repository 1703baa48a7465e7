// Puts the gradients of multi-head attention together. The forward run is computed again up to its
// heads; then, from the end to the beginning:
//
//     dOutput --projection--> d heads --attention--> dq, dk, dv --projections--> dQuery, dKey, dValue
//
// Attention over a learned key has gradients of its own, from the output and the log-sum-exp over all
// keys. So have the probabilities, if they have a gradient: they are attention over values that are
// the rows of the identity matrix. A key of zeros has no gradient, and no part in others beside its
// share of the log-sum-exp.

import type { Tensor } from "../../gpu/tensor.ts";
import {
  buildHeads,
  type Heads,
  overBatch,
  type Site,
  writeProbabilities,
} from "../multi_head_build.ts";
import type { Part, Scores } from "../multi_head_parts.ts";
import type { LinearWeights } from "../multi_head_weights.ts";
import { bound, type Place, splitPlace, viewed } from "../places.ts";
import type { BackwardParts, Places } from "./parts.ts";
import type { ResolvedMultiHeadBackward } from "./resolve.ts";

/** The state of putting the gradients together. */
interface BackwardSite extends Site {
  readonly parts: BackwardParts;
  readonly backward: ResolvedMultiHeadBackward;
}

/** Gradients of projected rows, [B, rows, heads * dim], one for each part of attention. */
type Sums = Record<"dQ" | "dK" | "dV" | "dBiasK" | "dBiasV", Place[]>;

/** Adds all parts of the gradients, and gives them once they are compiled. */
export async function buildBackward(site: BackwardSite): Promise<Part[]> {
  const { parts, layer, problem, backward } = site;
  const { sizes, weights } = layer;
  const { heads, vDim } = sizes;
  const built = await buildHeads(site, { joined: undefined, lse: true });
  let dJoined = bound("dOutput", backward.dOutput);
  if (weights.output) {
    const dX = parts.own("dHeads", [problem.batch, problem.rowsQ, heads * vDim]);
    linearBackward(site, "output", { x: built.joined, dY: dJoined, dX });
    dJoined = dX;
  }
  const sums = attentionGradients(site, built, dJoined);
  inputGradients(site, sums);
  for (const name of ["biasK", "biasV"] as const) {
    const into = gradientOf(site, `parameters.${name}`);
    if (into) parts.sumRows(total(site, sums[name === "biasK" ? "dBiasK" : "dBiasV"]), into);
  }
  return parts.done();
}

/** The place of a gradient that is asked for. */
function gradientOf({ backward }: BackwardSite, name: string): Place | undefined {
  const asked = backward.ofLayer.get(name);
  return asked && bound(name, asked.spec);
}

/** The sum of places; of one place itself. */
function total({ parts }: BackwardSite, places: readonly Place[]): Place {
  if (places.length === 1) return places[0];
  const sum = parts.own("sum", places[0].spec.shape);
  parts.sum(places, sum);
  return sum;
}

/** Adds the gradients of attention of the heads. */
function attentionGradients(site: BackwardSite, heads: Heads, dJoined: Place): Sums {
  const { parts, layer, problem, backward } = site;
  const { dLse, dWeights, ofOptions } = backward;
  const sums: Sums = { dQ: [], dK: [], dV: [], dBiasK: [], dBiasV: [] };
  const results = [...ofOptions.values()].map(({ name, spec }) => bound(name, spec));
  const names = [...ofOptions.keys()];
  const isSummed = dWeights !== undefined && !dWeights.shape.includes(0);
  const own = () =>
    isSummed ? results.map(({ spec }, index) => parts.own(names[index], spec.shape)) : results;
  const named = (places: readonly Place[]): Places =>
    Object.fromEntries(names.map((name, index) => [name, places[index]]));
  const ofOutput = own();
  const { biasV } = layer.weights;
  attendBackward(site, heads, {
    places: {
      output: splitPlace(heads.joined, layer.sizes.heads),
      dOutput: splitPlace(dJoined, layer.sizes.heads),
      dLse: dLse && bound("dLse", dLse),
    },
    v: heads.v,
    addedV: biasV && overBatch(site, biasV, layer.sizes.vDim),
    options: problem.options,
    results: named(ofOutput),
    sums,
  });
  if (isSummed) {
    const ofWeights = own();
    probabilityGradients(site, heads, { sums, results: named(ofWeights) });
    for (const [index, into] of results.entries())
      parts.sum([ofOutput[index], ofWeights[index]], into);
  }
  return sums;
}

/** One run of attention's gradients: over the problem's keys, and over a learned one. */
interface Attended {
  readonly places: Readonly<Record<"output" | "dOutput", Place>> & {
    readonly dLse?: Place | undefined;
  };
  readonly v: Tensor;
  readonly addedV: Tensor | undefined;
  readonly options: Scores["options"];
  readonly results: Places;
  /** Where the gradients of the projected rows are added. */
  readonly sums: Sums;
}

function attendBackward(
  site: BackwardSite,
  { q, k, lse, scores, addedScores }: Heads,
  { places, v, addedV, options, results, sums }: Attended,
): void {
  const { parts, layer, problem } = site;
  const { biasK } = layer.weights;
  const { headDim } = layer.sizes;
  const kept = { ...places, lse: lse as Place };
  const rowsOf = (name: string, [batch, heads, rows, dim]: readonly number[]) => {
    const whole = parts.own(name, [batch, rows, heads * dim]);
    return { whole, heads: splitPlace(whole, heads) };
  };
  const dQ = rowsOf("dq", q.shape);
  const dK = rowsOf("dk", k.shape);
  const dV = rowsOf("dv", v.shape);
  parts.attendBackward({ ...scores, options }, { q, k, v }, kept, {
    ...results,
    dQ: dQ.heads,
    dK: dK.heads,
    dV: dV.heads,
  });
  sums.dQ.push(dQ.whole);
  sums.dK.push(dK.whole);
  sums.dV.push(dV.whole);
  if (!biasK || !addedV || !problem.batch) return;
  const added = { k: overBatch(site, biasK, headDim), v: addedV };
  const ofQ = rowsOf("dq of biasK", q.shape);
  const ofK = rowsOf("dBiasK", added.k.shape);
  const ofV = rowsOf("dBiasV", added.v.shape);
  const { dropout: _, ...plain } = addedScores.options;
  const learned = { ...addedScores, options: options.dropout ? addedScores.options : plain };
  parts.attendBackward(learned, { q, ...added }, kept, {
    dQ: ofQ.heads,
    dK: ofK.heads,
    dV: ofV.heads,
  });
  sums.dQ.push(ofQ.whole);
  sums.dBiasK.push(ofK.whole);
  sums.dBiasV.push(ofV.whole);
}

/** Adds the gradients by that of the probabilities: attention over the rows of the identity. */
function probabilityGradients(
  site: BackwardSite,
  heads: Heads,
  { sums, results }: { readonly sums: Sums; readonly results: Places },
): void {
  const { parts, layer, problem, backward } = site;
  const { batch, rowsQ, rowsKv, options } = problem;
  const { heads: count, kvHeads } = layer.sizes;
  const dWeights = backward.dWeights as Place["spec"];
  const keys = dWeights.shape[dWeights.shape.length - 1];
  const probabilities = parts.own("weights", [batch, count, rowsQ, keys]);
  writeProbabilities(site, heads, probabilities);
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
  // Weights are those before dropout.
  const { dropout: _, ...undropped } = options;
  attendBackward(site, heads, {
    places: { output: probabilities, dOutput: gradientOfEach(site, dWeights) },
    v: rows(0, rowsKv),
    addedV: layer.weights.biasK && rows(rowsKv, 1),
    options: undropped,
    results,
    // The identity has no gradient.
    sums: { ...sums, dV: [], dBiasV: [] },
  });
}

/** The gradient of each head's probabilities, also if theirs is that of the mean over the heads. */
function gradientOfEach(site: BackwardSite, dWeights: Place["spec"]): Place {
  const { parts, layer } = site;
  const given = bound("dWeights", dWeights);
  if (dWeights.shape.length === 4) return given;
  const { heads } = layer.sizes;
  const share = parts.own("dWeights", dWeights.shape);
  parts.sum([given], share, 1 / heads);
  const [batch, rows, keys] = dWeights.shape;
  const shape = [batch, heads, rows, keys];
  const strides = [rows * keys, 0, keys, 1];
  const spec = { shape, strides, offset: 0, dtype: dWeights.dtype };
  return viewed(share, (whole) => whole.view({ shape, strides }), spec);
}

/** Adds the gradients of the projections of query, key and value. */
function inputGradients(site: BackwardSite, sums: Sums): void {
  const { parts, problem } = site;
  const query = bound("query", problem.query);
  const key = problem.key ? bound("key", problem.key) : query;
  const value = problem.value ? bound("value", problem.value) : key;
  const inputs = { dQuery: query, dKey: key, dValue: value };
  const targets = (["dQuery", "dKey", "dValue"] as const).filter((name, index, all) =>
    all.slice(0, index).every((earlier) => inputs[earlier] !== inputs[name]),
  );
  const uses = [
    { name: "query", x: query, dY: total(site, sums.dQ) },
    { name: "key", x: key, dY: total(site, sums.dK) },
    { name: "value", x: value, dY: total(site, sums.dV) },
  ] as const;
  const parameters = [...site.backward.ofLayer.keys()].some((name) => name.startsWith("param"));
  for (const target of targets) {
    const into = gradientOf(site, target);
    const ofInput = uses.filter(({ x }) => x === inputs[target]);
    if (!into && !parameters) continue;
    const places = ofInput.map((use) => {
      const isOnly = ofInput.length === 1;
      const dX = into && (isOnly ? into : parts.own(`${target} by ${use.name}`, use.x.spec.shape));
      linearBackward(site, use.name, { ...use, dX });
      return dX;
    });
    if (into && places.length > 1) parts.sum(places as Place[], into);
  }
}

/** Adds the gradients of a projection by its name. */
function linearBackward(
  site: BackwardSite,
  name: "query" | "key" | "value" | "output",
  { x, dY, dX }: { readonly x: Place; readonly dY: Place; readonly dX: Place | undefined },
): void {
  const { weight } = site.layer.weights[name] as LinearWeights;
  site.parts.projectBackward(x, weight, dY, {
    dX,
    dWeight: gradientOf(site, `parameters.${name}.weight`),
    dBias: gradientOf(site, `parameters.${name}.bias`),
  });
}
