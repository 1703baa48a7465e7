// Runs problems on a GPU, one after the other, and compares each with the float64 reference. It
// works in a page and in Node alike.

import { FoveaError } from "../../src/index.ts";
import { KeptDevice } from "../support/kept_device.ts";
import { RUNS, type SuiteName } from "./runs.ts";
import type { Problem } from "./suites.ts";

/** How a problem went. */
export interface Outcome {
  /** Problems are skipped that the device's limits do not allow. */
  readonly result: "passed" | "failed" | "skipped";
  /** What failed, or was refused. */
  readonly message: string;
  /** Kernels compiled so far. */
  readonly compiled: number;
}

/** Runs problems on a device that it keeps. */
export class Trials {
  readonly #kept: KeptDevice;

  constructor(request: () => Promise<GPUDevice>) {
    this.#kept = new KeptDevice(request);
  }

  device(): Promise<GPUDevice> {
    return this.#kept.get();
  }

  async try(suite: SuiteName, problem: Problem): Promise<Outcome> {
    const run = RUNS[suite] as (device: GPUDevice, problem: Problem) => Promise<void>;
    await this.device(); // without one nothing can be tried
    try {
      await this.#kept.run((device) => run(device, problem));
      return { result: "passed", message: "", compiled: this.#kept.compiled };
    } catch (error) {
      const refused = error instanceof FoveaError && error.code === "limit";
      const message = error instanceof Error ? error.message : String(error);
      return { result: refused ? "skipped" : "failed", message, compiled: this.#kept.compiled };
    }
  }
}
