// A step of generation: a token joins a cache, and its query attends to all of the cache.

import { type AttentionProblem, createKvCache, planAttention, type Tensor } from "../src/index.ts";
import type { Implementation, Memory } from "./harness.ts";

/**
 * The cache holds all keys but the last; a run takes back what the run before appended, appends the
 * last key, and attends. None of that allocates, compiles or reads back.
 */
export const GENERATION: Implementation = {
  name: "fovea:cache",
  async plan(device: GPUDevice, problem: AttentionProblem) {
    const { q, k, v, output } = problem as AttentionProblem & Memory;
    const [batch, kvHeads, length, headDim] = k.shape;
    const cache = await createKvCache(device, {
      batch,
      kvHeads,
      headDim,
      vDim: v.shape[3],
      capacity: length,
    });
    const lasts = new Map<Tensor, Tensor>();
    const last = (given: Tensor) => {
      const view = lasts.get(given) ?? given.slice(2, length - 1, length);
      lasts.set(given, view);
      return view;
    };
    await cache.append(k.slice(2, 0, length - 1), v.slice(2, 0, length - 1));
    const append = await cache.planAppend({ k: last(k), v: last(v) });
    const attend = await planAttention(device, { q, cache, output, causal: true });
    return {
      kernel: attend.kernel,
      workspaceBytes: attend.workspaceBytes,
      encode(pass: GPUComputePassEncoder, memory: Memory) {
        cache.encodeTruncate(pass, length - 1);
        append.encode(pass, { k: last(memory.k), v: last(memory.v) });
        attend.encode(pass, { q: memory.q, output: memory.output });
      },
      destroy() {
        for (const one of [append, attend, cache]) one.destroy();
      },
    };
  },
};
