// Compiles kernels in a separate process, whose environment names the driver:
// `node compile.mjs KERNELS.json`, a list of { name, code }. What the driver says about each goes
// to stderr, between the lines that this writes.

import { readFileSync, writeSync } from "node:fs";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

/** @param {string} line */
const say = (line) => writeSync(2, `${line}\n`);

const gpu = create([]);
const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
if (!adapter) throw new Error("the driver has no adapter");
say(`##adapter ${adapter.info.architecture} ${adapter.info.description}`);
const {
  maxComputeWorkgroupStorageSize,
  maxComputeInvocationsPerWorkgroup,
  maxStorageBuffersPerShaderStage,
} = adapter.limits;
const device = await adapter.requestDevice({
  requiredFeatures: /** @type {GPUFeatureName[]} */ (
    ["shader-f16", "subgroups"].filter((name) => adapter.features.has(name))
  ),
  requiredLimits: {
    maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup,
    maxStorageBuffersPerShaderStage,
  },
});
for (const { name, code } of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  say(`##begin ${name}`);
  try {
    const module = device.createShaderModule({ code });
    await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  } catch (error) {
    say(`##error ${/** @type {Error} */ (error).message.replaceAll("\n", " ")}`);
  }
  say(`##end ${name}`);
}
process.exit(0); // Dawn's threads would keep the process alive
