// `npm run fuzz`: random attention problems, each compared with the float64 reference, in Chromium or in Node on Dawn.

import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { openPage } from "../../bench/browser.ts";
import { progress } from "../../bench/console.ts";
import { openDawn } from "../../bench/dawn.ts";
import type { Report } from "../../bench/program.ts";
import { type Context, describe, parse, positive, writeJson } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import type { Case } from "../support/cases.ts";
import { featureSets, problemsOf } from "./problems.ts";
import { drawn, type Try } from "./shrink.ts";
import { type Outcome, Trials } from "./trials.ts";

/** Feature sets of a run. */
const POOL = 80;

const HELP = `
npm run fuzz -- [--cases N] [--seed S] [--suite forward] [--runtime chromium|dawn] [--json FILE]
npm run fuzz -- --repro 'CASE'

Random attention problems over every shape, mask, bias and option, each compared with the float64 reference.

  --cases N        problems (200)
  --seed S         a whole number below 2^31; the same seed draws the same problems (random)
  --suite NAME     forward, the only one
  --runtime NAME   chromium (default), or dawn: Node with npm webgpu
  --json FILE      the result as JSON
  --repro 'CASE'   runs one problem, as a failure printed it
  --help           this text

Kernels take seconds to compile on software adapters, and depend on head dims, the variant and the set of features only.
So a run draws a pool of ${POOL} feature sets from its seed, and for every problem one of them; sizes, lengths, strides and
values are drawn freely. Another seed is another pool. A failure is shrunk, sizes first and then features, and printed
as the command that runs it again. Skipped are problems that are beyond the device's limits.
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

/** Failures of a run that are shrunk, and how often each is tried for that. */
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
  if (values.suite !== "forward") {
    throw new FoveaError("argument", `there is no suite ${values.suite}; there is forward.`);
  }
  const wanted = positive("--cases", values.cases);
  const seed = values.seed === undefined ? randomInt(2 ** 31) : seedOf(values.seed);
  const repro = values.repro === undefined ? undefined : caseOf(values.repro);
  const runtime = await open(values.runtime, server);
  const { report, stop } = progress();
  try {
    console.log(describe(runtime));
    const started = performance.now();
    const { attempt } = runtime;
    const cases = repro ? 1 : wanted;
    const counts = repro ? await again(attempt, repro) : await fuzz(attempt, { cases, seed }, report);
    stop();
    const seconds = Math.round((performance.now() - started) / 100) / 10;
    if (values.json) writeJson(values.json, root, runtime, { suite: values.suite, seed, cases, ...counts, seconds });
    console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
    return counts.failed ? 1 : 0;
  } finally {
    stop();
    await runtime.close();
  }
}

export interface Counts extends Record<Outcome["result"], number> {
  readonly failures: { readonly case: Case; readonly message: string }[];
}

/** Draws problems and tries them, one after the other. Prints failures as they are found. */
export async function fuzz(
  attempt: Try,
  { cases, seed }: { cases: number; seed: number },
  report: Report,
): Promise<Counts> {
  console.log(`seed ${seed}\n`);
  const counts: Counts = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const pool = featureSets(seed, POOL);
  let told = performance.now();
  report({ steps: cases });
  for (let index = 0; index < cases; index++) {
    const own = (seed + Math.imul(index + 1, 0x9e3779b1)) | 0; // far from the seeds of neighbours
    const set = pool[(own >>> 8) % POOL];
    const { outcome, failure } = await drawn(problemsOf(set), own, attempt, counts.failed < SHRUNK ? EFFORT : 0);
    counts[outcome.result]++;
    if (failure) {
      counts.failures.push(failure);
      console.log(failureText(failure));
    }
    report({ done: 1 });
    if (performance.now() - told < EVERY) continue;
    told = performance.now();
    report({ step: `${index + 1} of ${cases} cases, ${outcome.compiled} kernels compiled` });
  }
  return counts;
}

/** One problem once more. */
async function again(attempt: Try, problem: Case): Promise<Counts> {
  const { result, message } = await attempt(problem);
  if (message) console.log(`${result}: ${message}`);
  const failures = result === "failed" ? [{ case: problem, message }] : [];
  return { ...{ passed: 0, failed: 0, skipped: 0 }, [result]: 1, failures };
}

const failureText = ({ case: problem, message }: Counts["failures"][number]) =>
  `failed: ${message}\n  npm run fuzz -- --repro '${JSON.stringify(problem)}'`;

/** Where problems are tried. */
async function open(runtime: string, server: Context["server"]) {
  if (runtime === "chromium") {
    const page = await openPage(server, () => {}, "test/fuzz/page/index.html");
    return { ...page, attempt: (problem: Case) => page.call<Outcome>("try", problem) };
  }
  if (runtime !== "dawn") throw new FoveaError("argument", `--runtime must be chromium or dawn, got ${runtime}.`);
  const { device, ...dawn } = await openDawn();
  const trials = new Trials(async () => device);
  return {
    ...dawn,
    attempt: (problem: Case) => trials.try(problem),
    close: async () => device.destroy(),
  };
}

function seedOf(text: string): number {
  const seed = Number(text);
  if (text.trim() && Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31) return seed;
  throw new FoveaError("argument", `--seed must be a whole number from 0 up to 2147483647, got ${text}.`);
}

function caseOf(text: string): Case {
  let problem: unknown;
  try {
    problem = JSON.parse(text);
  } catch (cause) {
    throw new FoveaError("argument", `--repro must be a case as JSON: ${(cause as Error).message}.`, { cause });
  }
  const sizes = problem as Partial<Case> | null;
  for (const name of ["M", "N", "D"] as const) {
    if (Number.isInteger(sizes?.[name])) continue;
    throw new FoveaError("argument", `--repro: the case needs whole numbers M, N and D; ${name} is ${sizes?.[name]}.`);
  }
  return problem as Case;
}
