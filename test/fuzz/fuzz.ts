// `npm run fuzz`: random problems of a suite, each compared with the float64 reference, in Chromium
// or in Node on Dawn.

import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { openPage } from "../../bench/browser.ts";
import { progress } from "../../bench/console.ts";
import { openDawn } from "../../bench/dawn.ts";
import type { Report } from "../../bench/program.ts";
import { type Context, describe, parse, positive, writeJson } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import { EXTREME_PERCENT } from "./draws.ts";
import { HOSTILE_ROWS } from "./row_problems.ts";
import type { SuiteName } from "./runs.ts";
import { drawn, type Try } from "./shrink.ts";
import { POOL, type Problem, SUITES } from "./suites.ts";
import { type Outcome, Trials } from "./trials.ts";

const NAMES = Object.keys(SUITES) as SuiteName[];

const HELP = `
npm run fuzz -- [--cases N] [--seed S] [--suite NAME] [--runtime chromium|dawn] [--json FILE]
npm run fuzz -- [--suite NAME] --repro 'CASE'

Random problems, each compared with the float64 reference.

  --cases N        problems (200)
  --seed S         a whole number below 2^31; the same seed draws the same problems (random)
${NAMES.map((name) => `  --suite ${name.padEnd(9)}${SUITES[name].about}${name === "forward" ? " (default)" : ""}`).join("\n")}
  --runtime NAME   chromium (default), or dawn: Node with npm webgpu
  --json FILE      the result as JSON
  --repro 'CASE'   runs one problem, as a failure printed it
  --help           this text

Kernels take seconds to compile on software adapters, and depend on head dims, the variant and the set of features only.
So a run draws a pool of feature sets from its seed (of attention ${POOL}), and for every problem one of them; sizes,
lengths, strides and values are drawn freely. Another seed is another pool. A failure is shrunk, sizes first and then
features, and printed as the command that runs it again. Skipped are problems that are beyond the device's limits.

${EXTREME_PERCENT} percent of the problems of attention, linear and multi-head attention have one to three kinds of hostile values, a row in
eight each: NaN in queries, keys or values (right is NaN in exactly the rows that see one); rows of q, k or v times 1e18
(1e9 if q and k both are, 100 with f16) or 1e-20; constant rows; keys that are all alike; finite biases of -1e30; sinks of
50 and -50. Left out are huge rows with dropout or a score function, in linear and multi-head attention, and scores beyond
1e36, for which no bound is known or promised. Rows without them are held to the bound of ordinary problems.
Of the suite rows it is ${HOSTILE_ROWS} percent. A run ends by saying how many cases had which.
`;

const OPTIONS = {
  cases: { type: "string", default: "200" },
  seed: { type: "string" },
  suite: { type: "string", default: "forward" },
  runtime: { type: "string", default: "chromium" },
  json: { type: "string" },
  repro: { type: "string" },
  help: { type: "boolean" },
} as const;

/** How many failures of a run are shrunk, and how often each is tried for that. */
const SHRUNK = 5;
const EFFORT = 100;
/** Milliseconds between two lines that tell of progress. */
const EVERY = 5000;

export async function main({ server, root, args }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const suite = suiteOf(values.suite);
  const wanted = positive("--cases", values.cases);
  const seed = values.seed === undefined ? randomInt(2 ** 31) : seedOf(values.seed);
  const repro = values.repro === undefined ? undefined : caseOf(suite, values.repro);
  const runtime = await open(suite, values.runtime, server);
  const { report, stop } = progress();
  try {
    console.log(describe(runtime));
    const started = performance.now();
    const { attempt } = runtime;
    const cases = repro ? 1 : wanted;
    const counts = repro
      ? await again(attempt, repro)
      : await fuzz(suite, attempt, { cases, seed }, report);
    stop();
    const seconds = Math.round((performance.now() - started) / 100) / 10;
    if (values.json)
      writeJson(values.json, root, runtime, { suite, seed, cases, ...counts, seconds });
    if (!repro) console.log(hostileText(counts.hostile, cases));
    console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
    return counts.failed ? 1 : 0;
  } finally {
    stop();
    await runtime.close();
  }
}

export interface Counts extends Record<Outcome["result"], number> {
  /** How many cases had each kind of hostile values; `any` counts those that had some. */
  readonly hostile: Record<string, number>;
  readonly failures: { readonly case: Problem; readonly message: string }[];
}

/**
 * Draws problems of a suite and tries them, one after the other. Prints failures as they are found.
 */
export async function fuzz(
  suite: SuiteName,
  attempt: Try,
  { cases, seed }: { cases: number; seed: number },
  report: Report,
): Promise<Counts> {
  console.log(`seed ${seed}\n`);
  const counts: Counts = { passed: 0, failed: 0, skipped: 0, hostile: {}, failures: [] };
  const problems = SUITES[suite].problems(seed);
  let told = performance.now();
  report({ steps: cases });
  for (let index = 0; index < cases; index++) {
    const own = (seed + Math.imul(index + 1, 0x9e3779b1)) | 0; // far from the seeds of neighbours
    const effort = counts.failed < SHRUNK ? EFFORT : 0;
    const { problem, outcome, failure } = await drawn(SUITES[suite], problems(own), {
      seed: own,
      attempt,
      effort,
    });
    counts[outcome.result]++;
    countHostile(counts.hostile, problem);
    if (failure) {
      counts.failures.push(failure);
      console.log(failureText(suite, failure));
    }
    report({ done: 1 });
    if (performance.now() - told < EVERY) continue;
    told = performance.now();
    report({ step: `${index + 1} of ${cases} cases, ${outcome.compiled} kernels compiled` });
  }
  return counts;
}

/** Tries one problem once more. */
async function again(attempt: Try, problem: Problem): Promise<Counts> {
  const { result, message } = await attempt(problem);
  if (message) console.log(`${result}: ${message}`);
  const failures = result === "failed" ? [{ case: problem, message }] : [];
  return { passed: 0, failed: 0, skipped: 0, hostile: {}, [result]: 1, failures };
}

const failureText = (suite: SuiteName, { case: problem, message }: Counts["failures"][number]) =>
  `failed: ${message}\n  npm run fuzz -- ${suite === "forward" ? "" : `--suite ${suite} `}--repro '${JSON.stringify(problem)}'`;

function countHostile(hostile: Record<string, number>, problem: Problem): void {
  const { extremes = [] } = problem as { extremes?: readonly string[] };
  for (const kind of extremes.length ? ["any", ...extremes] : [])
    hostile[kind] = (hostile[kind] ?? 0) + 1;
}

function hostileText({ any = 0, ...kinds }: Record<string, number>, cases: number): string {
  const each = Object.entries(kinds).sort(([a], [b]) => a.localeCompare(b));
  return `hostile values in ${any} of ${cases} cases${any ? `: ${each.map(([kind, count]) => `${kind} ${count}`).join(", ")}` : ""}`;
}

/** Opens what problems are tried in: a browser, or Dawn in this process. */
async function open(suite: SuiteName, runtime: string, server: Context["server"]) {
  if (runtime === "chromium") {
    const page = await openPage(server, () => {}, "test/fuzz/page/index.html");
    return { ...page, attempt: (problem: Problem) => page.call<Outcome>("try", suite, problem) };
  }
  if (runtime !== "dawn")
    throw new FoveaError("argument", `--runtime must be chromium or dawn, got ${runtime}.`);
  const { device, ...dawn } = await openDawn();
  const trials = new Trials(async () => device);
  return {
    ...dawn,
    attempt: (problem: Problem) => trials.try(suite, problem),
    close: async () => device.destroy(),
  };
}

function seedOf(text: string): number {
  const seed = Number(text);
  if (text.trim() && Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31) return seed;
  throw new FoveaError(
    "argument",
    `--seed must be a whole number from 0 up to 2147483647, got ${text}.`,
  );
}

function suiteOf(name: string): SuiteName {
  const suite = NAMES.find((known) => known === name);
  if (suite) return suite;
  throw new FoveaError("argument", `there is no suite ${name}; there is ${NAMES.join(", ")}.`);
}

function caseOf(suite: SuiteName, text: string): Problem {
  let problem: unknown;
  try {
    problem = JSON.parse(text);
  } catch (cause) {
    throw new FoveaError(
      "argument",
      `--repro must be a case as JSON: ${(cause as Error).message}.`,
      { cause },
    );
  }
  const { required } = SUITES[suite];
  for (const name of required) {
    const size = (problem as Record<string, unknown> | null)?.[name];
    if (Number.isInteger(size)) continue;
    const names = required.join(", ").replace(/, (?!.*, )/, " and ");
    throw new FoveaError(
      "argument",
      `--repro: the case needs whole numbers ${names}; ${name} is ${size}.`,
    );
  }
  return problem as Problem;
}
