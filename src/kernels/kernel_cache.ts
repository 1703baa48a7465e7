// Linked kernels by what they depend on: linking costs a millisecond, and a call with other lengths needs the same text.

import type { KernelSource } from "../types.ts";

/** Kernels that a cache holds: more than a model's layers need, and a few megabytes at most. */
export const MOST_KERNELS = 64;

/**
 * Kernels by specialisation, which is plain data: as they are, or as promises where modules are loaded for them. Of more
 * than {@link MOST_KERNELS} those that were asked for longest ago are forgotten, and linked again when they are needed.
 */
export class KernelCache<Specialisation, Kernel extends KernelSource | Promise<KernelSource> = KernelSource> {
  readonly #kernels = new Map<string, Kernel>();

  /** The kernel of a specialisation, made if it is not there. One that can't be loaded is tried again. */
  get(spec: Specialisation, make: () => Kernel): Kernel {
    const kernels = this.#kernels;
    const key = JSON.stringify(spec);
    const known = kernels.get(key);
    const kernel = known ?? make();
    // A map keeps the order in which keys came; the one that is used goes to its end.
    kernels.delete(key);
    kernels.set(key, kernel);
    if (kernels.size > MOST_KERNELS) kernels.delete(kernels.keys().next().value as string);
    if (!known && kernel instanceof Promise) {
      kernel.catch(() => kernels.get(key) === kernel && kernels.delete(key));
    }
    return kernel;
  }
}
