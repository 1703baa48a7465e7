// A device in Node, by Dawn (npm webgpu): on a GPU if there is one, otherwise on the browser's
// software Vulkan.

import { spawnSync } from "node:child_process";
import { softwareVulkan } from "../scripts/browser.mjs";
import { requestFoveaDevice } from "../src/index.ts";
import { type Adapter, describeAdapter } from "./program.ts";

export async function openDawn(): Promise<{ device: GPUDevice; adapter: Adapter; engine: string }> {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create(["enable-dawn-features=allow_unsafe_apis"]);
  const device = await requestFoveaDevice({ gpu }).catch((error: unknown) => {
    if (process.env.FOVEA_SOFTWARE_VULKAN) throw error;
    return undefined;
  });
  // A driver has to be in the environment when a process starts, so the software driver takes
  // another process.
  if (!device) return again({ ...softwareVulkan(), FOVEA_SOFTWARE_VULKAN: "1" });
  return {
    device,
    adapter: describeAdapter(device),
    engine: `Dawn in Node ${process.versions.node}`,
  };
}

/** Runs this very command again, with more in its environment, and ends with it. */
function again(environment: Record<string, string>): never {
  const { status } = spawnSync(process.execPath, process.argv.slice(1), {
    env: { ...process.env, ...environment },
    stdio: "inherit",
  });
  process.exit(status ?? 1);
}
