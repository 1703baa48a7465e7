// The gradients of the layer and of multiplicative attention against central differences of their
// own results.

import { describe, it } from "vitest";
import {
  multiHeadAttention,
  multiHeadAttentionBackward,
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  type ReferenceMultiHead,
} from "../../src/reference/index.ts";
import { expectGradients, type Values, weighed } from "../support/central_differences.ts";
import { type Draw, drawOf } from "../support/draw.ts";

const PROBLEMS = 12;

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);
const valuesOf = (draw: Draw, shapes: Readonly<Record<string, readonly number[]>>) =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [name, draw.apart(sizeOf(shape))]),
  );

/** A random layer, and what it is applied to; keys and queries beyond their lengths are NaN. */
function layerProblem(seed: number) {
  const draw = drawOf(seed);
  const B = draw.whole(1, 2);
  const Hkv = draw.whole(1, 2);
  const H = Hkv * draw.whole(1, 2);
  const M = draw.whole(1, 3);
  const N = draw.whole(1, 4);
  const D = draw.whole(1, 3);
  const Dv = draw.whole(1, 3);
  const added = draw.chance(50);
  const last = draw.chance(70);
  const biases = draw.chance(70);
  const sinks = draw.chance(40);
  const shapes: Record<string, readonly number[]> = {
    dQuery: [B, M, 2],
    dKey: [B, N, 3],
    dValue: [B, N, 2],
    "query.dWeight": [H * D, 2],
    "key.dWeight": [Hkv * D, 3],
    "value.dWeight": [Hkv * Dv, 2],
    ...(biases && { "query.dBias": [H * D], "key.dBias": [Hkv * D], "value.dBias": [Hkv * Dv] }),
    ...(last && { "output.dWeight": [4, H * Dv] }),
    ...(last && biases && { "output.dBias": [4] }),
    ...(added && { dBiasK: [Hkv * D], dBiasV: [Hkv * Dv] }),
    ...(sinks && { dSinks: [H] }),
    dBias: [1, H, M, N],
  };
  const kvLengths = draw.chance(50) ? Array.from({ length: B }, () => draw.whole(0, N)) : undefined;
  const qLengths = draw.chance(30) ? Array.from({ length: B }, () => draw.whole(0, M)) : undefined;
  const unused = (
    lengths: readonly number[] | undefined,
    at: number,
    width: number,
    rows: number,
  ) =>
    lengths !== undefined &&
    Math.floor(at / width) % rows >= lengths[Math.floor(at / width / rows)];
  const drawn = valuesOf(draw, shapes);
  // Small weights keep the scores small, and with them the higher derivatives.
  for (const name of Object.keys(drawn))
    if (name.endsWith("dWeight")) drawn[name] = drawn[name].map((x) => x / 2);
  const values: Values = {
    ...drawn,
    dQuery: drawn.dQuery.map((x, at) => (unused(qLengths, at, 2, M) ? Number.NaN : x)),
    dKey: drawn.dKey.map((x, at) => (unused(kvLengths, at, 3, N) ? Number.NaN : x)),
    dValue: drawn.dValue.map((x, at) => (unused(kvLengths, at, 2, N) ? Number.NaN : x)),
  };
  const zeroAttention = draw.chance(40);
  const plain = {
    heads: H,
    kvHeads: Hkv,
    zeroAttention,
    ...(kvLengths && { kvLengths }),
    ...(qLengths && { qLengths }),
    ...(draw.chance(40) && { softcap: 1.5 }),
    ...(draw.chance(40) && { causal: true }),
    ...(draw.chance(30) && { scale: 0.4 }),
    ...(draw.chance(30) && { dropout: { p: 0.3, seed: draw.whole(1, 1e6) } }),
  };
  const keys = N + Number(added) + Number(zeroAttention);
  const build = (moved: Values) => {
    const of = (name: string) => ({ data: moved[name], shape: shapes[name] });
    const linear = (name: string) => ({
      weight: of(`${name}.dWeight`),
      ...(shapes[`${name}.dBias`] && { bias: of(`${name}.dBias`) }),
    });
    const layer: ReferenceMultiHead = {
      query: linear("query"),
      key: linear("key"),
      value: linear("value"),
      ...(last && { output: linear("output") }),
      ...(added && { biasK: of("dBiasK"), biasV: of("dBiasV") }),
    };
    const options = { ...plain, bias: of("dBias"), ...(sinks && { sinks: moved.dSinks }) };
    return {
      inputs: { query: of("dQuery"), key: of("dKey"), value: of("dValue") },
      layer,
      options,
    };
  };
  const incoming = {
    dOutput: draw.normal(B * M * (last ? 4 : H * Dv)),
    dLse: draw.normal(B * H * M),
    dWeights: draw.normal(B * H * M * keys),
  };
  return { values, build, incoming, name: JSON.stringify({ ...shapes, ...plain }) };
}

describe("gradients of layers of attention", () => {
  it(`multiHeadAttentionBackward is the derivative of the layer, in ${PROBLEMS} problems`, () => {
    for (let seed = 1; seed <= PROBLEMS; seed++) {
      const { values, build, incoming, name } = layerProblem(seed);
      const loss = (moved: Values) => {
        const { inputs, layer, options } = build(moved);
        const { query, key, value } = inputs;
        const { output, lse, weights } = multiHeadAttention(query, key, value, layer, options);
        const seen = incoming.dLse.map((x, at) =>
          lse[at] === Number.NEGATIVE_INFINITY ? Number.NaN : x,
        );
        const { dOutput, dWeights } = incoming;
        return weighed(output, dOutput) + weighed(lse, seen) + weighed(weights, dWeights);
      };
      const { inputs, layer, options } = build(values);
      const found = multiHeadAttentionBackward(inputs, layer, { ...options, ...incoming });
      const ofLayers = (["query", "key", "value", "output"] as const).flatMap((part) => [
        [`${part}.dWeight`, found[part].dWeight],
        [`${part}.dBias`, found[part].dBias],
      ]);
      const gradients = { ...found, ...Object.fromEntries(ofLayers) };
      try {
        expectGradients({ values, loss, gradients }, seed);
      } catch (error) {
        throw new Error(`problem ${seed}, ${name}`, { cause: error });
      }
    }
  });

  it("multiplicativeAttentionBackward is the derivative of multiplicative attention", () => {
    for (const [seed, perHead, layout] of [
      [1, false, "bhmd"],
      [2, true, "bhmd"],
      [3, false, "bmhd"],
      [4, true, "bmhd"],
    ] as const) {
      const draw = drawOf(seed);
      const shapes: Record<string, readonly number[]> = {
        q: layout === "bhmd" ? [2, 4, 3, 3] : [2, 3, 4, 3],
        k: layout === "bhmd" ? [2, 2, 4, 2] : [2, 4, 2, 2],
        v: layout === "bhmd" ? [2, 2, 4, 3] : [2, 4, 2, 3],
        weight: perHead ? [4, 3, 2] : [3, 2],
      };
      const values = valuesOf(draw, shapes);
      const row = 2 * (layout === "bhmd" ? 3 : 12); // the third query of the first head isn't used
      values.q.fill(Number.NaN, row, row + 3);
      if (layout === "bmhd") values.q.fill(Number.NaN, row, row + 12);
      else
        for (const head of [1, 2, 3]) values.q.fill(Number.NaN, head * 9 + row, head * 9 + row + 3);
      const of = (moved: Values, name: string) => ({ data: moved[name], shape: shapes[name] });
      const options = { causal: true, qLengths: [2, 3], layout };
      const dOutput = draw.normal(2 * 4 * 3 * 3);
      const loss = (moved: Values) => {
        const [q, k, v, weight] = ["q", "k", "v", "weight"].map((name) => of(moved, name));
        return weighed(multiplicativeAttention(q, k, v, { ...options, weight }).output, dOutput);
      };
      const [q, k, v, weight] = ["q", "k", "v", "weight"].map((name) => of(values, name));
      const found = multiplicativeAttentionBackward(q, k, v, { ...options, weight, dOutput });
      /** [B, H, M, D] in the order of the layout. */
      const ordered = (data: Float64Array, [, H, M, D]: readonly number[]) =>
        layout === "bhmd"
          ? data
          : data.map((_, at) => {
              const b = Math.floor(at / (M * H * D));
              const m = Math.floor(at / (H * D)) % M;
              const h = Math.floor(at / D) % H;
              return data[((b * H + h) * M + m) * D + (at % D)];
            });
      const gradients = {
        q: ordered(found.dQ, [2, 4, 3, 3]),
        k: ordered(found.dK, [2, 2, 4, 2]),
        v: ordered(found.dV, [2, 2, 4, 3]),
        weight: found.dWeight,
      };
      expectGradients({ values, loss, gradients }, seed);
    }
  });
});
