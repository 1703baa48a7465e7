// Puts the gradients of multi-head attention together. The forward run is computed again up to its
// heads; then, from the end to the beginning:
//
//     dOutput --projection--> d heads --attention--> dq, dk, dv --projections--> dQuery, dKey, dValue
//
// attention.ts has the part in the middle.

import { buildHeads } from "../multi_head_build.ts";
import type { Part } from "../multi_head_parts.ts";
import type { LinearWeights } from "../multi_head_weights.ts";
import { bound, type Place } from "../places.ts";
import { attentionGradients, type BackwardSite, type HeadSums } from "./attention.ts";

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

/** Adds the gradients of the projections of query, key and value. */
function inputGradients(site: BackwardSite, sums: HeadSums): void {
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
