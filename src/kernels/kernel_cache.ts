// Linked kernels by what they depend on: linking costs a millisecond, and a call with other lengths needs the same text.

import type { KernelSource } from "../types.ts";

/** Kernels by specialisation, which is plain data. */
export class KernelCache<Specialisation> {
  readonly #kernels = new Map<string, Promise<KernelSource>>();

  /** The kernel of a specialisation, made if it is not there. One that can't be loaded is tried again. */
  get(spec: Specialisation, make: () => Promise<KernelSource>): Promise<KernelSource> {
    const key = JSON.stringify(spec);
    let kernel = this.#kernels.get(key);
    if (!kernel) {
      kernel = make();
      kernel.catch(() => this.#kernels.delete(key));
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }
}
