// Appends that are submitted for the caller, one after the other, by plans that are kept.

import { guarded } from "../gpu/buffers.ts";
import { BYTES } from "../gpu/elements.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { CacheAppendPlan } from "./cache_append.ts";
import type { AppendBindings, AppendProblem, AppendTarget } from "./cache_append_problem.ts";
import { inPass } from "./cache_state.ts";

/** Options of `append`: what `planAppend` takes beside k and v, and the counts. */
export type AppendOptions = Pick<AppendBindings, "q" | "qOutput" | "positionIds" | "counts"> &
  Pick<AppendProblem, "layout" | "positionOffset" | "label">;

/** Plans that are kept, so that a token after the first costs no more than its commands. */
const KEPT_PLANS = 8;

/** What appends need of a cache beside its memory. */
export interface QueuedTarget extends AppendTarget {
  planAppend(problem: AppendProblem): Promise<CacheAppendPlan>;
  /** Makes room for up to so many tokens more of each entry, if the cache can. */
  makeRoom?(counts: readonly number[]): Promise<void>;
}

/** The appends of a cache, or of a batch of it. */
export class AppendQueue {
  readonly #target: QueuedTarget;
  readonly #plans = new Map<string, CacheAppendPlan>();
  /** What still waits for an end: one after the other. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(target: QueuedTarget) {
    this.#target = target;
  }

  /** Appends after all that were asked for before. Resolves once the GPU has accepted the work. */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    const run = this.#tail.then(() => this.#append(k, v, options));
    this.#tail = run.catch(() => {});
    return run;
  }

  destroy(): void {
    for (const plan of this.#plans.values()) plan.destroy();
    this.#plans.clear();
  }

  async #append(k: Tensor, v: Tensor, options: AppendOptions): Promise<void> {
    const { counts, ...rest } = options;
    const { device, label, source } = this.#target;
    const given = { k, v, ...rest, ...(counts instanceof Tensor && { counts }) };
    const plan = await this.#planOf(given);
    const rows = k.shape[rest.layout === "bmhd" ? 1 : 2];
    const count = (entry: number) =>
      typeof counts === "number" ? counts : Array.isArray(counts) ? counts[entry] : rows;
    await this.#target.makeRoom?.(Array.from({ length: source.batch }, (_, entry) => Math.min(count(entry), rows)));
    const { q, qOutput, positionIds } = rest;
    const tensors = [k, v, q, qOutput, positionIds, given.counts].filter((used) => used instanceof Tensor);
    const bindings = { ...{ k, v }, ...(q && { q }), ...(qOutput && { qOutput }), ...(positionIds && { positionIds }) };
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      inPass(encoder, label, (pass) => plan.encode(pass, { ...bindings, ...(counts !== undefined && { counts }) }));
      device.queue.submit([encoder.finish()]);
    });
    await Promise.all([done, ...tensors.map((used) => used.allocated)]);
  }

  /** The plan for tensors that look like these. */
  async #planOf(problem: AppendProblem): Promise<CacheAppendPlan> {
    const key = JSON.stringify(problem, (_, value) =>
      value instanceof Tensor
        ? [value.dtype, value.shape, value.strides, value.offset % (256 / BYTES[value.dtype])]
        : value,
    );
    let plan = this.#plans.get(key);
    this.#plans.delete(key);
    plan ??= await this.#target.planAppend(problem);
    this.#plans.set(key, plan);
    for (const [oldest, unused] of this.#plans) {
      if (this.#plans.size <= KEPT_PLANS) break;
      unused.destroy();
      this.#plans.delete(oldest);
    }
    return plan;
  }
}
