// What makes keys easy to quantise and changes no probability: from each channel of the keys its
// mean is taken off, a constant for each query that softmax does not see (as SageAttention does,
// arXiv 2410.02367), and keys are divided by factors of their channels that queries are multiplied
// by (as SmoothQuant does for projections, arXiv 2211.10438). The factor is sqrt(k / q), of the
// standard deviation of the keys and the root mean square of the queries: it makes the mean error of
// scores least.

import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { planPointwise } from "../../operations/activations.ts";
import { seeded } from "../../seeded.ts";
import type { Graph } from "../../training/graph.ts";
import type { AttentionSettings } from "../../training/operations/attention.ts";
import { contiguous, multiply } from "../../training/operations/elements.ts";
import { recordProgram } from "../../training/record.ts";
import type { Value } from "../../training/value.ts";
import { type Attend, attendRows, type Definition } from "../definition.ts";
import type { Weights } from "../weights.ts";

/** Tokens, drawn at random, that means and factors are measured on. */
const TOKENS = 128;

/** Means and factors of all layers, by the names of parameters. */
export type KeyScales = ReadonlyMap<string, Tensor>;

/**
 * The parameters of a layer: -mean and 1 / factor of keys, [1, Hkv, 1, D], and the factor of
 * queries, [1, H, 1, D].
 */
const namesOf = (layer: number) => ({
  shift: `key shift ${layer}`,
  key: `key factor ${layer}`,
  query: `query factor ${layer}`,
});

/** Measures means and factors of a model's keys. */
export async function measureKeys(
  device: GPUDevice,
  definition: Definition,
  weights: Weights,
): Promise<KeyScales> {
  const { family, vocab = 1, mostRows, layers } = definition;
  const rows = Math.min(TOKENS, mostRows);
  const seen: { readonly q: Value; readonly k: Value }[] = [];
  const attend: Attend = (layer, q, k, v, settings) => {
    seen[layer] = { q: contiguous(q), k: contiguous(k) };
    return attendRows(layer, q, k, v, settings);
  };
  const program = await recordProgram(
    device,
    (graph) => {
      const sizes = { batch: 1, rows, masked: false };
      definition.define(graph, weights.of(graph), sizes, {}, attend);
      const outputs = seen.flatMap(({ q, k }, at) => [
        [`q${at}`, q] as const,
        [`k${at}`, k] as const,
      ]);
      return { outputs: Object.fromEntries(outputs) };
    },
    { parameters: weights.tensors, label: `${family} keys` },
  );
  const scales = new Map<string, Tensor>();
  try {
    const random = seeded(1);
    const ids = Int32Array.from({ length: rows }, () => Math.floor(random() * vocab));
    await program.write({ ids, positions: Int32Array.from(ids, (_, at) => at) });
    const encoder = device.createCommandEncoder();
    program.encode(encoder);
    device.queue.submit([encoder.finish()]);
    for (let layer = 0; layer < layers; layer++) {
      const { [`q${layer}`]: q, [`k${layer}`]: k } = program.outputs;
      const found = scalesOf(
        { data: (await q.read()) as Float32Array, heads: q.shape[1] },
        { data: (await k.read()) as Float32Array, heads: k.shape[1] },
        k.shape[3],
      );
      const names = namesOf(layer);
      for (const [name, data] of Object.entries(found)) {
        const shape = [1, data.length / k.shape[3], 1, k.shape[3]];
        scales.set(names[name as keyof typeof names], tensor(device, shape, { data }));
      }
    }
    await Promise.all([...scales.values()].map(({ allocated }) => allocated));
    return scales;
  } catch (error) {
    for (const one of scales.values()) one.destroy();
    throw error;
  } finally {
    program.destroy();
  }
}

interface Rows {
  /** [heads, rows, D] */
  readonly data: Float32Array;
  readonly heads: number;
}

/** Means and factors, from the rows of queries and keys of a layer. */
function scalesOf(q: Rows, k: Rows, headDim: number) {
  const rows = k.data.length / k.heads / headDim;
  const group = q.heads / k.heads;
  const shift = new Float32Array(k.heads * headDim);
  const key = new Float32Array(k.heads * headDim);
  const query = new Float32Array(q.heads * headDim);
  for (let head = 0; head < k.heads; head++) {
    for (let d = 0; d < headDim; d++) {
      let sum = 0;
      let squares = 0;
      for (let row = 0; row < rows; row++) {
        const x = k.data[(head * rows + row) * headDim + d];
        sum += x;
        squares += x * x;
      }
      let ofQueries = 0;
      for (let row = 0; row < group * rows; row++)
        ofQueries += q.data[(head * group * rows + row) * headDim + d] ** 2;
      const mean = sum / rows;
      const factor = Math.sqrt(
        Math.sqrt(Math.max(0, squares / rows - mean * mean)) /
          Math.sqrt(ofQueries / (group * rows)),
      );
      const at = head * headDim + d;
      const isRight = factor > 1e-6 && factor < 1e6;
      shift[at] = -mean;
      key[at] = isRight ? 1 / factor : 1;
      for (let one = head * group; one < (head + 1) * group; one++)
        query[one * headDim + d] = isRight ? factor : 1;
    }
  }
  return { shift, key, query };
}

/** Queries and keys of a layer for a cache of integers, in a program whose parameters are `scales`. */
export function smoothed(
  graph: Graph,
  layer: number,
  q: Value,
  k: Value,
  { softcap, sinks, scoreFunction }: AttentionSettings,
) {
  const names = namesOf(layer);
  const headDim = k.shape[3];
  const of = (name: string, heads: number) =>
    graph.parameter(name, [1, heads, 1, headDim], undefined, { frozen: true });
  const query = multiply(q, of(names.query, q.shape[1]));
  const factor = of(names.key, k.shape[1]);
  // Where scores are not linear, or join a sink, a constant counts.
  if (softcap || sinks || scoreFunction) return { query, key: multiply(k, factor) };
  const shift = of(names.shift, k.shape[1]);
  const key = graph.computed("smooth keys", k.shape, [k]);
  graph.add({
    label: "smooth keys",
    inputs: [k, shift, factor],
    outputs: [key],
    plan: (device, at) =>
      planPointwise(device, { x: at(k), bias: at(shift), factor: at(factor), output: at(key) }),
  });
  return { query, key };
}
