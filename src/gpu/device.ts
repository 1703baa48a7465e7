// Getting a device that is good for attention.

import { check, FoveaError, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { checkIsDevice, dropKept } from "./buffers.ts";

/**
 * Limits that attention can use: more workgroup memory, larger tensors, more tensors per kernel.
 */
const LIMITS = [
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxBufferSize",
] as const;

/** An experiment of Chromium and Dawn, which WebGPU's types don't have yet. */
export const MATRIX_FEATURE = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

/** Features that kernels or timing use if the device has them. None is needed. */
const FEATURES: readonly GPUFeatureName[] = [
  "shader-f16",
  "subgroups",
  "timestamp-query",
  MATRIX_FEATURE,
];

/** Options of {@link requestFoveaDevice}. */
export interface RequestDeviceOptions {
  /** Which GPU of several. Default `"high-performance"`. */
  readonly powerPreference?: GPUPowerPreference;
  /** Ask for the software adapter, if there is one. Default false. */
  readonly forceFallbackAdapter?: boolean;
  /**
   * The entry to WebGPU. Default `navigator.gpu`; in Node, what `create()` of npm `webgpu` returns.
   */
  readonly gpu?: GPU;
  /** Features to ask for beyond those that Fovea uses; missing ones are an error. */
  readonly requiredFeatures?: readonly GPUFeatureName[];
  /** Limits to ask for beyond those that Fovea uses; unmet ones are an error. */
  readonly requiredLimits?: Readonly<Record<string, number>>;
  /** Label of the device. Default `"fovea"`. */
  readonly label?: string;
}

/** The names of the options. */
const DEVICE_OPTIONS: OptionNames<Omit<RequestDeviceOptions, "gpu">> = {
  powerPreference: "string",
  forceFallbackAdapter: "boolean",
  requiredFeatures: "any",
  requiredLimits: "any",
  label: "string",
};

/**
 * A device does not keep its GPU entry and its adapter alive. In Node on Dawn a collected entry
 * takes the process with it, and so does in Deno 2.9 a look at `adapterInfo` once the adapter was
 * collected.
 */
const origins = new WeakMap<GPUDevice, readonly [GPU, GPUAdapter]>();

const refuse = (message: string, cause?: unknown) => new FoveaError("device", message, { cause });

/**
 * What to request of an adapter for attention: those of its features that Fovea can use, and its
 * highest values of the limits that matter. None of it is needed; with less, some problems are
 * refused, and some kernels are not chosen. It is for callers who request the device without
 * {@link requestFoveaDevice}.
 *
 * Throws FoveaError("device") if the argument isn't an adapter.
 *
 * @example
 * const adapter = await navigator.gpu.requestAdapter();
 * const device = await adapter?.requestDevice({ ...deviceDescriptor(adapter), label: "mine" });
 */
export function deviceDescriptor(adapter: GPUAdapter): {
  requiredFeatures: GPUFeatureName[];
  requiredLimits: Record<string, number>;
} {
  try {
    const requiredLimits = Object.fromEntries(
      LIMITS.map((name) => [name, adapter.limits[name]] as const).filter(
        ([, limit]) => limit !== undefined,
      ),
    );
    return {
      requiredFeatures: FEATURES.filter((name) => adapter.features.has(name)),
      requiredLimits,
    };
  } catch (cause) {
    throw refuse(`deviceDescriptor: expected a GPUAdapter, got ${show(adapter)}.`, cause);
  }
}

/**
 * Requests a GPU device with the adapter's highest useful limits and the features that Fovea can
 * use. It is an ordinary `GPUDevice`; every function of Fovea also takes any other device, whatever
 * its limits and features are. {@link deviceDescriptor} gives what to request for your own device.
 *
 * Rejects with FoveaError("device") if WebGPU or an adapter is missing, or if an option can't be
 * met.
 *
 * @example
 * const device = await requestFoveaDevice();
 */
export async function requestFoveaDevice(given: RequestDeviceOptions = {}): Promise<GPUDevice> {
  const { gpu: entry, ...others } = given ?? {}; // an entry may be any object that has adapters
  // Loaded here, because bundlers else cut the entry of attention into more files than it needs.
  const { readOptions } = await import("../given.ts");
  const options = await readOptions("requestFoveaDevice", others, DEVICE_OPTIONS);
  const gpu = entry ?? (globalThis.navigator as Navigator | undefined)?.gpu;
  if (!gpu) {
    throw refuse(
      "requestFoveaDevice: WebGPU is not available here. Use a browser that has it, on a secure page (https or localhost); in Node pass { gpu: create([]) } from npm `webgpu`.",
    );
  }
  const adapter = await requestAdapter(gpu, options);
  const { requiredFeatures = [], requiredLimits } = options;
  check(
    Array.isArray(requiredFeatures),
    "argument",
    () =>
      `requestFoveaDevice: requiredFeatures must be a list of names, got ${show(requiredFeatures)}.`,
  );
  const missing = requiredFeatures.filter((feature) => !adapter.features.has(feature));
  if (missing.length)
    throw refuse(`requestFoveaDevice: the adapter has no ${missing.map(String).join(", ")}.`);
  const descriptor = deviceDescriptor(adapter);
  try {
    const device = await adapter.requestDevice({
      label: options.label ?? "fovea",
      requiredFeatures: [...new Set([...descriptor.requiredFeatures, ...requiredFeatures])],
      requiredLimits: { ...descriptor.requiredLimits, ...requiredLimits },
    });
    origins.set(device, [gpu, adapter]);
    return device;
  } catch (cause) {
    throw refuse(`requestFoveaDevice: the adapter gave no device: ${cause}`, cause);
  }
}

async function requestAdapter(
  gpu: GPU,
  options: Pick<RequestDeviceOptions, "powerPreference" | "forceFallbackAdapter">,
): Promise<GPUAdapter> {
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({
      powerPreference: options.powerPreference ?? "high-performance",
      forceFallbackAdapter: options.forceFallbackAdapter ?? false,
    });
  } catch (cause) {
    throw refuse(
      `requestFoveaDevice: no adapter can be requested of ${show(gpu)}: ${cause}`,
      cause,
    );
  }
  if (!adapter)
    throw refuse(
      "requestFoveaDevice: WebGPU has no adapter here: no GPU, or its driver is blocked.",
    );
  return adapter;
}

/**
 * Drops what Fovea keeps for a device: its compiled kernels, those of the last 256 texts, and what
 * was found out about it. The device stays as it is, and so do tensors, plans and caches, which are
 * yours to destroy; calls afterwards compile again. What is kept also goes with the device, when it
 * is lost or collected.
 *
 * Throws FoveaError("device") if the argument isn't a device.
 */
export function release(device: GPUDevice): void {
  checkIsDevice(device);
  dropKept(device);
}

/** What the choice of a kernel's tile depends on. */
export const tileLimits = (device: GPUDevice) => ({
  workgroupBytes: device.limits.maxComputeWorkgroupStorageSize,
  software: isSoftware(device),
  subgroups: device.features.has("subgroups"),
});

/**
 * Whether the device runs on the CPU. If the browser does not say, the device is taken for a GPU.
 */
export function isSoftware(device: GPUDevice): boolean {
  return (device.adapterInfo as GPUAdapterInfo | undefined)?.isFallbackAdapter ?? false;
}

/** The adapter of a device in the browser's words: vendor, architecture, and what else it tells. */
export function adapterName(device: GPUDevice): string {
  const info = device.adapterInfo as GPUAdapterInfo | undefined;
  const words = [info?.vendor, info?.architecture, info?.description || info?.device].filter(
    Boolean,
  );
  return words.join(" ") || "unnamed adapter";
}
