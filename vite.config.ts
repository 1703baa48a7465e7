import { readFileSync } from "node:fs";
import { PlaywrightBrowserProvider, playwright } from "@vitest/browser-playwright";
import type { Browser } from "playwright";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestProject, type TestSpecification } from "vitest/node";
import { BROWSER_ARGS, browserPath, softwareVulkan } from "./scripts/browser.mjs";

/**
 * A Chromium of its own for each page, since nearly all the time of the tests goes into compiling:
 * SwiftShader compiles one kernel at a time in a process, and all pages of a Chromium share its GPU
 * process.
 */
class ChromiumPerPage extends PlaywrightBrowserProvider {
  readonly #launched: Browser[] = [];

  override async openPage(
    ...[session, url, options]: Parameters<PlaywrightBrowserProvider["openPage"]>
  ) {
    const { chromium } = await import("playwright");
    // Only here: builds and servers read this file, too, where there may be no browser.
    const launched = await chromium.launch({
      executablePath: browserPath(),
      args: BROWSER_ARGS.software,
    });
    this.#launched.push(launched);
    this.contexts.set(session, await launched.newContext());
    await super.openPage(session, url, options);
  }

  override async close() {
    await super.close();
    await Promise.all(this.#launched.map((launched) => launched.close()));
  }
}

/**
 * The files that take longest, the longest first: whoever changes them may leave the list as it
 * is. A fresh clone has no times of runs before, and vitest then takes a long text for a long run.
 */
const LONGEST = [
  "test/api/hostile_options.dawn.test.ts",
  "test/docs/pages.dawn.test.ts",
  "test/package/wgsl.dawn.test.ts",
  "test/bench/programs.test.ts",
  "test/demo/demo.test.ts",
  "test/demo/systems.test.ts",
  "test/demo/models.test.ts",
  "test/portability/deno.test.ts",
  "test/attention/forward.gpu.test.ts",
  "test/shader/wesl.gpu.test.ts",
  "test/attention/decode.gpu.test.ts",
  "test/attention/extremes.gpu.test.ts",
  "test/attention/features_values.gpu.test.ts",
  "test/attention/weights_values.gpu.test.ts",
  "test/attention/additive.gpu.test.ts",
  "test/attention/forward_rows.gpu.test.ts",
];

/** Starts the longest files first, so that two workers end at about the same time. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]) {
    const place = ({ moduleId }: TestSpecification) => {
      const found = LONGEST.findIndex((name) => moduleId.endsWith(name));
      return found < 0 ? LONGEST.length : found;
    };
    const group = ({ project }: TestSpecification) => project.config.sequence.groupOrder;
    const sorted = await super.sort(files);
    return sorted.sort((a, b) => group(a) - group(b) || place(a) - place(b));
  }
}

/**
 * What lets the C library of Linux keep memory that it is likely to need again: compilers ask for
 * much of it and give it back, kernel by kernel. A seventh of their processor time.
 */
const KEPT_MEMORY = {
  MALLOC_ARENA_MAX: "1",
  MALLOC_MMAP_THRESHOLD_: "1000000000",
  MALLOC_TOP_PAD_: "268435456",
  MALLOC_TRIM_THRESHOLD_: "4000000000",
};

/**
 * Tests by the end of their name: `.gpu.test.ts` needs a GPU device and runs in Chromium, some of
 * it also in Node on Dawn; `.dawn.test.ts` runs on Dawn only; the rest runs in Node.
 */
function testProjects() {
  const reports = process.env.FOVEA_COMPILATIONS ? ["test/support/compilations.ts"] : [];
  const common = {
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    setupFiles: reports,
    provide: { breadth: Boolean(process.env.FOVEA_BREADTH) },
  };
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
          "test/api/errors.gpu.test.ts",
          "test/**/*.dawn.test.ts",
        ],
        setupFiles: ["test/support/patience.mjs", ...reports],
        env: { ...softwareVulkan(), ...KEPT_MEMORY },
      },
    },
    {
      extends: true as const,
      test: {
        ...common,
        name: "chromium",
        include: ["test/**/*.gpu.test.ts"],
        // Two pages keep two cores busy, once the others are done.
        fileParallelism: true,
        // The files of a page share their modules, and with them the device and its pipelines.
        isolate: false,
        sequence: { groupOrder: 1 },
        browser: {
          enabled: true,
          headless: true,
          screenshotFailures: false,
          provider: {
            ...playwright(),
            providerFactory: (project: TestProject) => new ChromiumPerPage(project, {}),
          },
          instances: [{ browser: "chromium" as const }],
        },
      },
    },
  ];
}

/**
 * Leaves comments and indents out of the shaders of a build, all but the linker's own. Lines stay,
 * so errors still name them.
 */
const bareShaders: Plugin = {
  name: "bare-shaders",
  apply: "build",
  enforce: "pre",
  load(id) {
    if (!id.endsWith(".wesl?raw")) return null;
    const lines = readFileSync(id.slice(0, -"?raw".length), "utf8").split("\n");
    const bare = lines.map((line) =>
      (/^\s*\/\/ unroll$/.test(line) ? line : line.replace(/\s*\/\/.*$/, "")).trim(),
    );
    return `export default ${JSON.stringify(bare.join("\n"))};`;
  },
};

export default defineConfig(() => ({
  plugins: [bareShaders],
  build: {
    target: "es2022",
    sourcemap: true,
    lib: {
      entry: {
        index: "src/index.ts",
        reference: "src/reference/index.ts",
        onnx: "src/interop/onnx/index.ts",
        training: "src/training/index.ts",
        models: "src/models/index.ts",
      },
      formats: ["es" as const],
    },
    // A file for each module, so that an application's bundler sees what to leave out and what to
    // load later.
    rolldownOptions: { output: { preserveModules: true, preserveModulesRoot: "src" } },
  },
  test: process.env.VITEST
    ? { projects: testProjects(), sequence: { sequencer: LongestFirst } }
    : {},
}));
