// Runs the suite of this folder in Deno on lavapipe, which executes shader-f16, and by naga's
// reading of WGSL beside Tint's.

import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "vite";
import { expect, it } from "vitest";
import { denoProgram, lavapipe } from "../../scripts/deno.mjs";
import type { Line } from "./suite.ts";

const root = join(import.meta.dirname, "../..");
const driver = lavapipe();

it("runs in Deno on lavapipe, with shader-f16", async (context) => {
  if (!driver) context.skip("no lavapipe: install mesa-vulkan-drivers and libvulkan1");
  const outDir = join(root, "node_modules/.cache/fovea/portability");
  const entry = join(root, "test/portability/suite.ts");
  await build({
    root,
    logLevel: "warn",
    build: {
      outDir,
      emptyOutDir: true,
      sourcemap: false,
      lib: { entry, formats: ["es"], fileName: "suite" },
    },
  });
  const { stdout, stderr } = await promisify(execFile)(
    denoProgram(),
    ["run", "--unstable-webgpu", "-A", join(outDir, "suite.js")],
    { timeout: 280_000, env: { ...process.env, VK_ICD_FILENAMES: driver, NO_COLOR: "1" } },
  );
  const lines = stdout
    .trim()
    .split("\n")
    .filter(Boolean)
    .map((line): Line => JSON.parse(line));
  const [device, ...results] = lines;
  expect(device && "features" in device && device.features, stderr).toContain("shader-f16");
  expect(results.filter((line) => "error" in line)).toEqual([]);
  expect(results).toHaveLength(47);
}, 300_000); // lavapipe compiles for half a minute, on a core that the tests share
