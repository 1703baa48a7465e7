// `npm run bench`: suites of implementations, checked and then timed in turns, in Chromium or in
// Node on Dawn.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { FoveaError } from "../src/errors.ts";
import { openPage } from "./browser.ts";
import { progress } from "./console.ts";
import { openDawn } from "./dawn.ts";
import { bytes, digits } from "./format.ts";
import type { Measurement, RatioRow } from "./harness.ts";
import { LIBRARIES, libraryOf } from "./peers/contest.ts";
import { type Adapter, type Report, runSuites, type SuiteOptions } from "./program.ts";
import { writeDocuments } from "./readme.ts";
import { type Context, describe, parse, positive, writeJson } from "./start.ts";
import { startUp } from "./start_up.ts";
import { SUITES } from "./suites.ts";
import type { ResultFile, ResultRow } from "./tables.ts";

/** The suite `start` doesn't run in the bench's page: it opens one page after the other. */
const NAMES = [...Object.keys(SUITES), "start"];

const HELP = `
npm run bench -- [--suite NAME] [--case TEXT] [--peers NAMES] [--runtime chromium|dawn] [--rounds N] [--json FILE] [--update FILE]
npm run bench -- --readme

  --suite NAME     ${NAMES.join(", ")}; may be repeated; all where left out
  --case TEXT      only the cases whose name has this text; not with --update
  --peers NAMES    libraries beside ours, with commas between: ${LIBRARIES.join(", ")}; "none"; all where left out
  --runtime NAME   chromium (default), or dawn: Node with npm webgpu
  --rounds N       timed rounds; in each, every implementation of a case has its turn (7)
  --json FILE      results as JSON
  --update FILE    a result file of this adapter, in which these suites take the place of what it has of them
  --readme         only writes the tables and plots of the READMEs, from bench/results
  --help           this text
`;

const OPTIONS = {
  suite: { type: "string", multiple: true },
  case: { type: "string" },
  peers: { type: "string" },
  runtime: { type: "string", default: "chromium" },
  rounds: { type: "string", default: "7" },
  json: { type: "string" },
  update: { type: "string" },
  readme: { type: "boolean" },
  help: { type: "boolean" },
} as const;

export async function main(context: Context): Promise<number> {
  const { root, args } = context;
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  if (values.readme) {
    const changed = writeDocuments(root);
    console.log(
      changed.length
        ? `Written: ${changed.join(", ")}`
        : "The READMEs hold what is in bench/results.",
    );
    return 0;
  }
  const suites =
    values.suite ?? NAMES.filter((name) => name !== "start" || values.runtime === "chromium");
  for (const suite of suites) {
    if (NAMES.includes(suite)) continue;
    throw new FoveaError("argument", `there is no suite ${suite}; there are ${NAMES.join(", ")}.`);
  }
  if (suites.includes("start") && values.runtime !== "chromium") {
    throw new FoveaError(
      "argument",
      "the suite start is of pages; take --runtime chromium for it.",
    );
  }
  if (values.case && values.update) {
    throw new FoveaError(
      "argument",
      "--update takes whole suites; keep some cases with --json instead.",
    );
  }
  const rounds = positive("--rounds", values.rounds);
  const peers = peersOf(values.peers);
  const { report, stop } = progress();
  const missing: string[] = [];
  const runtime = await open(values.runtime, context, (event) => {
    if (event.missing) missing.push(event.missing);
    report(event);
  });
  try {
    console.log(`${describe(runtime)}\n`);
    const measurements = await runtime.suites({ suites, rounds, peers, of: values.case ?? "" });
    stop();
    print(measurements);
    for (const text of missing) console.log(text);
    const rows = measurements.map(
      ({ dims: _dims, verdict: _verdict, timing: _timing, ...row }) => row,
    );
    if (values.json) writeJson(values.json, root, runtime, { rows });
    if (values.update)
      writeJson(values.update, root, runtime, {
        rows: updated(values.update, runtime.adapter, rows),
      });
    return measurements.every(({ correct, impl }) => correct || libraryOf(impl)) ? 0 : 1;
  } finally {
    stop();
    await runtime.close();
  }
}

/**
 * Replaces the rows of the suites that ran in a result file. The other rows then say when they were
 * measured.
 */
export function updated(
  path: string,
  { description }: Pick<Adapter, "description">,
  rows: readonly ResultRow[],
): ResultRow[] {
  const { adapter, commit, rows: before } = JSON.parse(readFileSync(path, "utf8")) as ResultFile;
  if (adapter.description !== description) {
    throw new FoveaError(
      "file",
      `${path} is of ${adapter.description}; this is ${description}. Write another file.`,
    );
  }
  const ran = new Set(rows.map(({ suite }) => suite));
  const kept = before
    .filter(({ suite }) => !ran.has(suite))
    .map((row) => ({ ...row, commit: row.commit ?? commit }));
  const order = [...new Set([...NAMES, ...kept.map(({ suite }) => suite)])];
  return [...kept, ...rows].sort((a, b) => order.indexOf(a.suite) - order.indexOf(b.suite));
}

function peersOf(given: string | undefined): readonly string[] {
  const peers =
    given === undefined ? LIBRARIES : given.split(",").filter((name) => name && name !== "none");
  for (const peer of peers) {
    if (LIBRARIES.includes(peer)) continue;
    throw new FoveaError(
      "argument",
      `there is no library ${peer}; there are ${LIBRARIES.join(", ")}, and none.`,
    );
  }
  return peers;
}

/** Opens what the suites run in: a browser, or Dawn in this process. */
async function open(runtime: string, context: Context, report: Report) {
  if (runtime === "chromium") {
    const page = await openPage(context.server, report);
    return {
      ...page,
      async suites({ suites, ...options }: SuiteOptions) {
        const inPage = suites.filter((suite) => suite !== "start");
        const measured = inPage.length
          ? await page.call<Measurement[]>("suites", { suites: inPage, ...options })
          : [];
        if (inPage.length === suites.length) return measured;
        return [...measured, ...(await startUp(context, page.args, options.rounds, report))];
      },
    };
  }
  if (runtime !== "dawn")
    throw new FoveaError("argument", `--runtime must be chromium or dawn, got ${runtime}.`);
  const { device, ...dawn } = await openDawn();
  return {
    ...dawn,
    suites: (options: SuiteOptions) => runSuites(device, options, report),
    close: async () => device.destroy(),
  };
}

/** Libraries don't tell how much memory they take; NaN is null once it went through JSON. */
const scratch = ({ workspaceBytes }: Measurement) =>
  Number.isFinite(workspaceBytes) ? bytes(workspaceBytes) : "";

/** A count, which may be a mean of several. */
const countText = (count: number | undefined) =>
  count === undefined ? "" : `${Math.round(10 * count) / 10}`;

/** The columns of the table; a column that is empty in all rows is left out. */
const COLUMNS: readonly [
  head: string,
  cell: (row: Measurement, all: readonly Measurement[]) => string,
][] = [
  ["suite", ({ suite }) => suite],
  ["case", (row) => row.case],
  ["implementation", ({ impl }) => impl],
  ["min", ({ ms }) => digits(ms.min)],
  ["median", ({ ms }) => digits(ms.median)],
  ["p90", ({ ms }) => digits(ms.p90)],
  ["vs first", (row, all) => `${digits(firstOf(row, all).ms.median / row.ms.median)}x`],
  ["GFLOP/s", ({ gflops }) => digits(gflops)],
  ["GB/s", ({ gbps }) => digits(gbps)],
  ["of copy", ({ ofCopy }) => (ofCopy === undefined ? "" : `${Math.round(100 * ofCopy)} %`)],
  ["of FMA peak", ({ ofPeak }) => (ofPeak === undefined ? "" : `${Math.round(100 * ofPeak)} %`)],
  [
    "max error",
    ({ maxError, correct }) => `${maxError.toExponential(1)}${correct ? "" : " WRONG"}`,
  ],
  ["scratch", scratch],
  ["memory", ({ memoryBytes }) => (memoryBytes === undefined ? "" : bytes(memoryBytes))],
  ["submits", ({ calls }) => countText(calls?.submissions)],
  ["dispatches", ({ dispatches, calls }) => countText(calls?.dispatches ?? dispatches)],
  ["buffers made", ({ calls }) => countText(calls?.buffers)],
  ["read", ({ calls }) => (calls?.readShare === undefined ? "" : calls.readShare.toFixed(2))],
  [
    "of it",
    ({ phases = {} }) =>
      Object.entries(phases)
        .map(([name, ms]) => `${name} ${digits(ms)}`)
        .join(", "),
  ],
];

/** The first row of the same case. */
const firstOf = (row: Measurement, all: readonly Measurement[]) =>
  all.find((other) => other.case === row.case && other.suite === row.suite) ?? row;

/** A ratio with its minimum, median and 90th percentile. */
const ratioText = ({ name, min, median, p90 }: RatioRow) =>
  `${name} ${digits(min)}, ${digits(median)}, ${digits(p90)}`;

/** Whether the median is as asked. */
const askedText = ({ median, atMost, atLeast }: RatioRow) => {
  if (atMost !== undefined) return `, asked <= ${atMost}: ${median <= atMost ? "yes" : "NO"}`;
  return atLeast === undefined ? "" : `, asked >= ${atLeast}: ${median >= atLeast ? "yes" : "NO"}`;
};

function print(measurements: readonly Measurement[]): void {
  const columns = COLUMNS.map(([head, cell]) => ({
    head,
    cells: measurements.map((row) => cell(row, measurements)),
  }));
  const shown = columns.filter(({ cells }) => cells.some(Boolean));
  const table = new Table({
    head: shown.map(({ head }) => head),
    style: { head: [], border: [] },
    colAligns: shown.map(({ head }) =>
      ["suite", "case", "implementation", "of it"].includes(head) ? "left" : "right",
    ),
  });
  table.push(...measurements.map((_, row) => shown.map(({ cells }) => cells[row])));
  console.log(table.toString());
  for (const { suite, case: name, impl, ratios = [] } of measurements) {
    for (const ratio of ratios)
      console.log(`${suite}, ${name}, ${impl}: ${ratioText(ratio)}${askedText(ratio)}`);
  }
  console.log(
    `Milliseconds, by ${measurements[0]?.timing}; rounds are interleaved. Ratios hold within a case of one run.`,
  );
}
