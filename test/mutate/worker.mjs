// Runs test files of a copy of the project as often as it is told, with one vitest that stays:
// `node worker.mjs ROOT`, with messages over the channel to its parent. It is a separate process,
// because a fault may make a test hang.

import { realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { createVitest } from "vitest/node";
import { softwareVulkan } from "../../scripts/browser.mjs";

const TIMEOUT = 120_000;

/**
 * What is to be run: test files in Node, with Dawn for those that need a GPU, and test files in
 * Chromium. `changed` are paths of files whose text is another than before.
 * @typedef {{ node: readonly string[], browser: readonly string[] }} Tests
 * @typedef {Tests & { filter?: string | undefined, changed: readonly string[] }} Order
 * @typedef {{ passed: string[], failed: { name: string, message: string }[], broken: string[] }}
 *   Result
 */

const root = realpathSync(process.argv[2]);
process.chdir(root);
process.env.VITEST = "true";

/** @type {Map<boolean, ReturnType<typeof createVitest>>} */
const kept = new Map();

/** The vitest of a kind of test, made once. @param {boolean} inBrowser */
function vitestOf(inBrowser) {
  let vitest = kept.get(inBrowser);
  if (!vitest) {
    vitest = inBrowser ? browserVitest() : nodeVitest();
    kept.set(inBrowser, vitest);
  }
  return vitest;
}

/** @satisfies {import("vitest/node").CliOptions} */
const quiet = {
  watch: false,
  bail: 1,
  reporters: [{}],
  cache: /** @type {const} */ (false),
  maxWorkers: 1,
  passWithNoTests: true,
};

const nodeVitest = () =>
  createVitest(
    "test",
    {
      ...quiet,
      root,
      config: false,
      include: ["test/**/*.test.ts"],
      env: vulkan(),
      testTimeout: TIMEOUT,
      hookTimeout: TIMEOUT,
      pool: "forks",
      server: { deps: { inline: ["wgsl_reflect"] } },
    },
    { cacheDir: join(root, ".vite"), logLevel: "silent" },
  );

const browserVitest = () =>
  createVitest(
    "test",
    { ...quiet, root, config: join(root, "vite.config.ts"), project: ["chromium"] },
    {
      cacheDir: join(root, ".vite-browser"),
      logLevel: "silent",
      server: { fs: { strict: false } },
    },
  );

/**
 * Returns the environment of Dawn. Without a browser there is no SwiftShader, and tests without a
 * GPU run all the same.
 */
function vulkan() {
  try {
    return softwareVulkan();
  } catch {
    return {};
  }
}

/** @param {Order} order @returns {Promise<Result>} */
async function run({ node, browser, filter, changed }) {
  /** @type {Result} */
  const result = { passed: [], failed: [], broken: [] };
  for (const inBrowser of [false, true]) {
    const files = inBrowser ? browser : node;
    const existing = kept.get(inBrowser);
    if (existing) for (const file of changed) (await existing).invalidateFile(resolve(root, file));
    if (files.length && !result.failed.length)
      await runIn(await vitestOf(inBrowser), files, filter, result);
  }
  return result;
}

/**
 * @param {Awaited<ReturnType<typeof createVitest>>} vitest
 * @param {readonly string[]} files
 * @param {string | undefined} filter
 * @param {Result} result
 */
async function runIn(vitest, files, filter, result) {
  if (filter) vitest.setGlobalTestNamePattern(filter);
  else vitest.resetGlobalTestNamePattern();
  // Otherwise vitest would count what failed before, and stop at once.
  vitest.state.filesMap.clear();
  vitest.state.idMap.clear();
  const paths = files.map((file) => resolve(root, file));
  const specifications = (await vitest.globTestSpecifications(paths)).filter(({ moduleId }) =>
    paths.includes(moduleId),
  );
  const { testModules, unhandledErrors } = await vitest.runTestSpecifications(specifications);
  for (const file of testModules) {
    for (const error of file.errors())
      result.broken.push(`${file.relativeModuleId}: ${error.message}`);
    for (const test of file.children.allTests()) {
      const { state, errors } = test.result();
      const name = test.fullName;
      if (state === "passed") result.passed.push(name);
      if (state === "failed") result.failed.push({ name, message: errors?.[0]?.message ?? "" });
    }
    for (const suite of file.children.allSuites()) {
      for (const error of suite.errors())
        result.failed.push({ name: suite.fullName, message: error.message });
    }
  }
  for (const error of unhandledErrors) {
    result.failed.push({
      name: "an error that no test caught",
      message: String(/** @type {Error} */ (error)?.message),
    });
  }
}

process.on("message", async (/** @type {Order} */ order) => {
  try {
    process.send?.({ result: await run(order) });
  } catch (error) {
    process.send?.({ error: String(/** @type {Error} */ (error)?.stack ?? error) });
  }
});
process.on("disconnect", () => process.exit());
await vitestOf(false); // it takes longer than most tests
process.send?.({ ready: true });
