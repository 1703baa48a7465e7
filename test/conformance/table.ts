// Keeps what passed in which engine: as counts in results/, one file for each engine, and as a
// table in docs/onnx.md.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeJson } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import type { Row } from "./conformance.ts";
import type { Engine } from "./engines.ts";
import type { Outcome } from "./runner.ts";

/** The counts of one version of an operator. */
interface Count extends Record<Outcome["status"], number> {
  readonly op: string;
  readonly opset: number | null;
}

/** A file of results. */
export interface Results extends Pick<Engine, "adapter" | "engine"> {
  readonly operators: readonly Count[];
}

const MARKS = ["<!-- conformance -->", "<!-- /conformance -->"] as const;
const folderOf = (root: string) => join(root, "test/conformance/results");

/** Counts rows by operator and version. */
export function countsOf(rows: readonly Pick<Row, "op" | "opset" | "status">[]): Count[] {
  const counts = new Map<string, Count>();
  for (const { op, opset, status } of rows) {
    const key = nameOf({ op, opset });
    const count = counts.get(key) ?? { op, opset, passed: 0, failed: 0, skipped: 0 };
    count[status]++;
    counts.set(key, count);
  }
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, count]) => count);
}

/** Keeps the counts of a run of all vectors. */
export function keepResults(
  root: string,
  name: string,
  engine: Engine,
  rows: readonly Row[],
): void {
  mkdirSync(folderOf(root), { recursive: true });
  writeJson(join(folderOf(root), `${name}.json`), root, engine, { operators: countsOf(rows) });
}

/** Reads the kept results, by engine. */
export function readResults(root: string): Map<string, Results> {
  const folder = folderOf(root);
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  return new Map(
    files.map((file) => [
      file.replace(/\.json$/, ""),
      JSON.parse(readFileSync(join(folder, file), "utf8")),
    ]),
  );
}

/**
 * Makes a table of how many vectors pass in each engine, which unfolds to a line for each version
 * of an operator.
 */
export function tableOf(results: ReadonlyMap<string, Results>): string {
  const engines = [...results.values()];
  const operators = engines.flatMap(({ operators }) => operators).map(nameOf);
  const line = (name: string, takes: (count: Count) => boolean) =>
    `| ${[name, ...engines.map(({ operators }) => share(operators.filter(takes)))].join(" | ")} |`;
  const totals = engines.map(
    ({ engine, adapter, operators }) =>
      `${share(operators)} in ${engine} on ${adapter.description}`,
  );
  return [
    `Vectors that pass: ${totals.join("; ")}.`,
    "",
    "<details><summary>By operator</summary>",
    "",
    `| operator | ${[...results.keys()].join(" | ")} |`,
    `| --- |${" ---: |".repeat(results.size)}`,
    ...[...new Set(operators)].sort().map((name) => line(name, (count) => nameOf(count) === name)),
    "",
    "</details>",
  ].join("\n");
}

function share(counts: readonly Count[]): string {
  const sum = (status: Outcome["status"]) =>
    counts.reduce((total, count) => total + count[status], 0);
  return counts.length
    ? `${sum("passed")} of ${sum("passed") + sum("failed") + sum("skipped")}`
    : "";
}

/** Writes the table into its page, between its marks. */
export function renewTable(root: string): void {
  const file = join(root, "docs/onnx.md");
  const text = readFileSync(file, "utf8");
  const [begin, end] = MARKS.map((mark) => text.indexOf(mark));
  if (begin < 0 || end < begin)
    throw new FoveaError("file", `docs/onnx.md has no ${MARKS[0]} with a ${MARKS[1]} after it.`);
  const table = tableOf(readResults(root));
  writeFileSync(file, `${text.slice(0, begin + MARKS[0].length)}\n${table}\n${text.slice(end)}`);
}

/** Domain, operator and version. */
export const nameOf = ({ op, opset }: Pick<Count, "op" | "opset">): string =>
  opset === null ? op : `${op}-${opset}`;
