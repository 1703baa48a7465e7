// Checks the gradients of attention on a device, by a small problem that is also computed here.

import { check } from "../../errors.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { checkDevice } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { seeded } from "../../seeded.ts";
import { attention } from "../attention.ts";
import { attentionBackward } from "./backward.ts";

/** Where and how {@link checkGradients} looks. */
export interface CheckGradientsOptions {
  /** Of the numbers that attention gets. Default 1. */
  readonly seed?: number;
  /** The part of the largest element of a result by which an element may be off. Default 0.001. */
  readonly tolerance?: number;
}

const OPTIONS: OptionNames<CheckGradientsOptions> = { seed: "number", tolerance: "number" };

type Results = "output" | "lse" | "dQ" | "dK" | "dV";

/** What {@link checkGradients} found. */
export interface GradientsCheck {
  /** Whether all elements are within their bounds. */
  readonly within: boolean;
  /** How far each result is off: its largest difference, over its largest element. */
  readonly off: Readonly<Record<Results, number>>;
  /** The element that is off by most. */
  readonly worst: {
    readonly result: Results;
    /** Its place in the result: [batch, head, row, column], for lse without the column. */
    readonly index: readonly number[];
    readonly given: number;
    readonly expected: number;
  };
}

/** B, H, Hkv, M, N, D and Dv. Neither rows nor keys fill their tiles. */
const SIZES = { batch: 2, heads: 4, kvHeads: 2, queries: 21, keys: 37, dim: 12, vDim: 8 } as const;

/**
 * Whether the gradients of attention are right on this device: for apps that train on whatever GPU
 * their visitor has. Attention and its gradients run on a small causal problem with grouped heads,
 * of seeded numbers, and are compared with the same in float64 on the CPU, element by element. It
 * takes as long as compiling four kernels, and a few kilobytes.
 *
 * Rejects with FoveaError, as attention does; a device whose results are wrong is a result.
 *
 * @example
 * const { within, worst } = await checkGradients(device);
 * if (!within) console.warn("this GPU computes wrong gradients:", worst);
 */
export async function checkGradients(
  device: GPUDevice,
  options: CheckGradientsOptions = {},
): Promise<GradientsCheck> {
  const label = "checkGradients";
  checkDevice(device);
  const { seed = 1, tolerance = 1e-3 } = await readOptions(label, options, OPTIONS);
  check(
    Number.isInteger(seed),
    "argument",
    () => `${label}: seed must be a whole number, got ${seed}.`,
  );
  check(
    Number.isFinite(tolerance) && tolerance > 0,
    "argument",
    () => `${label}: tolerance must be a positive number, got ${tolerance}.`,
  );
  const { batch, heads, kvHeads, queries, keys, dim, vDim } = SIZES;
  const random = seeded(seed);
  const made: Tensor[] = [];
  const keep = <One extends Tensor>(one: One) => {
    made.push(one);
    return one;
  };
  const numbers = (...shape: readonly number[]) => {
    const count = shape.reduce((product, size) => product * size, 1);
    // The sum of three is as good as a normal number here.
    const data = Float32Array.from(
      { length: count },
      () => 2 * (random() + random() + random()) - 3,
    );
    return { data: new Float64Array(data), tensor: keep(tensor(device, shape, { data, label })) };
  };
  try {
    const q = numbers(batch, heads, queries, dim);
    const k = numbers(batch, kvHeads, keys, dim);
    const v = numbers(batch, kvHeads, keys, vDim);
    const dOutput = numbers(batch, heads, queries, vDim);
    const dLse = numbers(batch, heads, queries);
    const given = { causal: true, label } as const;
    const lse = keep(tensor(device, [batch, heads, queries], { label }));
    const { output } = await attention(q.tensor, k.tensor, v.tensor, { ...given, lse });
    keep(output);
    const gradients = await attentionBackward(q.tensor, k.tensor, v.tensor, {
      ...given,
      output,
      lse,
      dOutput: dOutput.tensor,
      dLse: dLse.tensor,
    });
    const { dQ, dK, dV } = gradients;
    for (const one of [dQ, dK, dV]) keep(one);
    const expected = plainGradients({
      q: q.data,
      k: k.data,
      v: v.data,
      dOutput: dOutput.data,
      dLse: dLse.data,
    });
    const results = { output, lse, dQ, dK, dV };
    const found = await Promise.all(
      Object.entries(results).map(async ([name, result]) =>
        compare(name as Results, result, await result.read(), expected[name as Results]),
      ),
    );
    const worst = found.reduce((a, b) => (b.off > a.off ? b : a));
    const off = Object.fromEntries(found.map((one) => [one.result, one.off]));
    const { result, index, given: value, expected: right } = worst;
    return {
      within: worst.off <= tolerance,
      off: off as GradientsCheck["off"],
      worst: { result, index, given: value, expected: right },
    };
  } finally {
    for (const one of made) one.destroy();
  }
}

/** The element of a result that is farthest off; one that is no number is farther than any other. */
function compare(
  result: Results,
  { shape }: Tensor,
  given: ArrayLike<number>,
  expected: ArrayLike<number>,
) {
  let worst = { at: 0, difference: -1 };
  let largest = 0;
  for (let at = 0; at < expected.length; at++) {
    const difference = Math.abs(given[at] - expected[at]);
    const far = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    if (far > worst.difference) worst = { at, difference: far };
    largest = Math.max(largest, Math.abs(expected[at]));
  }
  let rest = worst.at;
  const index = [...shape].reverse().map((size) => {
    const place = rest % size;
    rest = Math.floor(rest / size);
    return place;
  });
  return {
    result,
    off: worst.difference / largest,
    index: index.reverse(),
    given: given[worst.at],
    expected: expected[worst.at],
  };
}

type Values = Readonly<Record<"q" | "k" | "v" | "dOutput" | "dLse", Float64Array>>;

/** The problem in float64, row by row, by the formulas of attentionBackward. */
function plainGradients({ q, k, v, dOutput, dLse }: Values): Record<Results, Float64Array> {
  const { batch, heads, kvHeads, queries, keys, dim, vDim } = SIZES;
  const rows = batch * heads * queries;
  const scale = 1 / Math.sqrt(dim);
  const found = {
    output: new Float64Array(rows * vDim),
    lse: new Float64Array(rows),
    dQ: new Float64Array(q.length),
    dK: new Float64Array(k.length),
    dV: new Float64Array(v.length),
  };
  for (let row = 0; row < rows; row++) {
    const group = Math.floor(row / queries / (heads / kvHeads));
    const seen = (row % queries) + keys - queries + 1;
    const list = Array.from({ length: seen }, (_, j) => group * keys + j);
    const query = rowOf(q, row, dim);
    const dOut = rowOf(dOutput, row, vDim);
    const scores = list.map((key) => scale * dot(query, rowOf(k, key, dim)));
    const most = Math.max(...scores);
    const sum = scores.reduce((total, s) => total + Math.exp(s - most), 0);
    const lse = most + Math.log(sum);
    const p = scores.map((s) => Math.exp(s - lse));
    const dP = list.map((key) => dot(dOut, rowOf(v, key, vDim)));
    const delta = p.reduce((total, x, j) => total + x * dP[j], 0) - dLse[row];
    found.lse[row] = lse;
    for (const [j, key] of list.entries()) {
      const dS = scale * p[j] * (dP[j] - delta);
      add(rowOf(found.output, row, vDim), p[j], rowOf(v, key, vDim));
      add(rowOf(found.dV, key, vDim), p[j], dOut);
      add(rowOf(found.dQ, row, dim), dS, rowOf(k, key, dim));
      add(rowOf(found.dK, key, dim), dS, query);
    }
  }
  return found;
}

/** Row number `index` of a matrix with rows of `width`. */
const rowOf = (matrix: Float64Array, index: number, width: number) =>
  matrix.subarray(index * width, (index + 1) * width);

const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);

function add(into: Float64Array, factor: number, row: Float64Array): void {
  for (const [i, x] of row.entries()) into[i] += factor * x;
}
