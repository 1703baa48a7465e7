// A device that counts what is made on it.

import { overridden } from "./overridden.ts";

/**
 * Returns the device, and counts of what is alive: of the buffers that it made, and of all objects
 * that have to be destroyed.
 */
export function counted(real: GPUDevice) {
  const alive = new Map<GPUBuffer, number>();
  const others = new Set<GPUTexture | GPUQuerySet>();
  const counting = <Made extends GPUTexture | GPUQuerySet>(made: Made): Made => {
    const destroy = made.destroy.bind(made) as () => undefined;
    made.destroy = (): undefined => {
      others.delete(made);
      return destroy();
    };
    others.add(made);
    return made;
  };
  const count = { pipelines: 0, modules: 0, bindGroups: 0, submits: 0, buffersMade: 0 };
  const bytes = () => [...alive.values()].reduce((total, size) => total + size, 0);
  let largest = 0;
  const queue = new Proxy(real.queue, {
    get(target, name) {
      if (name === "submit") count.submits++;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const device = overridden(real, {
    queue,
    createBuffer(descriptor: GPUBufferDescriptor) {
      const buffer = real.createBuffer(descriptor);
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => {
        alive.delete(buffer);
        return destroy();
      };
      alive.set(buffer, descriptor.size);
      count.buffersMade++;
      largest = Math.max(largest, bytes());
      return buffer;
    },
    createTexture: (descriptor: GPUTextureDescriptor) => counting(real.createTexture(descriptor)),
    createQuerySet: (descriptor: GPUQuerySetDescriptor) =>
      counting(real.createQuerySet(descriptor)),
    createComputePipelineAsync(descriptor: GPUComputePipelineDescriptor) {
      count.pipelines++;
      return real.createComputePipelineAsync(descriptor);
    },
    createShaderModule(descriptor: GPUShaderModuleDescriptor) {
      count.modules++;
      return real.createShaderModule(descriptor);
    },
    createBindGroup(descriptor: GPUBindGroupDescriptor) {
      count.bindGroups++;
      return real.createBindGroup(descriptor);
    },
  });
  const buffers = () => alive.size;
  return {
    device,
    count,
    buffers,
    objects: () => alive.size + others.size,
    bytes,
    peakBytes: () => largest,
  };
}
