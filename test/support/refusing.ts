// A device that refuses memory for some buffers, as a GPU without any left does: the buffer is
// invalid, the scope around its making reports that memory ran out, and whatever uses it later is a
// validation error.

import { overridden } from "./overridden.ts";

/** Refuses buffers whose label `isRefused`. */
export function refusing(real: GPUDevice, isRefused: (label: string) => boolean): GPUDevice {
  /** Open scopes, with what each has caught beside what the real one has. */
  const scopes: { filter: GPUErrorFilter; caught: GPUError | null }[] = [];
  return overridden(real, {
    pushErrorScope(filter: GPUErrorFilter) {
      scopes.push({ filter, caught: null });
      real.pushErrorScope(filter);
    },
    async popErrorScope() {
      const popped = real.popErrorScope();
      const scope = scopes.pop();
      const error = await popped;
      return scope?.caught ?? error;
    },
    createBuffer(descriptor: GPUBufferDescriptor) {
      if (!isRefused(descriptor.label ?? "")) return real.createBuffer(descriptor);
      const scope = scopes.findLast(({ filter }) => filter === "out-of-memory");
      if (scope) scope.caught ??= new GPUOutOfMemoryError(`no memory for ${descriptor.label}`);
      real.pushErrorScope("validation");
      const usage = descriptor.usage | 1; // MAP_READ goes with COPY_DST only: the buffer is invalid
      const buffer = real.createBuffer({ ...descriptor, usage });
      void real.popErrorScope();
      Object.defineProperty(buffer, "usage", { value: descriptor.usage });
      return buffer;
    },
  });
}
