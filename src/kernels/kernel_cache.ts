// A cache of linked kernels by what they depend on: linking costs a millisecond, and a call with
// other lengths needs the same text.

import { Recent } from "../recent.ts";
import type { KernelSource } from "../types.ts";

/**
 * Linked texts that each kernel keeps: more than a model's layers need, and a few megabytes at
 * most. The texts belong to no device.
 */
export const MOST_KERNELS = 64;

/**
 * Kernels, or promises of them if their modules are loaded, by specialisation, which is plain data.
 * Of more than {@link MOST_KERNELS} those that were asked for longest ago are forgotten, and linked
 * again when they are needed.
 */
export class KernelCache<
  Specialisation,
  Kernel extends KernelSource | Promise<KernelSource> = KernelSource,
> {
  readonly #kernels = new Recent<Kernel>(MOST_KERNELS);

  /**
   * Gives the kernel of a specialisation, and makes it if it is not there. A kernel that can't be
   * loaded is tried again.
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
