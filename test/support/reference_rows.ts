// Float64 steps that references of models are written with: rows, heads, norms.

import { ACTIVATIONS } from "../../src/reference/activations.ts";
import {
  attention,
  layerNorm,
  project,
  type ReferenceOptions,
  type ReferenceTensor,
} from "../../src/reference/index.ts";
import type { Tensors } from "./reference_decoder.ts";

const exact = (x: number) => x;

/** Rows [T, H D] as [1, H, T, D]. */
export function headsOf(x: Float64Array, count: number, T: number): ReferenceTensor {
  const D = x.length / T / count;
  const data = new Float64Array(x.length);
  for (let t = 0; t < T; t++)
    for (let h = 0; h < count; h++)
      for (let d = 0; d < D; d++) data[(h * T + t) * D + d] = x[(t * count + h) * D + d];
  return { shape: [1, count, T, D], data };
}

/** Heads [1, H, T, D] as rows [T, H D]. */
function rowsOf(x: Float64Array, H: number, T: number): Float64Array {
  const D = x.length / T / H;
  return Float64Array.from({ length: x.length }, (_, at) => {
    const t = Math.floor(at / (H * D));
    const h = Math.floor(at / D) % H;
    return x[(h * T + t) * D + (at % D)];
  });
}

export const sum = (a: Float64Array, b: ArrayLike<number>) => a.map((value, at) => value + b[at]);

/** The steps of models whose tensors these are. */
export function stepsOf(tensors: Tensors) {
  const of = (name: string) => {
    const found = tensors[name];
    if (!found) throw new Error(`the reference finds no ${name}`);
    return found;
  };
  const project2 = (x: Float64Array, path: string) => {
    const weight = of(`${path}.weight`);
    const inputs = weight.shape[1];
    const rows = { shape: [x.length / inputs, inputs], data: x };
    return project(rows, weight, tensors[`${path}.bias`]);
  };
  return {
    of,
    project: project2,
    norm(x: Float64Array, path: string, epsilon: number, rms: boolean) {
      const weight = of(`${path}.weight`);
      const [W] = weight.shape;
      const bias = tensors[`${path}.bias`];
      const rows = { shape: [x.length / W, W], data: x };
      const options = { weight, epsilon, rms, ...(bias && { bias }) };
      return Float64Array.from(layerNorm(rows, options).output);
    },
    embed(ids: readonly number[], name: string) {
      const { shape, data } = of(name);
      const W = shape[1];
      return Float64Array.from(
        ids.flatMap((id) => Array.from({ length: W }, (_, d) => Number(data[id * W + d]))),
      );
    },
    activate: (x: Float64Array, name: keyof typeof ACTIVATIONS) =>
      x.map((value) => ACTIVATIONS[name].apply(value, exact)),
    /** Rows of attention by rows of queries over rows of keys and values, before the projection. */
    attend(
      q: Float64Array,
      k: Float64Array,
      v: Float64Array,
      heads: number,
      sizes: readonly [M: number, N: number],
      options: ReferenceOptions,
    ) {
      const [M, N] = sizes;
      const { output } = attention(
        headsOf(q, heads, M),
        headsOf(k, heads, N),
        headsOf(v, heads, N),
        options,
      );
      return rowsOf(output, heads, M);
    },
  };
}
