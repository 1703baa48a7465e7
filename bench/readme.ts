// `npm run bench -- --readme`: tables and plots of the READMEs, from bench/results/*.json. A
// section of Markdown stands between `<!-- bench:NAME FILE -->` and `<!-- /bench -->`, and its
// content is written here.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { check } from "../src/errors.ts";
import { LIBRARIES } from "./peers/contest.ts";
import { contestPlot, ladderPlot, type Point, scalePlot } from "./plots.ts";
import { svgOf } from "./svg.ts";
import { casesOf, contests, type ResultFile, SECTIONS, scaleCase } from "./tables.ts";

const RESULTS = "bench/results";
const PAGES = ["README.md", "shaders/README.md", "bench/README.md"];

/**
 * Returns everything that follows from the result files, by path: the READMEs, and plots beside the
 * results.
 */
export function documents(root: string): Map<string, string> {
  const names = readdirSync(join(root, RESULTS)).filter((name) => name.endsWith(".json"));
  const results = new Map<string, ResultFile>();
  for (const name of names.sort()) {
    results.set(
      name.replace(/\.json$/, ""),
      JSON.parse(readFileSync(join(root, RESULTS, name), "utf8")),
    );
  }
  const written = new Map<string, string>();
  for (const page of PAGES)
    written.set(page, rewritten(page, readFileSync(join(root, page), "utf8"), results));
  for (const [name, file] of results) {
    for (const [plot, svg] of plotsOf(file)) written.set(`${RESULTS}/${name}-${plot}.svg`, svg);
  }
  return written;
}

/**
 * Writes the documents that are not up to date, and returns the paths of the files that changed.
 */
export function writeDocuments(root: string): string[] {
  return [...documents(root)].flatMap(([path, text]) => {
    const full = join(root, path);
    let before: string | undefined;
    try {
      before = readFileSync(full, "utf8");
    } catch {} // a plot that was never drawn
    if (before === text) return [];
    writeFileSync(full, text);
    return [path];
  });
}

/**
 * Fills in the sections of a page. Throws FoveaError for a section that is not known, or does not
 * end.
 */
export function rewritten(
  page: string,
  text: string,
  results: ReadonlyMap<string, ResultFile>,
): string {
  const opened = [...text.matchAll(/^<!-- bench:/gm)].length;
  const sections =
    /^(<!-- bench:(\w+) ([\w-]+) -->\n)(?:(?!^<!-- bench:)[\s\S])*?^(<!-- \/bench -->)$/gm;
  let closed = 0;
  const filled = text.replace(
    sections,
    (_, begin: string, name: string, file: string, end: string) => {
      closed++;
      const section = SECTIONS[name];
      check(
        section !== undefined,
        "file",
        () =>
          `${page}: there is no section bench:${name}; there are ${Object.keys(SECTIONS).join(", ")}.`,
      );
      const found = results.get(file);
      check(
        found !== undefined,
        "file",
        () => `${page}: bench:${name} is of ${RESULTS}/${file}.json, which is not there.`,
      );
      const missing = section.suites.find((suite) => !casesOf(found, suite).size);
      const body = missing
        ? `Not measured yet: \`npm run bench -- --suite ${missing}\`.`
        : section.render(found);
      return `${begin}${body}\n${end}`;
    },
  );
  check(
    opened === closed,
    "file",
    () =>
      `${page}: ${opened} sections begin and ${closed} of them end; write <!-- bench:NAME FILE -->, <!-- /bench -->.`,
  );
  return filled;
}

/** Draws the plots that a result file has the rows for, by name. */
function plotsOf(file: ResultFile): Map<string, string> {
  const plots = new Map<string, string>();
  const ladder = [...casesOf(file, "ladder").values()].at(-1);
  if (ladder)
    plots.set(
      "ladder",
      svgOf((canvas) => ladderPlot(ladder, canvas)),
    );
  const points = [...casesOf(file, "scale")].flatMap(([name, rows]) => {
    const { n, keys } = scaleCase(name);
    const measured = rows.filter(({ correct }) => correct);
    return measured.map(
      ({ impl, ms }): Point => ({ n, ms: ms.median, line: keys ? `${impl}, window` : impl }),
    );
  });
  if (points.length)
    plots.set(
      "scale",
      svgOf((canvas) => scalePlot(points, canvas)),
    );
  const beside = contests(file).flatMap((rows) =>
    rows.map(({ suite, case: name, ms, ...row }) => ({
      ...row,
      case: `${suite}, ${name.replace(" beside others", "")}`,
      ms: ms.median,
    })),
  );
  const shown = beside.filter(
    ({ impl, correct }) => correct && (impl === "fovea" || LIBRARIES.includes(impl)),
  );
  if (shown.length)
    plots.set(
      "others",
      svgOf((canvas) => contestPlot(shown, canvas)),
    );
  return plots;
}
