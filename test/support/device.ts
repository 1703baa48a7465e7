// A GPU device for tests: the page's in Chromium, Dawn's in Node. Without one tests fail; they
// never pass without having run.

import { afterAll, beforeEach, expect } from "vitest";
import { requestFoveaDevice } from "../../src/index.ts";
import { overridden } from "./overridden.ts";

export { overridden } from "./overridden.ts";

/**
 * The entry to WebGPU of this environment. Kept alive: a collected entry takes its devices with it
 * in Node.
 */
export const gpu: Promise<GPU> = (async () => {
  if (globalThis.navigator?.gpu) return navigator.gpu;
  const name = "webgpu"; // hidden from the page's bundler
  const { create, globals } = await import(/* @vite-ignore */ name);
  Object.assign(globalThis, globals);
  return create(["enable-dawn-features=allow_unsafe_apis"]);
})();

let shared: Promise<GPUDevice> | undefined;
let errors: string[] = [];

/**
 * Returns a device with the adapter's highest limits: the same for all tests of a page, so that
 * pipelines are shared.
 */
export function testDevice(): Promise<GPUDevice> {
  shared ??= newDevice();
  return shared;
}

/**
 * Makes a new device, with the default limits of WebGPU unless others are asked for. The caller
 * destroys it.
 */
export async function plainDevice(descriptor: GPUDeviceDescriptor = {}): Promise<GPUDevice> {
  const adapter = await (await gpu).requestAdapter();
  if (!adapter) throw new Error("there is no WebGPU adapter");
  return watch(await adapter.requestDevice(descriptor));
}

/** Makes another device with the highest limits. The caller destroys it. */
export async function newDevice(): Promise<GPUDevice> {
  return watch(await requestFoveaDevice({ gpu: await gpu }));
}

/** Returns the same device with other limits. */
export function withLimits(
  device: GPUDevice,
  limits: Partial<Record<keyof GPUSupportedLimits, number>>,
): GPUDevice {
  const pretended = new Proxy(device.limits, {
    get: (target, name) =>
      name in limits ? limits[name as keyof GPUSupportedLimits] : Reflect.get(target, name, target),
  });
  return overridden(device, { limits: pretended });
}

function watch(device: GPUDevice): GPUDevice {
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
  return device;
}

/**
 * Makes every GPU error that nothing else caught fail the test in which it happened. Files call it
 * at their top.
 */
export function failOnGpuErrors(): void {
  beforeEach(() => {
    errors = [];
    return async () => {
      const device = await shared;
      await device?.queue.onSubmittedWorkDone();
      expect(errors, "GPU errors that nobody caught").toEqual([]);
    };
  });
  afterAll(async () => {
    expect(errors).toEqual([]);
  });
}
