// Tells whether this machine has what compiles kernels for RDNA2. It uses Node built-ins only.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const RADV = ["/usr/lib/x86_64-linux-gnu/libvulkan_radeon.so", "/usr/lib64/libvulkan_radeon.so"];

/**
 * Says what would have to be installed for an instruction report, if something is missing. @returns
 * {string | undefined}
 */
export function missingCompiler() {
  if (process.platform !== "linux") return "RADV, which compiles for RDNA2, is Linux' own";
  if (!RADV.some((path) => existsSync(path)))
    return "Mesa's RADV is missing (Debian: mesa-vulkan-drivers)";
  if (spawnSync("gcc", ["--version"]).status !== 0)
    return "gcc is missing, which builds bench/isa/driver.c";
  return undefined;
}
