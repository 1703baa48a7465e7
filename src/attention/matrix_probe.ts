// Finds out by a small problem whether a device's subgroup matrices are right, because they are
// experimental in browsers and drivers.

import { guarded } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Component } from "../kernels/forward_matrix.ts";
import { assemblePlan } from "./assemble.ts";
import type { Kernels } from "./forward_kernels.ts";
import type { ResolvedProblem } from "./resolved.ts";

/**
 * Sizes of the small problem: its rows don't fill tiles, and its head dim doesn't fill matrices.
 */
const HEADS = 2;
const SEQ_Q = 37;
const SEQ_KV = 101;
const HEAD_DIM = 40;
/** With this scale scores have a deviation of 4, so that maxima move. */
const SCALE = 0.5;

/**
 * The largest error of an output whose values are up to 2: with f16 each probability is rounded by
 * up to 2^-11 of itself, and hardware may cut off digits of sums in f32 instead of rounding.
 * Numbers in the wrong place are off by 0.1 and more, products of f32 that are rounded to 11 digits
 * by 10^-3.
 */
const ALLOWED = { f16: 2 ** -9, f32: 2 ** -15 };

/**
 * Whether kernels give what a plain loop gives. Rejects with the device's error if they don't run.
 */
export async function areRight(
  device: GPUDevice,
  component: Component,
  kernelsFor: (problem: ResolvedProblem) => Kernels,
): Promise<boolean> {
  const label = "check of subgroup matrices";
  const [q, k, v] = [SEQ_Q, SEQ_KV, SEQ_KV].map((rows, seed) =>
    numbers(HEADS * rows * HEAD_DIM, seed),
  );
  const made: Tensor[] = [];
  const make = (rows: number, dtype: Component, data?: Float32Array<ArrayBuffer>) => {
    const one = tensor(device, [1, HEADS, rows, HEAD_DIM], { dtype, label, ...(data && { data }) });
    made.push(one);
    return one;
  };
  try {
    const inputs = {
      q: make(SEQ_Q, component, q),
      k: make(SEQ_KV, component, k),
      v: make(SEQ_KV, component, v),
    };
    const output = make(SEQ_Q, "f32");
    // With causality there are tiles of keys that all rows see, that some see and that none sees.
    const problem = { ...inputs, output, causal: true, scale: SCALE, label };
    const { plan, allocated } = await assemblePlan(device, problem, kernelsFor);
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      plan.encode(encoder);
      device.queue.submit([encoder.finish()]);
    });
    await Promise.all([allocated, done]).finally(() => plan.destroy());
    const values = await output.read();
    return plainly(q, k, v).every(
      (value, index) => Math.abs(values[index] - value) <= ALLOWED[component],
    );
  } finally {
    for (const one of made) one.destroy();
  }
}

/**
 * Multiples of 1/64 between -2 and 2, which are exact in f16, evenly spread by a linear congruence.
 */
function numbers(count: number, seed: number): Float32Array<ArrayBuffer> {
  let state = 12345 + seed;
  return new Float32Array(count).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 24) - 128) / 64;
  });
}

/** Causal attention by its formula. */
function plainly(q: Float32Array, k: Float32Array, v: Float32Array): number[] {
  const output: number[] = [];
  for (let row = 0; row < HEADS * SEQ_Q; row++) {
    const first = Math.floor(row / SEQ_Q) * SEQ_KV;
    const keys = Array.from(
      { length: (row % SEQ_Q) + 1 + SEQ_KV - SEQ_Q },
      (_, key) => (first + key) * HEAD_DIM,
    );
    const dims = Array.from({ length: HEAD_DIM }, (_, d) => d);
    const sum = (terms: readonly number[]) => terms.reduce((total, term) => total + term, 0);
    const scores = keys.map(
      (key) => SCALE * sum(dims.map((d) => q[row * HEAD_DIM + d] * k[key + d])),
    );
    const top = Math.max(...scores);
    const p = scores.map((score) => Math.exp(score - top));
    output.push(...dims.map((d) => sum(keys.map((key, index) => p[index] * v[key + d])) / sum(p)));
  }
  return output;
}
