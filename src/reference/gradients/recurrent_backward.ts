// The gradients of LSTM and GRU on the CPU, back through the steps one by one.

import type { ReferenceTensor } from "../options.ts";
import {
  cellWeights,
  type RecurrentCell,
  type RecurrentNetwork,
  type RecurrentStep,
  type RecurrentTrace,
  type ReferenceRecurrentOptions,
  type ReferenceRecurrentWeights,
  stepRow,
  suffixOf,
  traced,
} from "../recurrent.ts";
import { roundingOf } from "../rounding.ts";

export interface ReferenceRecurrentBackwardOptions extends ReferenceRecurrentOptions {
  /** The gradients of the results, row-major. Default: zeros. */
  readonly dOutput?: ArrayLike<number>;
  readonly dHN?: ArrayLike<number>;
  readonly dCN?: ArrayLike<number>;
}

export interface ReferenceRecurrentGradients {
  readonly dX: Float64Array;
  readonly dH0: Float64Array;
  /** Zeros of a GRU. */
  readonly dC0: Float64Array;
  /** By the names of the weights. */
  readonly parameters: Readonly<Record<string, Float64Array>>;
}

/**
 * The gradients of L = sum(output dOutput) + sum(hN dHN) + sum(cN dCN) for an LSTM:
 *
 *     do = dh tanh(c_t) o (1 - o)    dc += dh o (1 - tanh(c_t)^2)
 *     di = dc g i (1 - i)    df = dc c_t-1 f (1 - f)    dg = dc i (1 - g^2)    dc_t-1 = dc f
 *     dh_t-1 = U^T da,   dx_t = W^T da,   dW = sum da x_t^T,   dU = sum da h_t-1^T
 *     db = dd = sum da
 */
export const lstmBackward = (
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: ReferenceRecurrentBackwardOptions,
): ReferenceRecurrentGradients => backward("lstm", x, weights, options);

/**
 * The same for a GRU, with u_n = U_n h_t-1 + d_n:
 *
 *     dn = dh (1 - z) (1 - n^2)    dz = dh (h_t-1 - n) z (1 - z)    dr = dn u_n r (1 - r)
 *     da = dr, dz, dn    du = dr, dz, dn r    dh_t-1 = dh z + U^T du
 */
export const gruBackward = (
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: Omit<ReferenceRecurrentBackwardOptions, "c0" | "dCN">,
): Omit<ReferenceRecurrentGradients, "dC0"> => {
  const { dX, dH0, parameters } = backward("gru", x, weights, options);
  return { dX, dH0, parameters };
};

function backward(
  cell: RecurrentCell,
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: ReferenceRecurrentBackwardOptions,
): ReferenceRecurrentGradients {
  const { network, traces } = traced(cell, x, weights, options);
  const { batch, steps, hidden, layers, directions } = network;
  const ends = layers * directions * batch * hidden;
  const parameters = Object.fromEntries(
    Object.entries(weights).map(([name, { shape }]) => [
      name,
      new Float64Array(shape.reduce((size, one) => size * one, 1)),
    ]),
  );
  const dH0 = Float64Array.from({ length: ends }, (_, at) => options.dHN?.[at] ?? 0);
  const dC0 = Float64Array.from({ length: ends }, (_, at) => options.dCN?.[at] ?? 0);
  let dRows: ArrayLike<number> =
    options.dOutput ?? new Float64Array(batch * steps * directions * hidden);
  for (let layer = layers - 1; layer >= 0; layer--) {
    const first = layer * directions;
    const dX = new Float64Array(batch * steps * traces[first].inputs);
    for (let index = first; index < first + directions; index++) {
      const site = { cell, network, index, trace: traces[index], options };
      for (let entry = 0; entry < batch; entry++) {
        const at = (index * batch + entry) * hidden;
        const end = (from: Float64Array) => from.subarray(at, at + hidden);
        walkBack(site, entry, weights, {
          dRows,
          dX,
          dH: end(dH0),
          dC: end(dC0),
          parameters,
        });
      }
    }
    dRows = dX;
  }
  return { dX: dRows as Float64Array, dH0, dC0, parameters };
}

interface Site {
  readonly cell: RecurrentCell;
  readonly network: RecurrentNetwork;
  readonly index: number;
  readonly trace: RecurrentTrace;
  readonly options: ReferenceRecurrentBackwardOptions;
}

interface Gradients {
  /** Of the layer's output, [B, T, directions H]. */
  readonly dRows: ArrayLike<number>;
  readonly dX: Float64Array;
  /** Of the last states of the entry; then of the first ones. */
  readonly dH: Float64Array;
  readonly dC: Float64Array;
  readonly parameters: Readonly<Record<string, Float64Array>>;
}

function walkBack(
  { cell, network, index, trace, options }: Site,
  entry: number,
  weights: ReferenceRecurrentWeights,
  { dRows, dX, dH, dC, parameters }: Gradients,
): void {
  const { hidden, directions } = network;
  const { round } = roundingOf(options.precision);
  const suffix = suffixOf(network, index);
  const read = cellWeights(weights, suffix);
  for (let step = network.used(entry) - 1; step >= 0; step--) {
    const row = network.row(entry, stepRow(network, index, entry, step));
    const at = row * directions * hidden + (index % directions) * hidden;
    const dh = dH.map((value, unit) => round(value + dRows[at + unit]));
    const one = trace.steps[entry][step];
    const back = (cell === "lstm" ? lstmBack : gruBack)(one, dh, dC, round);
    const x = trace.x.subarray(row * trace.inputs, (row + 1) * trace.inputs);
    const ofX = dX.subarray(row * trace.inputs, (row + 1) * trace.inputs);
    dH.set(back.dh);
    dC.set(back.dc);
    add(read.weightIh, back.fromX, x, ofX, parameters[`weight_ih${suffix}`], round);
    add(read.weightHh, back.fromH, one.h, dH, parameters[`weight_hh${suffix}`], round);
    addTo(parameters[`bias_ih${suffix}`], back.fromX, round);
    addTo(parameters[`bias_hh${suffix}`], back.fromH, round);
  }
}

/** dx += W^T dy and dW += dy x^T of y = W x. */
function add(
  weight: Float64Array,
  dy: Float64Array,
  x: Float64Array,
  dx: Float64Array,
  dWeight: Float64Array,
  round: (value: number) => number,
): void {
  for (const [row, value] of dy.entries())
    for (let k = 0; k < x.length; k++) {
      const at = row * x.length + k;
      dx[k] = round(dx[k] + round(weight[at] * value));
      dWeight[at] = round(dWeight[at] + round(value * x[k]));
    }
}

function addTo(
  sums: Float64Array | undefined,
  values: Float64Array,
  round: (value: number) => number,
): void {
  if (sums) for (const [at, value] of values.entries()) sums[at] = round(sums[at] + value);
}

type Back = (
  step: RecurrentStep,
  dh: Float64Array,
  dc: Float64Array,
  round: (value: number) => number,
) => {
  /** Of the gates before their functions, as products with x and with h made them. */
  readonly fromX: Float64Array;
  readonly fromH: Float64Array;
  /** Of h_t-1 but for the product, and of c_t-1. */
  readonly dh: Float64Array;
  readonly dc: Float64Array;
};

const lstmBack: Back = ({ gates: [i, f, g, o], c, kept }, dh, dc, round) => {
  const H = dh.length;
  const da = new Float64Array(4 * H);
  const next = new Float64Array(H);
  for (let unit = 0; unit < H; unit++) {
    const squashed = round(Math.tanh(kept[unit]));
    const cell = round(dc[unit] + round(dh[unit] * o[unit] * (1 - squashed * squashed)));
    da[unit] = round(cell * g[unit] * i[unit] * (1 - i[unit]));
    da[H + unit] = round(cell * c[unit] * f[unit] * (1 - f[unit]));
    da[2 * H + unit] = round(cell * i[unit] * (1 - g[unit] * g[unit]));
    da[3 * H + unit] = round(dh[unit] * squashed * o[unit] * (1 - o[unit]));
    next[unit] = round(cell * f[unit]);
  }
  return { fromX: da, fromH: da, dh: new Float64Array(H), dc: next };
};

const gruBack: Back = ({ gates: [r, z, n], h, kept }, dh, dc, round) => {
  const H = dh.length;
  const fromX = new Float64Array(3 * H);
  const fromH = new Float64Array(3 * H);
  for (let unit = 0; unit < H; unit++) {
    const fresh = round(dh[unit] * (1 - z[unit]) * (1 - n[unit] * n[unit]));
    const reset = round(fresh * kept[unit] * r[unit] * (1 - r[unit]));
    const update = round(dh[unit] * (h[unit] - n[unit]) * z[unit] * (1 - z[unit]));
    fromX.set([reset], unit);
    fromX.set([update], H + unit);
    fromX.set([fresh], 2 * H + unit);
    fromH.set([reset], unit);
    fromH.set([update], H + unit);
    fromH.set([round(fresh * r[unit])], 2 * H + unit);
  }
  return { fromX, fromH, dh: dh.map((value, unit) => round(value * z[unit])), dc };
};
