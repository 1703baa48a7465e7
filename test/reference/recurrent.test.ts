// LSTM and GRU in float64: against numbers worked by hand, and their gradients against central
// differences of their own results.

import { describe, expect, it } from "vitest";
import { gru, gruBackward, lstm, lstmBackward } from "../../src/reference/index.ts";
import { expectGradients, type Values, weighed } from "../support/central_differences.ts";
import { drawOf } from "../support/draw.ts";

const one = (...data: number[]) => ({ data, shape: [data.length, 1] });
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

describe("a unit, step by step", () => {
  const x = { data: [0.5, -1], shape: [1, 2, 1] };

  it("of an LSTM", () => {
    const weights = {
      weight_ih_l0: one(1, 2, 3, 4),
      weight_hh_l0: one(0.5, -0.5, 1, -1),
      bias_ih_l0: { data: [0.1, 0.2, 0.3, 0.4], shape: [4] },
    };
    let h = 0.25;
    let c = -0.75;
    const outputs = [0.5, -1].map((value) => {
      const i = sigmoid(value + 0.1 + 0.5 * h);
      const f = sigmoid(2 * value + 0.2 - 0.5 * h);
      const g = Math.tanh(3 * value + 0.3 + h);
      const o = sigmoid(4 * value + 0.4 - h);
      c = f * c + i * g;
      h = o * Math.tanh(c);
      return h;
    });
    const { output, hN, cN } = lstm(x, weights, { h0: [0.25], c0: [-0.75] });
    for (const [at, value] of outputs.entries()) expect(output[at]).toBeCloseTo(value, 14);
    expect(hN[0]).toBeCloseTo(h, 14);
    expect(cN[0]).toBeCloseTo(c, 14);
  });

  it("of a GRU, backwards and with a length", () => {
    const weights = {
      weight_ih_l0_reverse: one(1, 2, 3),
      weight_hh_l0_reverse: one(0.5, -0.5, 1),
      bias_hh_l0_reverse: { data: [0.1, 0.2, 0.3], shape: [3] },
      weight_ih_l0: one(0, 0, 0),
      weight_hh_l0: one(0, 0, 0),
    };
    const r = sigmoid(0.5 + 0.5 * 0.25 + 0.1);
    const z = sigmoid(1 - 0.5 * 0.25 + 0.2);
    const n = Math.tanh(1.5 + r * (0.25 + 0.3));
    const h = (1 - z) * n + z * 0.25;
    const { output, hN } = gru(x, weights, { h0: [0, 0.25], lengths: [1] });
    // Forwards all gates are 0.5 of nothing.
    expect([...output].map((value) => value.toFixed(12))).toEqual(
      [0, h, 0, 0].map((value) => value.toFixed(12)),
    );
    expect(hN[1]).toBeCloseTo(h, 14);
  });
});

/** A random network; rows of x past an entry's length are NaN. */
function networkProblem(seed: number, isLstm: boolean) {
  const draw = drawOf(seed);
  const B = draw.whole(1, 3);
  const T = draw.whole(1, 4);
  const I = draw.whole(1, 3);
  const H = draw.whole(1, 3);
  const layers = draw.whole(1, 2);
  const D = draw.whole(1, 2);
  const G = isLstm ? 4 : 3;
  const batchFirst = draw.chance(60);
  const biases = draw.chance(70);
  const lengths = draw.chance(50) ? Array.from({ length: B }, () => draw.whole(0, T)) : undefined;
  const shapes: Record<string, readonly number[]> = {
    dX: batchFirst ? [B, T, I] : [T, B, I],
    dH0: [layers * D, B, H],
    ...(isLstm && { dC0: [layers * D, B, H] }),
  };
  for (let index = 0; index < layers * D; index++) {
    const suffix = `_l${Math.floor(index / D)}${index % D ? "_reverse" : ""}`;
    shapes[`weight_ih${suffix}`] = [G * H, index < D ? I : D * H];
    shapes[`weight_hh${suffix}`] = [G * H, H];
    if (!biases) continue;
    shapes[`bias_ih${suffix}`] = [G * H];
    shapes[`bias_hh${suffix}`] = [G * H];
  }
  const sizeOf = (shape: readonly number[]) => shape.reduce((size, side) => size * side, 1);
  const values = Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [
      name,
      draw.apart(sizeOf(shape)).map((value, at) => {
        if (name !== "dX" || !lengths) return value / 2;
        const row = Math.floor(at / I);
        const [entry, step] = batchFirst
          ? [Math.floor(row / T), row % T]
          : [row % B, Math.floor(row / B)];
        return step < lengths[entry] ? value / 2 : Number.NaN;
      }),
    ]),
  );
  const incoming = {
    dOutput: draw.normal(B * T * D * H),
    dHN: draw.normal(layers * D * B * H),
    dCN: draw.normal(layers * D * B * H),
  };
  const options = { batchFirst, ...(lengths && { lengths }) };
  const split = ({ dX, dH0, dC0, ...weights }: Values) => ({
    x: { data: dX, shape: shapes.dX },
    weights: Object.fromEntries(
      Object.entries(weights).map(([name, data]) => [name, { data, shape: shapes[name] }]),
    ),
    starts: { h0: dH0, ...(isLstm && { c0: dC0 }) },
  });
  return { values, incoming, options, split };
}

describe("gradients of networks", () => {
  it.each([
    ["lstmBackward", true],
    ["gruBackward", false],
  ])("%s is the derivative of its network, in 16 problems", (_, isLstm) => {
    for (let seed = 1; seed <= 16; seed++) {
      const { values, incoming, options, split } = networkProblem(seed, isLstm);
      const loss = (moved: Values) => {
        const { x, weights, starts } = split(moved);
        const results = (isLstm ? lstm : gru)(x, weights, { ...options, ...starts });
        const cells = "cN" in results ? (results.cN as Float64Array) : new Float64Array(0);
        return (
          weighed(results.output, incoming.dOutput) +
          weighed(results.hN, incoming.dHN) +
          weighed(cells, incoming.dCN)
        );
      };
      const { x, weights, starts } = split(values);
      const backward = isLstm ? lstmBackward : gruBackward;
      const found = backward(x, weights, { ...options, ...starts, ...incoming });
      const { parameters, ...own } = found;
      expectGradients({ values, loss, gradients: { ...own, ...parameters } }, seed);
    }
  });
});
