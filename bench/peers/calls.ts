// What a run asks of WebGPU, counted from outside for all libraries alike.

/** Calls on all devices of this page or process. */
export interface Calls {
  /** Calls of `queue.submit`. */
  readonly submissions: number;
  readonly dispatches: number;
  /** Buffers that were created. */
  readonly buffers: number;
  /** Bytes that are read of what is kept from run to run, of the bytes that have to be read. */
  readonly readShare?: number;
}

/** Calls of a run, and for each buffer how many dispatches had it bound. */
export interface CallsOfRun extends Calls {
  readonly boundBy: BoundBy;
}
export type BoundBy = ReadonlyMap<GPUBuffer, number>;

/**
 * Counts the calls of a run; undefined if this WebGPU can't be watched. The bind groups of a run are
 * known if they were made during `make`, or in the run.
 */
export async function callsOf(
  run: () => Promise<unknown>,
  groups?: BindGroups,
): Promise<CallsOfRun | undefined> {
  if (typeof GPUDevice === "undefined") return undefined;
  const count = { submissions: 0, dispatches: 0, buffers: 0 };
  const boundBy = new Map<GPUBuffer, number>();
  const passes = new WeakMap<GPUComputePassEncoder, Map<number, GPUBindGroup>>();
  const device = GPUDevice.prototype;
  const queue = GPUQueue.prototype;
  const pass = GPUComputePassEncoder.prototype;
  const { createBuffer } = device;
  const { submit } = queue;
  const { dispatchWorkgroups, dispatchWorkgroupsIndirect, setBindGroup } = pass;
  const dispatched = (one: GPUComputePassEncoder) => {
    count.dispatches++;
    const bound = [...(passes.get(one)?.values() ?? [])];
    for (const buffer of new Set(bound.flatMap((group) => groups?.buffersOf(group) ?? [])))
      boundBy.set(buffer, (boundBy.get(buffer) ?? 0) + 1);
  };
  device.createBuffer = function counted(descriptor) {
    count.buffers++;
    return createBuffer.call(this, descriptor);
  };
  queue.submit = function counted(commands) {
    count.submissions++;
    return submit.call(this, commands);
  };
  pass.dispatchWorkgroups = function counted(...sizes) {
    dispatched(this);
    return dispatchWorkgroups.apply(this, sizes);
  };
  pass.dispatchWorkgroupsIndirect = function counted(...place) {
    dispatched(this);
    return dispatchWorkgroupsIndirect.apply(this, place);
  };
  pass.setBindGroup = function counted(
    this: GPUComputePassEncoder,
    ...given: [index: number, group: GPUBindGroup, offsets?: Iterable<number>]
  ) {
    const bound = passes.get(this) ?? new Map<number, GPUBindGroup>();
    passes.set(this, bound.set(given[0], given[1]));
    return (setBindGroup as (...all: typeof given) => undefined).apply(this, given);
  } as typeof setBindGroup;
  try {
    await run();
  } finally {
    Object.assign(device, { createBuffer });
    Object.assign(queue, { submit });
    Object.assign(pass, { dispatchWorkgroups, dispatchWorkgroupsIndirect, setBindGroup });
  }
  return { ...count, boundBy };
}

/** The buffers of bind groups. */
export interface BindGroups {
  buffersOf(group: GPUBindGroup): readonly GPUBuffer[];
  stop(): void;
}

/** Watches which buffers bind groups have, from now on; undefined where that is impossible. */
export function watchBindGroups(): BindGroups | undefined {
  if (typeof GPUDevice === "undefined" || typeof GPUBuffer === "undefined") return undefined;
  const device = GPUDevice.prototype;
  const { createBindGroup } = device;
  const known = new WeakMap<GPUBindGroup, readonly GPUBuffer[]>();
  device.createBindGroup = function watched(descriptor) {
    const group = createBindGroup.call(this, descriptor);
    const buffers = [...descriptor.entries].flatMap(({ resource }) => {
      if (resource instanceof GPUBuffer) return [resource];
      return "buffer" in resource ? [resource.buffer] : [];
    });
    known.set(group, buffers);
    return group;
  };
  return {
    buffersOf: (group) => known.get(group) ?? [],
    stop: () => {
      device.createBindGroup = createBindGroup;
    },
  };
}
