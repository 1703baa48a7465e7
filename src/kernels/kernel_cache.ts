// Linked kernels by what they depend on: linking costs a millisecond, and a call with other lengths
// needs the same text.

import { Recent } from "../recent.ts";
import type { KernelSource } from "../types.ts";

/**
 * Linked texts that each kernel keeps: more than a model's layers need, and a few megabytes at
 * most. They are of no device.
 */
export const MOST_KERNELS = 64;

/**
 * Kernels by specialisation, which is plain data: as they are, or as promises where modules are
 * loaded for them. Of more than {@link MOST_KERNELS} those that were asked for longest ago are
 * forgotten, and linked again when they are needed.
 */
export class KernelCache<
  Specialisation,
  Kernel extends KernelSource | Promise<KernelSource> = KernelSource,
> {
  readonly #kernels = new Recent<Kernel>(MOST_KERNELS);

  /**
   * The kernel of a specialisation, made if it is not there. One that can't be loaded is tried
   * again.
   */
  get(spec: Specialisation, make: () => Kernel): Kernel {
    const key = JSON.stringify(spec);
    return this.#kernels.get(key, () => {
      const kernel = make();
      if (kernel instanceof Promise) kernel.catch(() => this.#kernels.drop(key, kernel));
      return kernel;
    });
  }
}
