// How much memory on the GPU a run takes, counted from outside, so that libraries which don't tell
// can be compared: the buffers that its passes bind. A pool hides nothing from that, and what it has
// but the run does not use does not count.

/** Counts from when it is made until it is stopped. */
export interface MemoryWatch {
  /** Bytes of the buffers that a run has bound and not yet destroyed, at most. */
  mostOf(run: () => Promise<unknown>): Promise<number>;
  stop(): void;
}

/**
 * Watches all devices of this page or process; undefined if its WebGPU can't be watched. Bind
 * groups have to be made after the watch.
 */
export function watchMemory(): MemoryWatch | undefined {
  if (typeof GPUDevice === "undefined" || typeof GPUBuffer === "undefined") return undefined;
  const device = GPUDevice.prototype;
  const pass = GPUComputePassEncoder.prototype;
  const buffer = GPUBuffer.prototype;
  const { createBindGroup } = device;
  const { setBindGroup } = pass;
  const { destroy } = buffer;
  const boundBy = new WeakMap<GPUBindGroup, readonly GPUBuffer[]>();
  let live = new Set<GPUBuffer>();
  let bytes = 0;
  let most = 0;
  device.createBindGroup = function watched(descriptor) {
    const group = createBindGroup.call(this, descriptor);
    boundBy.set(group, [...descriptor.entries].flatMap(buffersOf));
    return group;
  };
  pass.setBindGroup = function watched(
    this: GPUComputePassEncoder,
    ...given: [index: number, group: GPUBindGroup, offsets?: Iterable<number>]
  ) {
    for (const one of boundBy.get(given[1]) ?? []) {
      if (live.has(one)) continue;
      live.add(one);
      bytes += one.size;
    }
    most = Math.max(most, bytes);
    return (setBindGroup as (...all: typeof given) => undefined).apply(this, given);
  } as typeof setBindGroup;
  buffer.destroy = function watched() {
    if (live.delete(this)) bytes -= this.size;
    return destroy.call(this);
  };
  return {
    async mostOf(run) {
      live = new Set();
      bytes = 0;
      most = 0;
      await run();
      return most;
    },
    stop() {
      device.createBindGroup = createBindGroup;
      pass.setBindGroup = setBindGroup;
      buffer.destroy = destroy;
    },
  };
}

function buffersOf({ resource }: GPUBindGroupEntry): GPUBuffer[] {
  if (resource instanceof GPUBuffer) return [resource];
  return "buffer" in resource ? [resource.buffer] : [];
}
