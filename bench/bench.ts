// `npm run bench`: suites of implementations, checked and then timed in turns, in Chromium or in Node on Dawn.

import { parseArgs } from "node:util";
import Table from "cli-table3";
import { FoveaError } from "../src/errors.ts";
import { openPage } from "./browser.ts";
import { progress } from "./console.ts";
import { openDawn } from "./dawn.ts";
import { bytes, digits } from "./format.ts";
import type { Measurement } from "./harness.ts";
import { LIBRARIES } from "./peers/contest.ts";
import { type Report, runSuites, type SuiteOptions } from "./program.ts";
import { type Context, describe, parse, positive, writeJson } from "./start.ts";
import { SUITES } from "./suites.ts";

const HELP = `
npm run bench -- [--suite NAME] [--peers NAMES] [--runtime chromium|dawn] [--rounds N] [--json FILE]

  --suite NAME     ${Object.keys(SUITES).join(", ")}; may be repeated; all where left out
  --peers NAMES    libraries beside ours, with commas between: ${LIBRARIES.join(", ")}; "none"; all where left out
  --runtime NAME   chromium (default), or dawn: Node with npm webgpu
  --rounds N       timed rounds; in each, every implementation of a case has its turn (7)
  --json FILE      results as JSON
  --help           this text
`;

const OPTIONS = {
  suite: { type: "string", multiple: true },
  peers: { type: "string" },
  runtime: { type: "string", default: "chromium" },
  rounds: { type: "string", default: "7" },
  json: { type: "string" },
  help: { type: "boolean" },
} as const;

export async function main({ server, root, args }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const suites = values.suite ?? Object.keys(SUITES);
  for (const suite of suites) {
    if (Object.hasOwn(SUITES, suite)) continue;
    throw new FoveaError("argument", `there is no suite ${suite}; there are ${Object.keys(SUITES).join(", ")}.`);
  }
  const rounds = positive("--rounds", values.rounds);
  const peers = peersOf(values.peers);
  const { report, stop } = progress();
  const runtime = await open(values.runtime, server, report);
  try {
    console.log(`${describe(runtime)}\n`);
    const measurements = await runtime.suites({ suites, rounds, peers });
    stop();
    print(measurements);
    const rows = measurements.map(({ dims: _dims, verdict: _verdict, timing: _timing, ...row }) => row);
    if (values.json) writeJson(values.json, root, runtime, { rows });
    return measurements.every(({ correct, impl }) => correct || LIBRARIES.includes(impl)) ? 0 : 1;
  } finally {
    stop();
    await runtime.close();
  }
}

function peersOf(given: string | undefined): readonly string[] {
  const peers = given === undefined ? LIBRARIES : given.split(",").filter((name) => name && name !== "none");
  for (const peer of peers) {
    if (LIBRARIES.includes(peer)) continue;
    throw new FoveaError("argument", `there is no library ${peer}; there are ${LIBRARIES.join(", ")}, and none.`);
  }
  return peers;
}

/** Where the suites run. */
async function open(runtime: string, server: Context["server"], report: Report) {
  if (runtime === "chromium") {
    const page = await openPage(server, report);
    return { ...page, suites: (options: SuiteOptions) => page.call<Measurement[]>("suites", options) };
  }
  if (runtime !== "dawn") throw new FoveaError("argument", `--runtime must be chromium or dawn, got ${runtime}.`);
  const { device, ...dawn } = await openDawn();
  return {
    ...dawn,
    suites: (options: SuiteOptions) => runSuites(device, options, report),
    close: async () => device.destroy(),
  };
}

/** Libraries don't tell how much they take. */
const scratch = ({ workspaceBytes }: Measurement) => (Number.isNaN(workspaceBytes) ? "" : bytes(workspaceBytes));

function print(measurements: readonly Measurement[]): void {
  const table = new Table({
    head: [
      "suite",
      "case",
      "implementation",
      "min",
      "median",
      "p90",
      "vs first",
      "GFLOP/s",
      "GB/s",
      "of copy",
      "max error",
      "scratch",
    ],
    style: { head: [], border: [] },
    colAligns: [
      "left",
      "left",
      "left",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
    ],
  });
  for (const row of measurements) {
    const first = measurements.find((other) => other.case === row.case && other.suite === row.suite) ?? row;
    const error = `${row.maxError.toExponential(1)}${row.correct ? "" : " WRONG"}`;
    const times = [row.ms.min, row.ms.median, row.ms.p90].map(digits);
    const ratio = `${digits(first.ms.median / row.ms.median)}x`;
    const rates = [row.gflops, row.gbps].map(digits);
    const ofCopy = row.ofCopy === undefined ? "" : `${Math.round(100 * row.ofCopy)} %`;
    table.push([row.suite, row.case, row.impl, ...times, ratio, ...rates, ofCopy, error, scratch(row)]);
  }
  console.log(table.toString());
  console.log(
    `Milliseconds, by ${measurements[0]?.timing}; rounds are interleaved. Ratios hold within a case of one run.`,
  );
}
