// Compute pipelines: compiled off the main thread, once per device and text, with errors that point into the sources.

import { FoveaError } from "../errors.ts";
import type { KernelSource } from "../types.ts";
import { checkDevice } from "./buffers.ts";

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const caches = new WeakMap<GPUDevice, Map<string, Promise<CompiledKernel>>>();

/** Compiles a kernel, or gives the pipeline of the same text. A failed compilation is not kept. */
export function compileKernel(device: GPUDevice, source: KernelSource): Promise<CompiledKernel> {
  let cache = caches.get(device);
  if (!cache) {
    cache = new Map();
    caches.set(device, cache);
  }
  const known = cache.get(source.code);
  if (known) return known;
  const compiled = compile(device, source);
  cache.set(source.code, compiled);
  compiled.catch(() => cache.delete(source.code));
  return compiled;
}

async function compile(device: GPUDevice, { label, code, locate, bindings }: KernelSource): Promise<CompiledKernel> {
  checkDevice(device);
  // The scope is for the layouts and the module; createComputePipelineAsync reports through its promise.
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const layout = device.createBindGroupLayout({
    label,
    entries: bindings.map(({ binding, type }) => ({
      binding,
      visibility: 4, // GPUShaderStage.COMPUTE
      // One uniform buffer holds the params of every dispatch of a plan; the offset says which.
      buffer: { type, hasDynamicOffset: type === "uniform" },
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
  const details = errors.map((error) => {
    const { module: file, line } = locate(error.lineNum);
    return `${file}:${line}: ${error.message}`;
  });
  if (!details.length && invalid.status === "fulfilled" && invalid.value) details.push(invalid.value.message);
  if (!details.length) details.push(String(compiled.reason?.message ?? compiled.reason));
  throw new FoveaError("shader", `${label} does not compile:\n${details.join("\n")}`, { cause: compiled.reason });
}
