// `npm run conformance`: a folder of vectors from peers' own suites, run through the operators of
// `fovea/onnx`, of Keras and of PyTorch, on the GPU of a browser, of Deno or of Node on Dawn.

import { existsSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { progress } from "../../bench/console.ts";
import type { Report } from "../../bench/program.ts";
import { type Context, describe, parse } from "../../bench/start.ts";
import { vectorFolders } from "../../scripts/vectors.mjs";
import { FoveaError } from "../../src/index.ts";
import { type Case, casesOf } from "./cases.ts";
import { ENGINES, lasting } from "./engines.ts";
import { modelCases } from "./models.ts";
import type { Outcome } from "./runner.ts";
import { keepResults, nameOf, renewTable } from "./table.ts";

const HELP = `
npm run conformance -- [--vectors DIR] [--engine ${Object.keys(ENGINES).join("|")}] [--filter TEXT] [--json FILE]
npm run conformance -- --models DIR [--engine NAME] [--filter TEXT] [--json FILE]
npm run conformance -- --table

  --vectors DIR    a folder of vectors; may be repeated. Default: FOVEA_VECTORS, or ../shared/vectors
  --models DIR     a folder of models with golden results, in place of vectors; may be repeated
  --engine NAME    chromium (default), firefox, deno, or dawn: Node with npm webgpu
  --filter TEXT    only vectors with TEXT in the name of their file or operator
  --json FILE      a list of what became of each vector, as JSON
  --record         keeps the counts in test/conformance/results, and renews the table
  --table          only writes the table of the kept counts into docs/onnx.md
  --help           this text

A vector names an operator with its attributes, and holds its inputs, the outputs that its suite expects, and a tolerance:
|got - expected| <= tolerance * max(1, |expected|). Shapes and element types have to be the same, and what is not a number
passes only where the vector has it, too; -Infinity also where it has the lowest number of its type, as ONNX Runtime's do.
An operator that throws has failed. Skipped, and counted by name, are operators and element types that Fovea does not have.
`;

const OPTIONS = {
  vectors: { type: "string", multiple: true },
  models: { type: "string", multiple: true },
  engine: { type: "string", default: "chromium" },
  filter: { type: "string", default: "" },
  json: { type: "string" },
  record: { type: "boolean", default: false },
  table: { type: "boolean", default: false },
  help: { type: "boolean" },
} as const;

/** Milliseconds between two lines that tell of progress. */
const EVERY = 5000;

/** The result of a vector: an entry of --json. */
export interface Row extends Omit<Case, "path">, Outcome {
  readonly engine: string;
}

export async function main({ args, ...context }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  if (values.table) {
    renewTable(context.root);
    return 0;
  }
  const name = engineOf(values.engine);
  if (values.record && values.filter)
    throw new FoveaError("argument", "--record is of all vectors; leave --filter out.");
  const given = (folders: readonly string[] | undefined) =>
    folders?.map((folder) => resolve(folder));
  if (values.models && (values.record || values.vectors))
    throw new FoveaError(
      "argument",
      "--models runs models alone; leave --record and --vectors out.",
    );
  const cases = values.models
    ? matching((given(values.models) ?? []).flatMap(modelCases), values.filter)
    : chosen(given(values.vectors) ?? vectorFolders(), values.filter);
  const { report, stop } = progress();
  const engine = await lasting(() => ENGINES[name](context));
  try {
    console.log(`${describe(engine)}\n`);
    const rows = await runCases(cases, name, ({ path }) => engine.run(path), report);
    stop();
    if (values.json) writeFileSync(resolve(values.json), `${JSON.stringify(rows, null, 1)}\n`);
    if (values.models) for (const row of rows) tellWorst(row);
    const failures = summarize(rows);
    if (values.record) {
      keepResults(context.root, name, engine, rows);
      renewTable(context.root);
    }
    return failures ? 1 : 0;
  } finally {
    stop();
    await engine.close();
  }
}

/** Runs cases one after the other, and prints failures as they are found. */
export async function runCases(
  cases: readonly Case[],
  engine: string,
  attempt: (one: Case) => Promise<Outcome>,
  report: Report,
): Promise<Row[]> {
  const rows: Row[] = [];
  let told = performance.now();
  report({ steps: cases.length });
  for (const one of cases) {
    const { path, ...named } = one;
    const outcome: Outcome = existsSync(path)
      ? await attempt(one)
      : {
          status: "failed",
          message: "the manifest lists it, and there is no such file",
          worst: null,
        };
    rows.push({ ...named, engine, ...outcome });
    if (outcome.status === "failed")
      console.log(`failed: ${one.file} (${nameOf(one)}): ${outcome.message}`);
    report({ done: 1 });
    if (performance.now() - told < EVERY) continue;
    told = performance.now();
    report({ step: `${rows.length} of ${cases.length} vectors` });
  }
  return rows;
}

/** Prints the largest difference of a model, and what of it was not compared. */
function tellWorst({ file, worst, status, message }: Row): void {
  const left = status === "passed" && message ? `; ${message}` : "";
  if (worst) console.log(`${file}: ${worst.error} at most, in units of max(1, |expected|)${left}`);
}

/** Prints what was skipped, by name, and the counts. Returns the number of failures. */
export function summarize(rows: readonly Row[]): number {
  const skipped = rows.filter(({ status }) => status === "skipped").map(({ message }) => message);
  for (const reason of [...new Set(skipped)].sort()) {
    const count = skipped.filter((other) => other === reason).length;
    console.log(`skipped: ${reason} (${count} vector${count === 1 ? "" : "s"})`);
  }
  const count = (wanted: Outcome["status"]) =>
    rows.filter(({ status }) => status === wanted).length;
  console.log(`${count("passed")} passed, ${count("failed")} failed, ${skipped.length} skipped`);
  return count("failed");
}

/** Returns the cases of folders whose file or operator has the text in its name: at least one. */
function chosen(folders: readonly string[], filter: string): Case[] {
  if (!folders.length) {
    throw new FoveaError(
      "file",
      "there are no vectors beside the project; say where they are: --vectors DIR.",
    );
  }
  const all = folders.flatMap(casesOf);
  if (!all.length) throw new FoveaError("file", `there are no vectors in ${folders.join(", ")}.`);
  return matching(all, filter);
}

/** The cases with the text in their names: at least one. */
function matching(all: readonly Case[], filter: string): Case[] {
  const cases = all.filter(({ file, op }) => file.includes(filter) || op.includes(filter));
  if (!cases.length)
    throw new FoveaError(
      "argument",
      `--filter: none of the ${all.length} vectors has ${filter} in it.`,
    );
  return cases;
}

function engineOf(name: string): keyof typeof ENGINES {
  const names = Object.keys(ENGINES) as (keyof typeof ENGINES)[];
  const engine = names.find((known) => known === name);
  if (engine) return engine;
  throw new FoveaError("argument", `--engine must be ${names.join(", ")}, got ${name}.`);
}
