// Finds a Chromium and its software Vulkan, and says how it is started. It uses Node built-ins
// only.

import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const found = join(root, "node_modules/.cache/fovea/browser.txt");

/**
 * Flags for every start. Without the last three a closed network makes Chromium retry its own
 * connections.
 */
const COMMON = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Chromium's flags for its software adapter (SwiftShader), and for whatever GPU there is. */
export const BROWSER_ARGS = {
  software: [...COMMON, "--use-webgpu-adapter=swiftshader"],
  hardware: [
    ...COMMON,
    "--ignore-gpu-blocklist",
    ...(process.platform === "linux" ? ["--use-angle=vulkan"] : []),
  ],
};

/** Names on the PATH, and places where installers put Chrome, Chromium and Edge. */
const NAMES = [
  "google-chrome-stable",
  "google-chrome",
  "chromium",
  "chromium-browser",
  "microsoft-edge",
];
const PLACES = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
  ...["PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"].flatMap((variable) => {
    const base = process.env[variable];
    const programs = [
      "Google/Chrome/Application/chrome.exe",
      "Microsoft/Edge/Application/msedge.exe",
    ];
    return base ? programs.map((program) => join(base, program)) : [];
  }),
];

/**
 * The browser to use: FOVEA_BROWSER, Playwright's own, or an installed Chrome, Chromium or Edge.
 * @returns {Promise<string | undefined>}
 */
export async function findBrowser() {
  const named = process.env.FOVEA_BROWSER;
  if (named) {
    if (existsSync(named)) return named;
    throw new Error(`FOVEA_BROWSER names ${named}, and there is no such file.`);
  }
  const own = await import("playwright")
    .then(({ chromium }) => chromium.executablePath())
    .catch(() => "");
  if (existsSync(own)) return own;
  const onPath = (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((folder) => NAMES.map((name) => join(folder, name)));
  return [...onPath, ...PLACES].find((path) => existsSync(path));
}

/** Keeps the answer of findBrowser for the programs that need it. @param {string} path */
export function rememberBrowser(path) {
  mkdirSync(dirname(found), { recursive: true });
  writeFileSync(found, path);
}

/** The browser that set-up found. @returns {string} */
export function browserPath() {
  const path = process.env.FOVEA_BROWSER ?? (existsSync(found) ? readFileSync(found, "utf8") : "");
  if (!existsSync(path))
    throw new Error("No browser has been set up. Run `node scripts/setup.mjs`.");
  return path;
}

/**
 * Returns the environment in which Dawn finds the SwiftShader that comes with Chromium, and its
 * Vulkan loader. It is empty if the browser brings none (macOS, Windows): Dawn then uses the
 * system's driver.
 * @returns {Record<string, string>}
 */
export function softwareVulkan() {
  const places = [
    dirname(realpathSync(browserPath())),
    "/usr/lib/chromium",
    "/usr/lib/chromium-browser",
  ];
  const folder = places.find((place) => existsSync(join(place, "vk_swiftshader_icd.json")));
  if (!folder) return {};
  return {
    VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"),
    LD_LIBRARY_PATH: [process.env.LD_LIBRARY_PATH, folder].filter(Boolean).join(delimiter),
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir(), // or Chromium's loader complains
  };
}
