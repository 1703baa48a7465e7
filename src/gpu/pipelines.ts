// Compute pipelines: compiled off the main thread, once per device and text, with errors that point into the sources.

import { check, FoveaError } from "../errors.ts";
import type { Binding, KernelSource } from "../types.ts";
import { checkDevice } from "./buffers.ts";

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Pipelines of a device by text, and by bindings: a layout may name bindings that the text leaves unused. */
const caches = new WeakMap<GPUDevice, Map<string, Map<string, Promise<CompiledKernel>>>>();

/** Compiles a kernel, or gives the pipeline of the same text and bindings. A failed compilation is not kept. */
export function compileKernel(device: GPUDevice, source: KernelSource): Promise<CompiledKernel> {
  const byText = entry(caches, device, () => new Map());
  const byBindings = entry(byText, source.code, () => new Map());
  return entry(byBindings, bindingsText(source.bindings), (key) => {
    const compiled = compile(device, source);
    compiled.catch(() => byBindings.delete(key));
    return compiled;
  });
}

const bindingsText = (bindings: readonly Binding[]) =>
  bindings.map(({ binding, type, dynamic }) => `${binding} ${type}${dynamic ? " dynamic" : ""}`).join();

/** Throws FoveaError("limit") if a kernel binds more buffers than the device lets it. */
export function checkBindings(device: GPUDevice, label: string, bindings: readonly Binding[]): void {
  const kinds = [
    ["storage", "maxStorageBuffersPerShaderStage", bindings.filter(({ type }) => type !== "uniform")],
    ["uniform", "maxUniformBuffersPerShaderStage", bindings.filter(({ type }) => type === "uniform")],
  ] as const;
  for (const [kind, limit, bound] of kinds) {
    check(
      bound.length <= device.limits[limit],
      "limit",
      () =>
        `${label}: this combination of options binds ${bound.length} ${kind} buffers (${bound.map(({ name }) => name).join(", ")}); the device allows ${device.limits[limit]} (${limit}). ${kind === "storage" ? "Use a device from requestFoveaDevice, which asks for the adapter's highest limit." : "Every captured number is one; capture several as a tensor."}`,
    );
  }
}

/** The value of a key, made if it is not there. */
function entry<K, V>(
  map: { get(key: K): V | undefined; set(key: K, value: V): unknown },
  key: K,
  make: (key: K) => V,
): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make(key);
    map.set(key, value);
  }
  return value;
}

async function compile(device: GPUDevice, { label, code, locate, bindings }: KernelSource): Promise<CompiledKernel> {
  checkDevice(device);
  // The scope is for the layouts and the module; createComputePipelineAsync reports through its promise.
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const layout = device.createBindGroupLayout({
    label,
    entries: bindings.map(({ binding, type, dynamic = binding === 0 }) => ({
      binding,
      visibility: 4, // GPUShaderStage.COMPUTE
      // One uniform buffer holds the params of every dispatch of a plan; the offset says which.
      buffer: { type, hasDynamicOffset: type === "uniform" && dynamic },
    })),
  });
  const pipeline = device.createComputePipelineAsync({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  const scope = device.popErrorScope();
  const [compiled, invalid] = await Promise.allSettled([pipeline, scope]);
  if (compiled.status === "fulfilled") return { pipeline: compiled.value, layout };

  checkDevice(device);
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter((message) => message.type === "error");
  // Copies of an unrolled line fail alike, and are reported once.
  const details = errors.map(({ lineNum, linePos, message }) => {
    const { module: file, line, rewritten } = locate(lineNum);
    return `${file}:${line}${rewritten ? "" : `:${linePos}`}: ${message}`;
  });
  if (!details.length && invalid.status === "fulfilled" && invalid.value) details.push(invalid.value.message);
  if (!details.length) details.push(String(compiled.reason?.message ?? compiled.reason));
  throw new FoveaError("shader", `${label} does not compile:\n${[...new Set(details)].join("\n")}`, {
    cause: compiled.reason,
  });
}
