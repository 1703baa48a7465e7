// Linked kernels by what they depend on: linking costs a millisecond, and a call with other lengths needs the same text.

import type { KernelSource } from "../types.ts";

/** Kernels by specialisation, which is plain data: as they are, or as promises where modules are loaded for them. */
export class KernelCache<Specialisation, Kernel extends KernelSource | Promise<KernelSource> = KernelSource> {
  readonly #kernels = new Map<string, Kernel>();

  /** The kernel of a specialisation, made if it is not there. One that can't be loaded is tried again. */
  get(spec: Specialisation, make: () => Kernel): Kernel {
    const key = JSON.stringify(spec);
    let kernel = this.#kernels.get(key);
    if (!kernel) {
      kernel = make();
      this.#kernels.set(key, kernel);
      if (kernel instanceof Promise) kernel.catch(() => this.#kernels.delete(key));
    }
    return kernel;
  }
}
