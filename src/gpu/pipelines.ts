// Compute pipelines: compiled off the main thread, once per device and text, with errors that point
// into the sources.

import { check, FoveaError } from "../errors.ts";
import { Recent } from "../recent.ts";
import type { Binding, KernelSource } from "../types.ts";
import { ASK_FOR_LIMITS, checkDevice, keptFor } from "./buffers.ts";

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/**
 * For so many texts, those that were used last, a device keeps the pipelines. A plan holds its own
 * pipelines as long as it lives.
 */
const KEPT = 256;

/**
 * The pipelines of one text by their bindings: a layout may name bindings that the text leaves
 * unused.
 */
type Pipelines = Map<string, Promise<CompiledKernel>>;

/**
 * Compiles a kernel, or gives the pipeline of the same text and bindings. A failed compilation is
 * not kept.
 */
export function compileKernel(device: GPUDevice, source: KernelSource): Promise<CompiledKernel> {
  const texts = keptFor(device, "pipelines", () => new Recent<Pipelines>(KEPT));
  const pipelines = texts.get(source.code, () => new Map());
  const key = bindingsText(source.bindings);
  let compiled = pipelines.get(key);
  if (!compiled) {
    compiled = compile(device, source);
    compiled.catch(() => pipelines.delete(key));
    pipelines.set(key, compiled);
  }
  return compiled;
}

const bindingsText = (bindings: readonly Binding[]) =>
  bindings
    .map(({ binding, type, dynamic }) => `${binding} ${type}${dynamic ? " dynamic" : ""}`)
    .join();

/** Throws FoveaError("limit") if a kernel binds more buffers than the device lets it. */
export function checkBindings(
  device: GPUDevice,
  label: string,
  bindings: readonly Binding[],
): void {
  const kinds = [
    [
      "storage",
      "maxStorageBuffersPerShaderStage",
      bindings.filter(({ type }) => type !== "uniform"),
    ],
    [
      "uniform",
      "maxUniformBuffersPerShaderStage",
      bindings.filter(({ type }) => type === "uniform"),
    ],
  ] as const;
  for (const [kind, limit, bound] of kinds) {
    check(
      bound.length <= device.limits[limit],
      "limit",
      () =>
        `${label}: this combination of options binds ${bound.length} ${kind} buffers (${bound.map(({ name }) => name).join(", ")}); the device allows ${device.limits[limit]} (${limit}). ${kind === "storage" ? `Leave an option out. ${ASK_FOR_LIMITS}` : "Every captured number is one; capture several as a tensor."}`,
    );
  }
}

async function compile(device: GPUDevice, source: KernelSource): Promise<CompiledKernel> {
  const { label, code, bindings } = source;
  checkDevice(device);
  // The error scope covers the layouts and the module; createComputePipelineAsync reports through
  // its promise.
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
  const [compiled] = await Promise.allSettled([pipeline, scope]);
  if (compiled.status === "fulfilled") return { pipeline: compiled.value, layout };

  const { compileErrors } = await import("./compile_errors.ts");
  const errors = await compileErrors(source, module, compiled.reason, scope);
  checkDevice(device); // the compiler has nothing to say for a lost one
  throw new FoveaError("shader", `${label} does not compile:\n${errors.join("\n")}`, {
    cause: compiled.reason,
  });
}
