// Problems on a GPU, one after the other, each compared with the float64 reference. Runs in a page and in Node alike.

import { FoveaError } from "../../src/index.ts";
import { RUNS, type SuiteName } from "./runs.ts";
import type { Problem } from "./suites.ts";

/** How a problem went. */
export interface Outcome {
  /** Skipped is what the device's limits do not allow. */
  readonly result: "passed" | "failed" | "skipped";
  /** What failed, or was refused. */
  readonly message: string;
  /** Kernels compiled so far. */
  readonly compiled: number;
}

/** Runs problems on a device that it keeps, and replaces when it is lost. */
export class Trials {
  readonly #request: () => Promise<GPUDevice>;
  #device: Promise<GPUDevice> | undefined;
  #compiled = 0;
  #errors: string[] = [];

  constructor(request: () => Promise<GPUDevice>) {
    this.#request = request;
  }

  device(): Promise<GPUDevice> {
    this.#device ??= this.#request().then((device) => this.#watched(device));
    return this.#device;
  }

  async try(suite: SuiteName, problem: Problem): Promise<Outcome> {
    this.#errors = [];
    const device = await this.device();
    try {
      await (RUNS[suite] as (device: GPUDevice, problem: Problem) => Promise<void>)(device, problem);
      if (this.#errors.length) throw new Error(`GPU errors that nobody caught: ${this.#errors.join("; ")}`);
      return { result: "passed", message: "", compiled: this.#compiled };
    } catch (error) {
      const refused = error instanceof FoveaError && error.code === "limit";
      const message = error instanceof Error ? error.message : String(error);
      return { result: refused ? "skipped" : "failed", message, compiled: this.#compiled };
    }
  }

  /** Counts its compilations, and hears its errors and its end. */
  #watched(device: GPUDevice): GPUDevice {
    const compile = device.createComputePipelineAsync.bind(device);
    device.createComputePipelineAsync = (descriptor) => {
      this.#compiled++;
      return compile(descriptor);
    };
    device.addEventListener("uncapturederror", (event) => this.#errors.push(event.error.message));
    device.lost.then(() => {
      this.#device = undefined;
    });
    return device;
  }
}
