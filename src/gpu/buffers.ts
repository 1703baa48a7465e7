// Buffers, and the errors that WebGPU reports late. Numeric usage flags: the named ones are globals of the browser that
// Node does not have.

import { check, FoveaError } from "../errors.ts";

export const USAGE = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128, QUERY_RESOLVE: 512 } as const;

/** What is known of a device beyond what WebGPU tells synchronously. */
interface DeviceState {
  lost: GPUDeviceLostInfo | undefined;
}
const states = new WeakMap<GPUDevice, DeviceState>();

/** Starts to watch a device the first time that it is seen. */
function stateOf(device: GPUDevice): DeviceState {
  let state = states.get(device);
  if (!state) {
    const created: DeviceState = { lost: undefined };
    void device.lost.then((info) => {
      created.lost = info;
    });
    states.set(device, created);
    state = created;
  }
  return state;
}

/** Throws FoveaError if this is no device, or one that is known to be lost. */
export function checkDevice(device: GPUDevice): void {
  check(
    typeof device?.createBuffer === "function",
    "device",
    () => `expected a GPUDevice, got ${device}. requestFoveaDevice() gives one; it is asynchronous, so await it.`,
  );
  const { lost } = stateOf(device);
  if (lost) throw deviceLost(lost);
}

const deviceLost = (info: GPUDeviceLostInfo) =>
  new FoveaError(
    "device-lost",
    `the GPU device was lost (${info.reason}${info.message ? `: ${info.message}` : ""}). Its tensors and plans are gone: request a new device and build them again.`,
  );

const SCOPES: readonly GPUErrorFilter[] = ["out-of-memory", "validation", "internal"];

/**
 * Runs `work` inside error scopes and gives its result and a promise that rejects with a FoveaError if the GPU reports
 * an error or is lost. Only synchronous work is covered: scopes of a device are a stack.
 */
export function guarded<T>(device: GPUDevice, what: string, work: () => T): { value: T; done: Promise<void> } {
  checkDevice(device);
  for (const filter of SCOPES) device.pushErrorScope(filter);
  let pending: Promise<GPUError | null>[] = [];
  let value: T;
  try {
    value = work();
  } finally {
    pending = SCOPES.map(() => device.popErrorScope()).reverse();
  }
  return { value, done: firstError(device, what, pending) };
}

async function firstError(device: GPUDevice, what: string, pending: Promise<GPUError | null>[]): Promise<void> {
  const results = await Promise.allSettled(pending);
  checkDevice(device);
  for (const [scope, result] of results.entries()) {
    const cause = result.status === "fulfilled" ? result.value : result.reason;
    if (!cause) continue;
    const code = SCOPES[scope] === "out-of-memory" ? "out-of-memory" : "validation";
    throw new FoveaError(code, `${what}: ${cause.message}`, { cause });
  }
}

/** Copies `size` bytes of `source` from `offset` on (both multiples of 4) to the CPU. */
export async function readBuffer(
  device: GPUDevice,
  source: GPUBuffer,
  offset: number,
  size: number,
  label: string,
): Promise<ArrayBuffer> {
  const { value: staging, done } = guarded(device, `${label}.read`, () => {
    const buffer = device.createBuffer({ label: `${label} staging`, size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    const encoder = device.createCommandEncoder({ label: `${label} read` });
    encoder.copyBufferToBuffer(source, offset, buffer, 0, size);
    device.queue.submit([encoder.finish()]);
    return buffer;
  });
  try {
    await done;
    return await mappedBytes(device, staging, `${label}.read`);
  } finally {
    staging.destroy();
  }
}

/** The bytes of a buffer with MAP_READ usage, once the GPU is done with it. */
export async function mappedBytes(device: GPUDevice, buffer: GPUBuffer, what: string): Promise<ArrayBuffer> {
  await buffer.mapAsync(1 /* GPUMapMode.READ */).catch(async (cause: unknown) => {
    // A lost device rejects the mapping before it settles `lost`; give that a turn, for the better message.
    await Promise.race([device.lost, new Promise((resolve) => setTimeout(resolve, 50))]);
    checkDevice(device);
    throw new FoveaError("validation", `${what}: the result could not be mapped (${cause})`, { cause });
  });
  const bytes = buffer.getMappedRange().slice(0);
  buffer.unmap();
  return bytes;
}
