// The README's programs, run as they stand: in Node on Dawn, with a navigator that has WebGPU.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { failOnGpuErrors, gpu, overridden } from "../support/device.ts";
import { programs } from "../support/docs.ts";

failOnGpuErrors();

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "fovea-readme-"));

/** An entry that gives one device to all programs that ask for the same, since they have kernels in common. */
function sharing(entry: GPU): GPU {
  const devices = new Map<string, Promise<GPUDevice>>();
  return overridden(entry, {
    async requestAdapter(options: GPURequestAdapterOptions) {
      const adapter = await entry.requestAdapter(options);
      if (!adapter) return null;
      return overridden(adapter, {
        requestDevice(descriptor: GPUDeviceDescriptor) {
          const asked = JSON.stringify([options, descriptor]);
          const device = devices.get(asked) ?? adapter.requestDevice(descriptor);
          devices.set(asked, device);
          return device;
        },
      });
    },
  });
}

beforeAll(async () => vi.stubGlobal("navigator", { gpu: sharing(await gpu) }));
afterAll(() => {
  vi.unstubAllGlobals();
  rmSync(folder, { recursive: true, force: true });
});

describe("README.md", () => {
  const texts = programs(readFileSync(join(root, "README.md"), "utf8"));

  it("has programs", () => {
    expect(texts.length).toBeGreaterThanOrEqual(3);
  });
  it.each(texts.map((text, index) => ({ text, name: `program ${index + 1}` })))(
    "$name runs",
    async ({ text, name }) => {
      const webgpu = pathToFileURL(createRequire(import.meta.url).resolve("webgpu")).href;
      const file = join(folder, `${name.replace(" ", "-")}.ts`);
      const places = {
        fovea: join(root, "src/index.ts"),
        "fovea/onnx": join(root, "src/interop/onnx/index.ts"),
        webgpu,
      };
      const placed = Object.entries(places).reduce(
        (all, [from, to]) => all.replaceAll(`"${from}"`, JSON.stringify(to)),
        text,
      );
      writeFileSync(file, placed);
      const printed: unknown[] = [];
      const log = vi.spyOn(console, "log").mockImplementation((...values) => printed.push(values.at(-1)));
      await import(/* @vite-ignore */ file);
      log.mockRestore();
      if (!text.includes("console.log")) return;
      expect(printed).toHaveLength(1);
      expect(printed[0]).toBeInstanceOf(Float32Array);
      expect((printed[0] as Float32Array).every((value) => value > 0 && value < 1)).toBe(true);
    },
  );
});
