// Buffers, and the errors that WebGPU reports late. Usage flags are numbers here: their names are
// globals of the browser that Node does not have.

import { check, FoveaError, type FoveaErrorCode, show } from "../errors.ts";

export const USAGE = {
  MAP_READ: 1,
  COPY_SRC: 4,
  COPY_DST: 8,
  UNIFORM: 64,
  STORAGE: 128,
  QUERY_RESOLVE: 512,
} as const;

/** What callers who requested their device themselves can do about its limits. */
export const ASK_FOR_LIMITS =
  "To have the adapter's highest, request the device with deviceDescriptor(adapter).";

/** What Fovea knows of a device beyond what WebGPU tells synchronously. */
interface DeviceState {
  lost: GPUDeviceLostInfo | undefined;
  /**
   * Called when the device is lost, by those who still wait for something. A promise would keep
   * everyone who ever waited.
   */
  readonly waiting: Set<() => void>;
  /**
   * Values that are made once for the device, by name. They are dropped when the device is lost.
   */
  readonly kept: Map<string, unknown>;
}
const states = new WeakMap<GPUDevice, DeviceState>();

/** Starts to watch a device the first time that it is seen. */
function stateOf(device: GPUDevice): DeviceState {
  let state = states.get(device);
  if (!state) {
    // The callback that waits for the loss must not hold the device, or it would never be
    // collected.
    const created: DeviceState = { lost: undefined, waiting: new Set(), kept: new Map() };
    void device.lost.then((info) => {
      created.lost = info;
      created.kept.clear();
      for (const tell of created.waiting) tell();
    });
    states.set(device, created);
    state = created;
  }
  return state;
}

/** The value that is kept for a device under a name; the first call makes it. */
export function keptFor<T>(device: GPUDevice, name: string, make: () => T): T {
  const { kept } = stateOf(device);
  if (!kept.has(name)) kept.set(name, make());
  return kept.get(name) as T;
}

/** Drops all values that are kept for a device. */
export const dropKept = (device: GPUDevice): void => stateOf(device).kept.clear();

/** Throws FoveaError if this isn't a device. */
export function checkIsDevice(device: GPUDevice): void {
  let isDevice: boolean;
  try {
    isDevice =
      typeof device?.createBuffer === "function" && typeof device.lost?.then === "function";
  } catch {
    isDevice = false; // a proxy whose traps throw
  }
  check(
    isDevice,
    "device",
    () =>
      `expected a GPUDevice, got ${show(device)}. requestFoveaDevice() gives one; it is asynchronous, so await it.`,
  );
}

/** Throws FoveaError if this isn't a device, or is known to be lost. */
export function checkDevice(device: GPUDevice): void {
  checkIsDevice(device);
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
 * Runs `work` inside error scopes and gives its result and a promise that rejects with a FoveaError
 * if the GPU reports an error or is lost. Only synchronous work is covered: scopes of a device are
 * a stack. Nobody has to wait for the promise.
 */
export function guarded<T>(
  device: GPUDevice,
  what: string,
  work: () => T,
): { value: T; done: Promise<void> } {
  checkDevice(device);
  for (const filter of SCOPES) device.pushErrorScope(filter);
  let done: Promise<void>;
  let value: T;
  try {
    value = work();
  } finally {
    done = firstError(device, what, SCOPES.map(() => device.popErrorScope()).reverse());
    done.catch(() => {});
  }
  return { value, done };
}

async function firstError(
  device: GPUDevice,
  what: string,
  pending: Promise<GPUError | null>[],
): Promise<void> {
  const results = await Promise.allSettled(pending);
  if (results.some(({ status }) => status === "rejected")) await toldOfLoss(device);
  checkDevice(device);
  for (const [scope, result] of results.entries()) {
    const cause = result.status === "fulfilled" ? result.value : result.reason;
    if (!cause) continue;
    const code = SCOPES[scope] === "out-of-memory" ? "out-of-memory" : "validation";
    throw new FoveaError(code, `${what}: ${cause.message}`, { cause });
  }
}

/**
 * A lost device rejects the promises of its work before it settles `lost`. Waiting here gives
 * `lost` a turn, so that the error can name the loss.
 */
export async function toldOfLoss(device: GPUDevice): Promise<void> {
  const { lost, waiting } = stateOf(device);
  if (lost) return;
  let tell = () => {};
  const told = new Promise<void>((resolve) => {
    tell = resolve;
  });
  waiting.add(tell);
  const clock = setTimeout(tell, 50);
  await told;
  clearTimeout(clock);
  waiting.delete(tell);
}

/** Errors that explain others: a lost device, and memory that was refused. */
const CAUSES: readonly FoveaErrorCode[] = ["device-lost", "out-of-memory"];

/**
 * Waits for all of the promises. Rejects, if any did, with the error that explains the others, or
 * with the first.
 */
export async function settle(promises: Iterable<Promise<unknown> | undefined>): Promise<void> {
  const outcomes = await Promise.allSettled(promises);
  const failures = outcomes.flatMap((outcome) =>
    outcome.status === "rejected" ? [outcome.reason] : [],
  );
  if (!failures.length) return;
  const [cause] = CAUSES.flatMap((code) => failures.filter((failure) => failure?.code === code));
  throw cause ?? failures[0];
}

/**
 * Throws FoveaError("limit") for more bytes than a buffer of the device can have; call it before
 * anything is allocated.
 */
export function checkBufferSize(device: GPUDevice, label: string, size: number): void {
  const { maxBufferSize } = device.limits;
  check(
    size <= maxBufferSize,
    "limit",
    () =>
      `${label}: ${size} bytes are more than this device's maxBufferSize of ${maxBufferSize}. ${ASK_FOR_LIMITS}`,
  );
}

/** The uniforms of a plan: a buffer that holds `chunks`, one after the other. */
export function paramsBuffer(
  device: GPUDevice,
  label: string,
  chunks: readonly ArrayBufferView<ArrayBuffer>[] | readonly ArrayBuffer[],
) {
  const size = chunks.reduce((total, { byteLength }) => total + byteLength, 0);
  checkBufferSize(device, label, size);
  return guarded(device, label, () => {
    const usage = USAGE.UNIFORM | USAGE.STORAGE | USAGE.COPY_DST;
    const buffer = device.createBuffer({ label: `${label} params`, size, usage });
    let at = 0;
    for (const bytes of chunks) {
      device.queue.writeBuffer(buffer, at, bytes);
      at += bytes.byteLength;
    }
    return buffer;
  });
}

/**
 * Copies `size` bytes of `source` from `offset` on (both multiples of 4), as they are now, to a
 * buffer that can be mapped.
 */
export function copyOut(
  device: GPUDevice,
  source: GPUBuffer,
  offset: number,
  size: number,
  what: string,
) {
  return guarded(device, what, () => {
    const buffer = device.createBuffer({
      label: `${what} staging`,
      size,
      usage: USAGE.MAP_READ | USAGE.COPY_DST,
    });
    const encoder = device.createCommandEncoder({ label: what });
    encoder.copyBufferToBuffer(source, offset, buffer, 0, size);
    device.queue.submit([encoder.finish()]);
    return buffer;
  });
}
