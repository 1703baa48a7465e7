// Appends that a cache submits for the caller, by plans that it keeps.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { BYTES } from "../gpu/shapes.ts";
import { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { checkTensors } from "../plan/run.ts";
import { bindingRange, bindingStep } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { type CacheAppendPlan, makeAppendPlan } from "./append.ts";
import { boundTensors, countsOf } from "./append_bindings.ts";
import type { TakeRoom } from "./append_moment.ts";
import {
  APPEND_PROBLEM,
  type AppendBindings,
  type AppendProblem,
  type AppendTarget,
  resolveAppend,
} from "./append_problem.ts";
import { ready } from "./state.ts";

/** Options of `append`: those of `planAppend` beside k and v, and the counts. */
export type AppendOptions = Pick<AppendBindings, "q" | "qOutput" | "positionIds" | "counts"> &
  Pick<AppendProblem, "layout" | "positionOffset" | "label">;

const { k: _k, v: _v, ...APPEND_OPTIONS } = APPEND_PROBLEM;

/** How many plans are kept, so that a token after the first costs only its commands. */
const KEPT_PLANS = 8;

type TensorName = "k" | "v" | "q" | "qOutput" | "positionIds" | "counts";
type AppendTensors = { readonly [Name in TensorName]?: Tensor };

/** The arguments of an append, by value. */
interface Request {
  readonly problem: AppendProblem;
  readonly tensors: AppendTensors;
  /** The counts at the call, if they are numbers. */
  readonly counts: number | readonly number[] | undefined;
  /** The most tokens that each entry gets. */
  readonly most: readonly number[];
  readonly label: string;
  readonly key: string;
}

/** The appends of a cache, or of a batch of it. */
export class AppendQueue {
  readonly #target: AppendTarget;
  readonly #plans = new Map<string, CacheAppendPlan>();

  constructor(target: AppendTarget) {
    this.#target = target;
  }

  /**
   * Appends after all calls that were made before. Resolves once the GPU has accepted the work;
   * rejects, and then has changed nothing.
   *
   * If nothing has to be waited for, the work is submitted before this returns. Otherwise the
   * tensors are copied on the GPU, so that the call uses their content of now, whatever happens to
   * them meanwhile.
   */
  async append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    const target = this.#target;
    const { device } = target;
    check(!target.destroyed, "destroyed", () => `${target.label}: the cache was destroyed.`);
    checkDevice(device);
    const request = this.#requested(k, v, options);
    const { label, most, tensors } = request;
    const moment = target.moment();
    const used = Object.values(tensors);
    const plan = moment.isReady(most) ? this.#kept(request.key) : undefined;
    if (plan) {
      return moment.call(label, most, (take) =>
        ready(this.#submit(plan, request, tensors, take), used),
      );
    }
    const { value: kept, done } = guarded(device, label, () => copied(device, label, tensors));
    const copying = ready(done, used);
    copying.catch(() => {}); // it is awaited below, after the calls before
    try {
      return await moment.call(label, most, async (take, makeRoom) => {
        await copying;
        const made = await this.#planOf(request);
        await makeRoom();
        await this.#submit(made, request, { ...tensors, ...kept }, take);
      });
    } finally {
      for (const copy of Object.values(kept)) copy.buffer.destroy();
    }
  }

  destroy(): void {
    for (const plan of this.#plans.values()) plan.destroy();
    this.#plans.clear();
  }

  /** Checks the arguments and copies them. */
  #requested(k: Tensor, v: Tensor, options: AppendOptions): Request {
    const target = this.#target;
    const { q, qOutput, positionIds, counts, layout, positionOffset, label } = takeOptions(
      `${target.label} append`,
      options,
      APPEND_OPTIONS,
    );
    checkTensors(`${target.label} append`, { k, v });
    const named = {
      k,
      v,
      q,
      qOutput,
      positionIds,
      counts: counts instanceof Tensor ? counts : undefined,
    };
    const tensors: AppendTensors = Object.fromEntries(
      Object.entries(named).filter(([, given]) => given !== undefined),
    );
    const settings = Object.fromEntries(
      Object.entries({ layout, positionOffset, label }).filter(([, given]) => given !== undefined),
    );
    const append = resolveAppend(target, { ...tensors, ...settings } as AppendProblem);
    boundTensors(target, append, tensors);
    const { batch } = target.source;
    const { most, counts: numbers } = countsOf(append, batch, counts);
    const specs = Object.fromEntries(
      Object.entries(tensors).map(([name, given]) => [name, specOf(given)]),
    );
    const problem = { ...specs, ...settings } as unknown as AppendProblem;
    return {
      problem,
      tensors,
      counts: numbers instanceof Tensor ? undefined : numbers,
      most,
      label: append.label,
      key: JSON.stringify(problem),
    };
  }

  /** Encodes and submits. */
  #submit(
    plan: CacheAppendPlan,
    { counts, label }: Request,
    tensors: AppendTensors,
    take: TakeRoom,
  ): Promise<void> {
    const { device } = this.#target;
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      plan.record(encoder, { ...tensors, ...(counts && { counts }) }, take);
      device.queue.submit([encoder.finish()]);
    });
    return done;
  }

  /** Gives a kept plan, and makes it the last one that will be dropped. */
  #kept(key: string): CacheAppendPlan | undefined {
    const plan = this.#plans.get(key);
    if (!plan) return undefined;
    this.#plans.delete(key);
    this.#plans.set(key, plan);
    return plan;
  }

  /** The plan for tensors that look like these. */
  async #planOf({ key, problem }: Request): Promise<CacheAppendPlan> {
    const kept = this.#kept(key);
    if (kept) return kept;
    const plan = await makeAppendPlan(this.#target, problem);
    // While the plan was compiled, the cache may have been destroyed; the next use of the plan
    // throws then.
    if (this.#target.destroyed) plan.destroy();
    else this.#plans.set(key, plan);
    for (const [oldest, unused] of this.#plans) {
      if (this.#plans.size <= KEPT_PLANS) break;
      unused.destroy();
      this.#plans.delete(oldest);
    }
    return plan;
  }
}

/** The spec of a tensor, with its offset from the last possible start of a binding before it. */
function specOf({ device, dtype, shape, strides, offset }: Tensor): TensorSpec {
  return { dtype, shape, strides, offset: offset % bindingStep(device, dtype) };
}

/**
 * Copies of the tensors that are read, which look the same to a plan. A caller's buffer that cannot
 * be copied is taken as it is.
 */
function copied(device: GPUDevice, label: string, tensors: AppendTensors): AppendTensors {
  const read = tensors.qOutput ? tensors : { ...tensors, q: undefined }; // without qOutput, q is written in place and isn't copied
  const copies: Record<string, Tensor> = {};
  const encoder = device.createCommandEncoder({ label });
  for (const [name, from] of Object.entries(read)) {
    if (!from?.size || name === "qOutput" || (from.buffer.usage & USAGE.COPY_SRC) === 0) continue;
    const { offset, size } = bindingRange(from);
    const buffer = device.createBuffer({ label, size, usage: USAGE.STORAGE | USAGE.COPY_DST });
    encoder.copyBufferToBuffer(from.buffer, offset, buffer, 0, size);
    const { dtype, shape, strides } = from;
    const start = from.offset - offset / BYTES[dtype];
    copies[name] = tensor(device, shape, {
      buffer,
      dtype,
      strides,
      offset: start,
      label: from.label,
    });
  }
  device.queue.submit([encoder.finish()]);
  return copies;
}
