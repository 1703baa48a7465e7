// Reports what tests compile. A set-up file of vitest: with FOVEA_COMPILATIONS set, each compiled
// kernel prints a line, and scripts/compilations.mjs adds them up.

import { expect } from "vitest";

const name = "webgpu"; // hidden from the page's bundler
const { GPUDevice: Device } = (
  "GPUDevice" in globalThis ? globalThis : (await import(/* @vite-ignore */ name)).globals
) as { GPUDevice: { prototype: GPUDevice & { reports?: boolean } } };

/** Makes a short name for a text. */
function hash(text: string): string {
  let value = 5381;
  for (let i = 0; i < text.length; i++) value = (value * 33 + text.charCodeAt(i)) % 2 ** 45;
  return value.toString(36);
}

const now = () => performance.timeOrigin + performance.now();

// The files of a page share the class, and each file runs this.
if (!Device.prototype.reports) {
  const { createComputePipelineAsync, createShaderModule } = Device.prototype;
  const texts = new WeakMap<GPUShaderModule, string>();
  Device.prototype.reports = true;
  Device.prototype.createShaderModule = function (descriptor) {
    const module = createShaderModule.call(this, descriptor);
    texts.set(module, descriptor.code);
    return module;
  };
  Device.prototype.createComputePipelineAsync = async function (descriptor) {
    const { testPath, currentTestName } = expect.getState();
    const started = now();
    try {
      return await createComputePipelineAsync.call(this, descriptor);
    } finally {
      const text = texts.get(descriptor.compute.module) ?? "";
      const line = {
        file: testPath,
        test: currentTestName,
        label: descriptor.label,
        text: hash(text),
        size: text.length,
        page: performance.timeOrigin,
        started,
        ended: now(),
      };
      // biome-ignore lint/suspicious/noConsole: what was asked for
      console.info("compilation:", JSON.stringify(line));
    }
  };
}
