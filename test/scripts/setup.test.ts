// Set-up is quick when there is nothing to do, and says so clearly when there is nothing it can do.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";

const script = resolve(import.meta.dirname, "../../scripts/setup.mjs");
const setup = (env: Record<string, string> = {}) =>
  spawnSync(process.execPath, [script], { encoding: "utf8", env: { ...process.env, ...env } });

it("takes less than two seconds and says nothing when all is there", () => {
  // Other tests run beside this one, so the fastest of a few runs counts.
  const times = [1, 2, 3].map(() => {
    const begin = performance.now();
    const { status, stdout, stderr } = setup();
    expect([status, stdout, stderr]).toEqual([0, "", ""]);
    return performance.now() - begin;
  });
  expect(Math.min(...times)).toBeLessThan(2000);
});

it("says so when FOVEA_BROWSER names nothing", () => {
  const { status, stderr } = setup({ FOVEA_BROWSER: "/nowhere/chrome" });
  expect(stderr).toBe("setup: FOVEA_BROWSER names /nowhere/chrome, and there is no such file.\n");
  expect(status).toBe(1);
});

// On macOS and Windows browsers are found where installers put them, whatever the path.
it.skipIf(process.platform !== "linux")(
  "says what to do when no browser is there and none can be had",
  () => {
    // There is no program on the path, no download host, and nothing was downloaded before.
    const folder = mkdtempSync(join(tmpdir(), "fovea-setup-"));
    const { status, stdout, stderr } = setup({
      PATH: folder,
      PLAYWRIGHT_BROWSERS_PATH: folder,
      PLAYWRIGHT_DOWNLOAD_HOST: "http://127.0.0.1:9",
    });
    rmSync(folder, { recursive: true, force: true });
    expect(stdout).toContain("playwright/cli.js install chromium");
    expect(stderr.trim().split("\n").at(-1)).toBe(
      "setup: No browser was found, and none could be installed. Install Chrome, Chromium or Edge, or set FOVEA_BROWSER to the program of one.",
    );
    expect(status).toBe(1);
  },
);
