// Set-up, run by npm before `npm start` and `npm test`: the packages of the lockfile, and a browser
// with WebGPU; with --tests, also the driver that some tests run on; with --firefox, that driver
// and Firefox. It uses Node built-ins only, since nothing else may be there yet. A second run
// checks two files and is done.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findBrowser, rememberBrowser } from "./browser.mjs";
import { lavapipe } from "./deno.mjs";
import { findFirefox } from "./firefox.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, "node_modules/.cache/fovea/lockfile.sha256");

/**
 * Runs a command and shows what it prints. @param {string} command @param {string[]} args @returns
 * {boolean}
 */
function run(command, args) {
  console.log(`setup: ${[command, ...args].join(" ")}`);
  return (
    spawnSync(command, args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" })
      .status === 0
  );
}

/** Installs the packages if the lockfile is not the one that was installed last. */
function installPackages() {
  const hash = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === hash) return;
  if (!run("npm", ["ci", "--no-audit", "--no-fund"])) {
    throw new Error(
      "`npm ci` failed: see above. It needs the npm registry, and Node 20.19 or later.",
    );
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, hash);
}

/** Installs a browser, by Playwright's download or else by apt. */
async function installBrowser() {
  const playwright = join(root, "node_modules/playwright/cli.js");
  if (run(process.execPath, [playwright, "install", "chromium"])) {
    // needs root; without it they are often there
    run(process.execPath, [playwright, "install-deps", "chromium"]);
  } else {
    installByApt("chromium");
  }
  return findBrowser();
}

/**
 * Installs Debian's packages if that can be done, and otherwise nothing.
 * @param {...string} packages
 */
function installByApt(...packages) {
  if (process.platform !== "linux" || process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get"))
    return;
  run("apt-get", ["update", "-q"]);
  run("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...packages]);
}

/**
 * Tests of shader-f16 run on Mesa's software driver. Without it they are skipped, and say so.
 */
function installLavapipe() {
  if (!lavapipe()) installByApt("mesa-vulkan-drivers", "libvulkan1");
}

/** Only `npm run conformance -- --engine firefox` asks for it. */
function installFirefox() {
  if (!findFirefox()) installByApt("firefox-esr");
}

async function main() {
  installPackages();
  if (process.argv.some((word) => word === "--tests" || word === "--firefox")) installLavapipe();
  if (process.argv.includes("--firefox")) installFirefox();
  const browser = (await findBrowser()) ?? (await installBrowser());
  if (!browser) {
    throw new Error(
      "No browser was found, and none could be installed. Install Chrome, Chromium or Edge, or set FOVEA_BROWSER to the program of one.",
    );
  }
  rememberBrowser(browser);
}

await main().catch((/** @type {Error} */ error) => {
  console.error(`setup: ${error.message}`);
  process.exitCode = 1;
});
