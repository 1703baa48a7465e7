// A device that refuses memory when a test says so, as a device without any left does: the buffer
// is invalid, and the scope for out of memory tells.

import { overridden } from "./overridden.ts";

interface Scope {
  readonly filter: GPUErrorFilter;
  refused: boolean;
}

/** MAP_READ and MAP_WRITE, which no buffer can have both. */
const IMPOSSIBLE = 3;

export function refusing(real: GPUDevice) {
  const scopes: Scope[] = [];
  let refuses: (descriptor: GPUBufferDescriptor) => boolean = () => false;
  const nearest = (filter: GPUErrorFilter) => scopes.findLast((scope) => scope.filter === filter);
  const device = overridden(real, {
    pushErrorScope(filter: GPUErrorFilter) {
      scopes.push({ filter, refused: false });
      real.pushErrorScope(filter);
    },
    async popErrorScope() {
      const scope = scopes.pop();
      const error = await real.popErrorScope();
      if (!scope?.refused) return error;
      return scope.filter === "out-of-memory" ? new GPUOutOfMemoryError("no memory left") : null;
    },
    createBuffer(descriptor: GPUBufferDescriptor) {
      if (!refuses(descriptor)) return real.createBuffer(descriptor);
      for (const filter of ["out-of-memory", "validation"] as const) {
        const scope = nearest(filter);
        if (scope) scope.refused = true;
      }
      return real.createBuffer({ ...descriptor, usage: descriptor.usage | IMPOSSIBLE });
    },
  });
  return {
    device,
    /** Refuses the buffers that `which` selects, until told otherwise. */
    refuse(which: (descriptor: GPUBufferDescriptor) => boolean): void {
      refuses = which;
    },
    /** Runs `work` with every buffer refused. */
    without<T>(work: () => T): T {
      refuses = () => true;
      try {
        return work();
      } finally {
        refuses = () => false;
      }
    },
  };
}
