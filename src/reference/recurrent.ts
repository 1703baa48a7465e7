// LSTM and GRU on the CPU, step by step. The recurrent kernels are measured against them.

import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { elements } from "./tensors.ts";

/** The weights of a recurrent network, by PyTorch's names: `weight_ih_l0`, `bias_hh_l1_reverse`. */
export type ReferenceRecurrentWeights = Readonly<Record<string, ReferenceTensor>>;

export interface ReferenceRecurrentOptions extends Pick<ReferenceOptions, "precision"> {
  /** [layers directions, B, H], row-major. Default: zeros. */
  readonly h0?: ArrayLike<number>;
  readonly c0?: ArrayLike<number>;
  /** Used steps of each batch entry. Default: all. */
  readonly lengths?: readonly number[];
  /** Whether x is [B, T, inputs], and not [T, B, inputs]. Default true. */
  readonly batchFirst?: boolean;
}

export interface ReferenceRecurrentResult {
  /** [B, T, directions H], or [T, B, ...]; 0 past an entry's length. */
  readonly output: Float64Array;
  /** [layers directions, B, H] */
  readonly hN: Float64Array;
  /** The same of the cells; zeros of a GRU. */
  readonly cN: Float64Array;
}

/** The sizes of a network, and its weights by layer and direction. */
export interface RecurrentNetwork {
  readonly batch: number;
  readonly steps: number;
  readonly inputs: number;
  readonly hidden: number;
  readonly layers: number;
  readonly directions: number;
  /** The row of x, or of an output, of a batch entry and step. */
  row(entry: number, step: number): number;
  /** Used steps of an entry. */
  used(entry: number): number;
}

/** What a step of a unit leaves for its gradient. */
export interface RecurrentStep {
  /** The gates i f g o, or r z n. */
  readonly gates: readonly Float64Array[];
  /** The state before the step, and that of the cells. */
  readonly h: Float64Array;
  readonly c: Float64Array;
  /** c_t of an LSTM, W_hn h_t-1 + b_hn of a GRU. */
  readonly kept: Float64Array;
}

/** What a layer in one direction leaves for its gradient. */
export interface RecurrentTrace {
  /** The rows that the layer reads, [B, T, inputs] in the order of `row`. */
  readonly x: Float64Array;
  readonly inputs: number;
  /** The steps of each batch entry, in the order in which they were taken. */
  readonly steps: readonly (readonly RecurrentStep[])[];
}

export type RecurrentCell = "lstm" | "gru";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export function recurrentNetwork(
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  { batchFirst = true, lengths }: ReferenceRecurrentOptions,
): RecurrentNetwork {
  const [first, second, inputs] = x.shape;
  const [batch, steps] = batchFirst ? [first, second] : [second, first];
  const names = Object.keys(weights);
  return {
    batch,
    steps,
    inputs,
    hidden: weights.weight_hh_l0.shape[1],
    layers: 1 + Math.max(...names.map((name) => Number(/_l(\d+)/.exec(name)?.[1]))),
    directions: names.some((name) => name.endsWith("_reverse")) ? 2 : 1,
    row: (entry, step) => (batchFirst ? entry * steps + step : step * batch + entry),
    used: (entry) => lengths?.[entry] ?? steps,
  };
}

/** The name of a weight's layer and direction: `_l1_reverse`. */
export const suffixOf = ({ directions }: RecurrentNetwork, index: number): string =>
  `_l${Math.floor(index / directions)}${index % directions ? "_reverse" : ""}`;

/** The row of a step: the direction backwards begins at the last used one. */
export const stepRow = (
  { used, directions }: RecurrentNetwork,
  index: number,
  entry: number,
  step: number,
): number => (index % directions ? used(entry) - 1 - step : step);

/**
 * LSTM layers: i, f, o = sigmoid(W x_t + b + U h_t-1 + d), g = tanh(the same of its own rows),
 * c_t = f c_t-1 + i g, h_t = o tanh(c_t).
 *
 * Source: torch.nn.LSTM, in the order i f g o.
 */
export const lstm = (
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: ReferenceRecurrentOptions = {},
): ReferenceRecurrentResult => traced("lstm", x, weights, options).result;

/**
 * GRU layers: r, z = sigmoid(W x_t + b + U h_t-1 + d), n = tanh(W_n x_t + b_n + r (U_n h_t-1 +
 * d_n)), h_t = (1 - z) n + z h_t-1.
 *
 * Source: torch.nn.GRU, in the order r z n.
 */
export const gru = (
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: ReferenceRecurrentOptions = {},
): Omit<ReferenceRecurrentResult, "cN"> => {
  const { output, hN } = traced("gru", x, weights, options).result;
  return { output, hN };
};

/** Runs a network, and gives what its gradients need. */
export function traced(
  cell: RecurrentCell,
  x: ReferenceTensor,
  weights: ReferenceRecurrentWeights,
  options: ReferenceRecurrentOptions,
) {
  const network = recurrentNetwork(x, weights, options);
  const { batch, steps, hidden, layers, directions } = network;
  const { round } = roundingOf(options.precision);
  const size = batch * hidden;
  const hN = new Float64Array(layers * directions * size);
  const cN = new Float64Array(layers * directions * size);
  const traces: RecurrentTrace[] = [];
  let rows: Float64Array = elements(x, x.shape);
  let inputs = network.inputs;
  for (let layer = 0; layer < layers; layer++) {
    const output = new Float64Array(batch * steps * directions * hidden);
    for (let direction = 0; direction < directions; direction++) {
      const index = layer * directions + direction;
      const read = cellWeights(weights, suffixOf(network, index));
      const taken: RecurrentStep[][] = [];
      for (let entry = 0; entry < batch; entry++) {
        const at = index * size + entry * hidden;
        const start = (from?: ArrayLike<number>) =>
          Float64Array.from({ length: hidden }, (_, unit) => from?.[at + unit] ?? 0);
        let h: Float64Array = start(options.h0);
        let c: Float64Array = start(options.c0);
        taken.push([]);
        for (let step = 0; step < network.used(entry); step++) {
          const row = network.row(entry, stepRow(network, index, entry, step));
          const one = rows.subarray(row * inputs, (row + 1) * inputs);
          const fromX = affine(read.weightIh, read.biasIh, one, round);
          const fromH = affine(read.weightHh, read.biasHh, h, round);
          const next = (cell === "lstm" ? lstmStep : gruStep)(fromX, fromH, h, c, round);
          taken[entry].push({ gates: next.gates, h, c, kept: next.kept });
          h = next.h;
          c = next.c;
          output.set(h, row * directions * hidden + direction * hidden);
        }
        hN.set(h, at);
        cN.set(c, at);
      }
      traces.push({ x: rows, inputs, steps: taken });
    }
    rows = output;
    inputs = directions * hidden;
  }
  return { network, traces, result: { output: rows, hN, cN } };
}

/** The weights of a layer in a direction, row-major. */
export function cellWeights(weights: ReferenceRecurrentWeights, suffix: string) {
  const read = (name: string) => {
    const one = weights[`${name}${suffix}`];
    return one && elements(one, one.shape);
  };
  return {
    weightIh: read("weight_ih"),
    weightHh: read("weight_hh"),
    biasIh: read("bias_ih") as Float64Array | undefined,
    biasHh: read("bias_hh") as Float64Array | undefined,
  };
}

/** W x + b */
function affine(
  weight: Float64Array,
  bias: Float64Array | undefined,
  x: Float64Array,
  round: (value: number) => number,
): Float64Array {
  return Float64Array.from({ length: weight.length / x.length }, (_, row) => {
    let sum = 0;
    for (let k = 0; k < x.length; k++) sum = round(sum + round(weight[row * x.length + k] * x[k]));
    return bias ? round(sum + bias[row]) : sum;
  });
}

interface NextStep extends Omit<RecurrentStep, "h" | "c"> {
  /** h_t and c_t */
  readonly h: Float64Array;
  readonly c: Float64Array;
}

type Step = (
  fromX: Float64Array,
  fromH: Float64Array,
  h: Float64Array,
  c: Float64Array,
  round: (value: number) => number,
) => NextStep;

const lstmStep: Step = (fromX, fromH, h, c, round) => {
  const H = h.length;
  const gate = (index: number, apply: (x: number) => number) =>
    h.map((_, unit) => round(apply(round(fromX[index * H + unit] + fromH[index * H + unit]))));
  const gates = [gate(0, sigmoid), gate(1, sigmoid), gate(2, Math.tanh), gate(3, sigmoid)];
  const [i, f, g, o] = gates;
  const next = c.map((before, unit) => round(round(f[unit] * before) + round(i[unit] * g[unit])));
  const state = next.map((value, unit) => round(o[unit] * round(Math.tanh(value))));
  return { gates, h: state, c: next, kept: next };
};

const gruStep: Step = (fromX, fromH, h, c, round) => {
  const H = h.length;
  const gate = (index: number) =>
    h.map((_, unit) => round(sigmoid(round(fromX[index * H + unit] + fromH[index * H + unit]))));
  const r = gate(0);
  const z = gate(1);
  const kept = fromH.slice(2 * H);
  const n = h.map((_, unit) =>
    round(Math.tanh(round(fromX[2 * H + unit] + round(r[unit] * kept[unit])))),
  );
  const state = h.map((before, unit) =>
    round(round((1 - z[unit]) * n[unit]) + round(z[unit] * before)),
  );
  return { gates: [r, z, n], h: state, c, kept };
};
