// The device, pipelines and clocks: what is asked for, what is compiled once, and how late errors
// arrive.

import { describe, expect, it, vi } from "vitest";
import { compileKernel } from "../../src/gpu/pipelines.ts";
import { createGpuTimer, requestFoveaDevice, tensor } from "../../src/index.ts";
import { link } from "../../src/shader/link.ts";
import type { KernelSource } from "../../src/types.ts";
import {
  failOnGpuErrors,
  gpu,
  newDevice,
  overridden,
  plainDevice,
  testDevice,
} from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

describe("requestFoveaDevice", () => {
  it("asks for the adapter's highest useful limits and features", async () => {
    const adapter = (await (await gpu).requestAdapter()) as GPUAdapter;
    const device = await newDevice();
    for (const limit of [
      "maxComputeWorkgroupStorageSize",
      "maxStorageBufferBindingSize",
      "maxBufferSize",
    ] as const) {
      expect(device.limits[limit]).toBe(adapter.limits[limit]);
    }
    for (const feature of ["shader-f16", "subgroups", "timestamp-query"]) {
      expect(device.features.has(feature)).toBe(adapter.features.has(feature));
    }
    expect(device.label).toBe("fovea");
    device.destroy();
  });
  it("says when WebGPU, an adapter, a feature or a limit is not to be had", async () => {
    const fake = (adapter: Partial<GPUAdapter> | null) =>
      ({ requestAdapter: async () => adapter }) as unknown as GPU;
    vi.stubGlobal("navigator", {});
    await expectError(() => requestFoveaDevice(), "device", /WebGPU is not available here/);
    vi.unstubAllGlobals();
    await expectError(() => requestFoveaDevice({ gpu: fake(null) }), "device", /no adapter here/);
    const entry = await gpu;
    await expectError(
      () =>
        requestFoveaDevice({ gpu: entry, requiredFeatures: ["no-such-feature" as GPUFeatureName] }),
      "device",
      "requestFoveaDevice: the adapter has no no-such-feature.",
    );
    await expectError(
      () => requestFoveaDevice({ gpu: entry, requiredLimits: { maxBufferSize: 2 ** 50 } }),
      "device",
      /the adapter gave no device: /,
    );
  });
});

/** A kernel that writes its number of invocations so far. */
const kernel = (text: string): KernelSource => {
  const { code, locate } = link("package::k", { "package::k": { name: "your kernel", text } });
  return { label: "k", code, locate, bindings: [{ binding: 0, name: "out", type: "storage" }] };
};
const GOOD =
  "@group(0) @binding(0) var<storage, read_write> out: array<u32>;\n@compute @workgroup_size(1)\nfn main() {\n  out[0] += 1u;\n}";

describe("compileKernel", () => {
  it("compiles a text once, also when asked twice at the same time", async () => {
    const device = await testDevice();
    let compilations = 0;
    const counting = overridden(device, {
      createComputePipelineAsync: (descriptor: GPUComputePipelineDescriptor) => {
        compilations++;
        return device.createComputePipelineAsync(descriptor);
      },
    });
    const [a, b] = await Promise.all([
      compileKernel(counting, kernel(GOOD)),
      compileKernel(counting, kernel(GOOD)),
    ]);
    const c = await compileKernel(counting, kernel(GOOD));
    expect(a.pipeline).toBe(b.pipeline);
    expect(a.pipeline).toBe(c.pipeline);
    expect(compilations).toBe(1);
    await compileKernel(counting, kernel(`${GOOD}\nconst OTHER = 1u;`));
    expect(compilations).toBe(2);
  });
  it("reports a compiler's message with the file and line it is about, and tries again when asked again", async () => {
    const device = await testDevice();
    const bad = kernel(GOOD.replace("1u", "1.5"));
    for (let attempt = 0; attempt < 2; attempt++) {
      await expectError(
        () => compileKernel(device, bad),
        "shader",
        /^k does not compile:\nyour kernel:4:10: no matching overload/,
      );
    }
  });
  it("leaves columns out where the expander moved them", async () => {
    const device = await testDevice();
    const loop = "  // unroll\n  for (var i = 0u; i < 2u; i++) {\n    out[i] += 1.5;\n  }";
    const bad = kernel(GOOD.replace("  out[0] += 1u;", loop));
    await expectError(
      () => compileKernel(device, bad),
      "shader",
      /^k does not compile:\nyour kernel:6: no matching/,
    );
  });
  it("reports a pipeline that does not fit its bindings", async () => {
    const device = await testDevice();
    const unbound = { ...kernel(`${GOOD} // again`), bindings: [] };
    await expectError(
      () => compileKernel(device, unbound),
      "shader",
      /^k does not compile:\n.*binding/s,
    );
  });
});

describe("late errors", () => {
  it("of an allocation reject `allocated` and every call that needs the memory", async () => {
    // No test should really exhaust a GPU: the device reports that it is out of memory.
    const real = await testDevice();
    const scopes: GPUErrorFilter[] = [];
    const device = overridden(real, {
      pushErrorScope: (filter: GPUErrorFilter) => {
        scopes.push(filter);
        real.pushErrorScope(filter);
      },
      popErrorScope: async () => {
        const popped = real.popErrorScope();
        const filter = scopes.pop();
        await popped;
        return filter === "out-of-memory" ? new GPUOutOfMemoryError("no memory left") : null;
      },
    });
    const t = tensor(device, [4], { label: "big" });
    await expectError(() => t.allocated, "out-of-memory", "big: no memory left");
    await expectError(() => t.read(), "out-of-memory", "big: no memory left");
    t.destroy();
  });
  it("of a submission are the GPU's words", async () => {
    const device = await testDevice();
    const buffer = device.createBuffer({ size: 16, usage: 128 | 4 });
    const t = tensor(device, [4], { buffer, label: "t" });
    buffer.destroy();
    await expectError(() => t.read(), "validation", /^t\.read: .*destroyed/s);
  });
});

describe.each(["timestamp-query", "wall-clock"] as const)("a %s timer", (source) => {
  it("measures more for more work", async () => {
    const requiredFeatures: GPUFeatureName[] =
      source === "timestamp-query" ? ["timestamp-query"] : [];
    const device = await plainDevice({ requiredFeatures });
    const loop = GOOD.replace(
      "  out[0] += 1u;",
      "  for (var i = 0u; i < 20000u; i++) { out[0] += i * out[1]; }",
    );
    const { pipeline, layout } = await compileKernel(device, kernel(loop));
    const out = tensor(device, [4], { dtype: "u32", data: [0, 1, 0, 0] });
    const group = device.createBindGroup({
      layout,
      entries: [{ binding: 0, resource: { buffer: out.buffer } }],
    });
    const timer = createGpuTimer(device);
    expect(timer.source).toBe(source);
    const run = (count: number) =>
      timer.time((pass) => {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        for (let i = 0; i < count; i++) pass.dispatchWorkgroups(1);
      });
    await run(1);
    const few = Math.min(await run(2), await run(2), await run(2));
    const many = Math.min(await run(100), await run(100));
    expect(many).toBeGreaterThan(4 * few);
    timer.destroy();
    device.destroy();
  });
});
