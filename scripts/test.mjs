// `npm test` runs every test of every project, and closes with a line that counts them. A test that
// is skipped is named with its reason, and more or fewer skips than expected are a failure: nothing
// drops out of the suite silently. `npm test -- --quick` runs a small part of them, for people who
// change something; `npm run test:breadth`, or FOVEA_BREADTH in the environment, runs sweeps in
// full.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { lavapipe } from "./deno.mjs";
import { missingCompiler } from "./isa.mjs";
import { skippedWithoutVectors } from "./vectors.mjs";

/**
 * One test of set-up needs a system where every browser is on the path; one needs Mesa's software
 * driver, and one its compiler for AMD's GPUs; some need test vectors that aren't part of the
 * project.
 */
const EXPECTED_SKIPS =
  (process.platform === "linux" ? 0 : 1) +
  (lavapipe() ? 0 : 1) +
  (missingCompiler() ? 1 : 0) +
  skippedWithoutVectors();

/**
 * What `npm test -- --quick` runs, for people who change something: law, linker, reference, and one
 * GPU case of each operation.
 */
const QUICK = [
  "test/law.test.ts",
  "test/plain_literals.test.ts",
  "test/options.test.ts",
  "test/shader",
  "test/reference",
  "test/api/hostile_options.dawn.test.ts",
  "--project",
  "node",
  "--project",
  "dawn",
  "--testNamePattern",
  "^(?!hostile values)",
];

/** Files that are named at the end, because the suite as a whole has to stay short. */
const SLOWEST = 10;

const started = Date.now();
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = mkdtempSync(join(tmpdir(), "fovea-test-"));
const report = join(folder, "report.json");
const vitest = join(root, "node_modules/vitest/vitest.mjs");
const quick = process.argv.includes("--quick");
const breadth = process.argv.includes("--breadth") || Boolean(process.env.FOVEA_BREADTH);
const filters = quick ? QUICK : process.argv.slice(2).filter((given) => given !== "--breadth");
// Some tests are about what gets published; the quick ones are about the types instead.
const build = spawnSync(
  "npm",
  quick ? ["exec", "--", "tsc", "--noEmit"] : ["run", "--silent", "build"],
  {
    cwd: root,
    stdio: "inherit",
    shell: process.platform === "win32",
  },
);
const { status } = spawnSync(
  process.execPath,
  [
    vitest,
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...filters,
  ],
  {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, FOVEA_BREADTH: breadth ? "1" : "" },
  },
);

/** @type {[name: string, seconds: number][]} */
const files = [];
let passed = 0;
let failed = build.status === 0 ? 0 : 1;
let skipped = 0;
try {
  for (const file of JSON.parse(readFileSync(report, "utf8")).testResults) {
    files.push([relative(root, file.name), (file.endTime - file.startTime) / 1000]);
    // the file did not even load
    if (file.status === "failed" && !file.assertionResults.length) failed++;
    for (const { status: result, fullName, meta } of file.assertionResults) {
      if (result === "passed") passed++;
      else if (result === "failed") failed++;
      else if (!quick) {
        skipped++;
        console.log(`skipped: ${fullName}${meta?.reason ? ` (${meta.reason})` : ""}`);
      }
    }
  }
} catch (error) {
  console.error(`test: vitest left no report: ${error}`);
}
rmSync(folder, { recursive: true, force: true });

if (!filters.length && skipped !== EXPECTED_SKIPS) {
  console.error(`test: ${skipped} tests were skipped; ${EXPECTED_SKIPS} are expected to be.`);
  failed++;
}
if (passed + failed === 0 || (status !== 0 && failed === 0)) failed++; // vitest itself failed
console.log("The slowest files, in seconds:");
for (const [name, seconds] of files.sort((a, b) => b[1] - a[1]).slice(0, SLOWEST)) {
  console.log(`${seconds.toFixed(1).padStart(7)} ${name}`);
}
if (!breadth) console.log("Sweeps ran in part; `npm run test:breadth` runs them in full.");
console.log(`npm test took ${((Date.now() - started) / 60_000).toFixed(1)} minutes`);
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed ? 1 : 0;
