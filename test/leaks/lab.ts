// The lab in which calls are watched for what they leave behind: a device of Dawn that counts its
// objects and refuses memory on request. Nothing that is counted depends on what kernels write, so
// it runs kernels that are compiled in no time and write nothing.

import {
  type Dtype,
  FoveaError,
  type FoveaErrorCode,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { counted } from "../support/counted.ts";
import { idle } from "../support/idle.ts";
import { refusing } from "../support/refusal.ts";

interface Destroyable {
  destroy(): void;
}

/** A kind of call that could leave something behind. */
export interface LeakCase {
  readonly name: string;
  /** How many calls run at the same time, for calls that wait for a clock. Default 1. */
  readonly together?: number;
  /**
   * Whether calls link texts. Optimised code has to do that, and a text that is kept takes hundreds
   * of KiB. Default false.
   */
  readonly links?: boolean;
  /**
   * Makes what the calls share, which the lab keeps, and returns the call, whose `n` counts from 0.
   */
  start(lab: Lab): Promise<Call> | Call;
}
export type Call = (n: number) => Promise<unknown> | unknown;

export class Lab {
  /** A device that counts and can refuse, with kernels that write nothing. */
  readonly device: GPUDevice;
  /**
   * The same device with the true kernels, each of which takes software adapters seconds to
   * compile.
   */
  readonly real: GPUDevice;
  /** GPU objects that were made and not destroyed. */
  readonly objects: () => number;
  /** Errors of the GPU that nobody caught. */
  readonly errors: string[] = [];
  readonly refuse: (which: (label: string) => boolean) => void;
  readonly #kept: Destroyable[] = [];

  constructor(dawn: GPUDevice) {
    const { device: able, refuse } = refusing(dawn);
    const { device: real, objects } = counted(able);
    this.refuse = (which) => refuse(({ label }) => which(label ?? ""));
    this.real = real;
    this.device = idle(real);
    this.objects = objects;
    dawn.addEventListener("uncapturederror", ({ error }) => this.errors.push(error.message));
  }

  /** Keeps something until the case is over. */
  keep<T extends Destroyable>(one: T): T {
    this.#kept.push(one);
    return one;
  }

  /** Makes a tensor of normal numbers, or of zeros if they are integers, and keeps it. */
  rows(shape: readonly number[], dtype: Dtype = "f32", device = this.device): Tensor {
    const count = shape.reduce((product, size) => product * size, 1);
    const data = /^[fb]/.test(dtype) ? normal(count, count) : new Float32Array(count);
    return this.keep(tensor(device, shape, { dtype, data }));
  }

  /** Destroys what was kept. */
  clear(): void {
    for (const one of this.#kept.splice(0)) one.destroy();
  }

  /** Runs `work` with all buffers refused whose label is named; by default all buffers. */
  async without<T>(
    work: () => T | Promise<T>,
    which: (label: string) => boolean = () => true,
  ): Promise<T> {
    this.refuse(which);
    try {
      return await work();
    } finally {
      this.refuse(() => false);
    }
  }

  /** Makes a tensor that gets no memory, and does not keep it. */
  refused(shape: readonly number[]): Tensor {
    this.refuse(() => true);
    try {
      return tensor(this.device, shape, { label: "refused" });
    } finally {
      this.refuse(() => false);
    }
  }
}

/** Destroys a result, or the results of an object. */
export function drop(result: object): void {
  if ("destroy" in result) (result as Destroyable).destroy();
  else for (const one of Object.values(result)) (one as Destroyable | undefined)?.destroy();
}

/** Waits for a call that has to be rejected with a FoveaError of this code. */
export async function rejected(code: FoveaErrorCode, work: () => unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof FoveaError && error.code === code) return;
    throw error;
  }
  throw new Error(`a call resolved that should have been rejected with "${code}"`);
}

/** Encodes a plan into a command encoder, submits it and destroys the plan. */
export function runPlan<Bindings>(
  device: GPUDevice,
  plan: { encode(target: GPUCommandEncoder, bindings: Bindings): void; destroy(): void },
  bindings: Bindings,
): void {
  const encoder = device.createCommandEncoder();
  plan.encode(encoder, bindings);
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}
