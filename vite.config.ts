import { readFileSync } from "node:fs";
import { playwright } from "@vitest/browser-playwright";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { BROWSER_ARGS, browserPath, softwareVulkan } from "./scripts/browser.mjs";

/**
 * Tests by the end of their name: `.gpu.test.ts` needs a GPU device and runs in Chromium, some of it also in Node on
 * Dawn; `.dawn.test.ts` runs on Dawn only; the rest runs in Node.
 */
function testProjects() {
  const common = { testTimeout: 120_000, hookTimeout: 120_000, maxWorkers: 2 };
  return [
    {
      extends: true as const,
      test: {
        ...common,
        name: "node",
        include: ["test/**/*.test.ts"],
        exclude: ["test/**/*.{gpu,dawn}.test.ts"],
        // Its package.json sends Node to a file that Node can't read.
        server: { deps: { inline: ["wgsl_reflect"] } },
      },
    },
    {
      extends: true as const,
      test: {
        ...common,
        name: "dawn",
        include: [
          "test/gpu/*.gpu.test.ts",
          "test/api/{errors,resources}.gpu.test.ts",
          "test/kernels/ladder.gpu.test.ts",
          "test/**/*.dawn.test.ts",
        ],
        env: softwareVulkan(),
        fileParallelism: false,
      },
    },
    {
      extends: true as const,
      test: {
        ...common,
        name: "chromium",
        include: ["test/**/*.gpu.test.ts"],
        // Software adapters compile for seconds on one core; two pages keep two busy, once the others are done.
        fileParallelism: true,
        sequence: { groupOrder: 1 },
        browser: {
          enabled: true,
          headless: true,
          screenshotFailures: false,
          provider: playwright({ launchOptions: { executablePath: browserPath(), args: BROWSER_ARGS.software } }),
          instances: [{ browser: "chromium" as const }],
        },
      },
    },
  ];
}

/** Leaves comments out of the shaders of a build, all but the linker's own. Lines stay, so errors still name them. */
const bareShaders: Plugin = {
  name: "bare-shaders",
  apply: "build",
  enforce: "pre",
  load(id) {
    if (!id.endsWith(".wesl?raw")) return null;
    const lines = readFileSync(id.slice(0, -"?raw".length), "utf8").split("\n");
    const bare = lines.map((line) => (/^\s*\/\/ unroll$/.test(line) ? line : line.replace(/\s*\/\/.*$/, "")));
    return `export default ${JSON.stringify(bare.join("\n"))};`;
  },
};

export default defineConfig(() => ({
  plugins: [bareShaders],
  build: {
    target: "es2022",
    sourcemap: true,
    lib: {
      entry: { index: "src/index.ts", reference: "src/reference/index.ts" },
      formats: ["es" as const],
    },
  },
  test: process.env.VITEST ? { projects: testProjects() } : {},
}));
