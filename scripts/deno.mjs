// Finds Deno and Mesa's software Vulkan driver (lavapipe): another WebGPU than Chromium's, with
// shader-f16. It uses Node built-ins only.

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const DRIVERS = "/usr/share/vulkan/icd.d";

/** The driver's description, or nothing if it is not installed. @returns {string | undefined} */
export function lavapipe() {
  if (process.platform !== "linux" || !existsSync(DRIVERS)) return undefined;
  const file = readdirSync(DRIVERS).find((name) => name.startsWith("lvp_icd"));
  return file && join(DRIVERS, file);
}

/** The program that npm installed. */
export const denoProgram = () =>
  join(root, "node_modules/.bin", process.platform === "win32" ? "deno.cmd" : "deno");
