import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { BROWSER_ARGS, browserPath, softwareVulkan } from "./scripts/browser.mjs";

/** Tests: `*.gpu.test.ts` need a GPU device and run in Chromium and, where marked, in Node on Dawn; the rest in Node. */
function testProjects() {
  const common = { testTimeout: 120_000, hookTimeout: 120_000 };
  return [
    {
      extends: true as const,
      test: {
        ...common,
        name: "node",
        include: ["test/**/*.test.ts"],
        exclude: ["test/**/*.gpu.test.ts"],
        // Its package.json sends Node to a file that Node can't read.
        server: { deps: { inline: ["wgsl_reflect"] } },
      },
    },
    {
      extends: true as const,
      test: {
        ...common,
        name: "dawn",
        include: ["test/gpu/*.gpu.test.ts", "test/api/*.gpu.test.ts"],
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
        fileParallelism: false,
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

export default defineConfig(() => ({
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
