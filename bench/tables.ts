// Result files as tables of Markdown.

import { MOST_FLOPS } from "../src/attention/uniform.ts";
import { naiveBytesOf } from "./cost.ts";
import { bytes, digits } from "./format.ts";
import type { RatioRow, Row } from "./harness.ts";
import { LIBRARIES, libraryOf } from "./peers/contest.ts";
import type { Adapter } from "./program.ts";
import { SOFTWARE_FLOPS } from "./suites.ts";
import { cutTo, WORKLOADS } from "./workloads.ts";

/** A row, with the commit that it was measured at, if that is not the file's. */
export type ResultRow = Row & { readonly commit?: string };

/** What `--json` writes. */
export interface ResultFile {
  readonly schema: 1;
  readonly adapter: Adapter;
  readonly engine: string;
  readonly commit: string;
  readonly rows: readonly ResultRow[];
}

/** The rows of a suite, by case. */
export function casesOf({ rows }: ResultFile, suite: string): Map<string, Row[]> {
  const cases = new Map<string, Row[]>();
  for (const row of rows) {
    if (row.suite !== suite) continue;
    cases.set(row.case, [...(cases.get(row.case) ?? []), row]);
  }
  return cases;
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string => {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), `|${head.map(() => "---|").join("")}`, ...rows.map(line)].join("\n");
};

const faster = (factor: number) => factor.toFixed(factor >= 10 ? 0 : 1);
const thousands = (count: number | string) => Number(count).toLocaleString("en-US");
const errorOf = ({ maxError, correct }: Row) =>
  `${maxError.toExponential(1)}${correct ? "" : " WRONG"}`;

/** Attention of real models. */
function workloads(file: ResultFile): string {
  const most = file.adapter.software ? SOFTWARE_FLOPS : Number.POSITIVE_INFINITY;
  const rows = WORKLOADS.flatMap((workload) => {
    const dims = cutTo(workload, most);
    const row = casesOf(file, "workloads").get(workload.name)?.[0];
    if (!row) return [];
    const heads = dims.H === dims.Hkv ? dims.H : `${dims.H}/${dims.Hkv}`;
    const shape = `B${dims.B} H${heads} M${dims.M} N${dims.N} D${dims.D}`;
    return [
      [
        row.case,
        shape,
        digits(row.ms.median),
        digits(row.gflops),
        errorOf(row),
        bytes(naiveBytesOf(dims)),
      ],
    ];
  });
  const shape = `shape here${file.adapter.software ? " (cut)" : ""}`;
  return table(
    ["attention of", shape, "ms", "GFLOP/s", "max error", "scores the naive way would store"],
    rows,
  );
}

/** A token of generation by the keys in the cache and the heads. */
function generate(file: ResultFile): string {
  const found = [...casesOf(file, "generate")].flatMap(([name, [row]]) => {
    const match = /^(\d+) keys, H=(\d+)\/(\d+)/.exec(name);
    return match
      ? [
          {
            keys: match[1],
            heads: `${match[2]} query heads, ${match[3]} key head${match[3] === "1" ? "" : "s"}`,
            row,
          },
        ]
      : [];
  });
  const lengths = [...new Set(found.map(({ keys }) => keys))];
  const rows = [...new Set(found.map(({ heads }) => heads))].map((heads) => [
    heads,
    ...lengths.map((length) => {
      const one = found.find((other) => other.heads === heads && other.keys === length);
      return one ? digits(one.row.ms.median) : "";
    }),
  ]);
  return table(["keys in the cache", ...lengths.map(thousands)], rows);
}

/** The steps of a suite, from the naive one on. */
const ladder = (suite: string) => (file: ResultFile) => {
  const rows = [...casesOf(file, suite)].flatMap(([name, steps]) =>
    steps.map(({ impl, ms }) => [
      name.replace(/^N=(\d+).*/, "$1"),
      impl,
      ...[ms.min, ms.median, ms.p90].map((value) => value.toFixed(1)),
      faster(steps[0].ms.median / ms.median),
    ]),
  );
  return table(["N", "step", "min", "median", "p90", "times faster than step 1"], rows);
};

/** By how much the last step is faster than the first, on the longest problem. */
function climb(file: ResultFile): string {
  const [name, steps] = [...casesOf(file, "ladder")].at(-1) as [string, Row[]];
  const factor = steps[0].ms.median / (steps.at(-1) as Row).ms.median;
  const times = `${faster(factor)} times faster at N = ${name.replace(/^N=(\d+).*/, "$1")}`;
  return `Step by step from the naive three kernels to this one: ${times} ([shaders/README.md](shaders/README.md)).`;
}

/** How long a page waits for its first result. */
function start(file: ResultFile): string {
  const phases = ["import", "device", "prewarm", "plan", "run"];
  const rows = [...casesOf(file, "start").values()]
    .flat()
    .map((row) => [
      row.case,
      row.impl,
      digits(row.ms.median),
      ...phases.map((phase) =>
        row.phases?.[phase] === undefined ? "" : digits(row.phases[phase]),
      ),
    ]);
  return table(["first result", "", "ms", ...phases], rows);
}

/** Time and memory by length: ours, and the libraries' if they took part. */
function scale(file: ResultFile): string {
  const cases = [...casesOf(file, "scale")];
  const peers = LIBRARIES.filter((name) =>
    cases.some(([, rows]) => rows.some(({ impl }) => impl === name)),
  );
  const rows = cases.map(([name, rows]) => {
    const { n, heads, keys } = scaleCase(name);
    const ours = rows.find(({ impl }) => impl === "fovea") as Row;
    const timeOf = (impl: string) => {
      const row = rows.find((other) => other.impl === impl);
      return row ? `${digits(row.ms.median)}${row.correct ? "" : " WRONG"}` : "";
    };
    const scores = bytes(naiveBytesOf({ B: 1, H: heads, M: n, N: n }));
    const cost = [digits(ours.gflops), `${ours.dispatches}`, bytes(ours.workspaceBytes), scores];
    return [
      thousands(n),
      keys ? thousands(keys) : "all",
      digits(ours.ms.median),
      ...cost,
      ...peers.map(timeOf),
    ];
  });
  return table(
    ["N", "keys of a query", "ms", "GFLOP/s", "dispatches", "scratch", "scores", ...peers],
    rows,
  );
}

/** What the name of a case of suite `scale` says. */
export function scaleCase(name: string): { n: number; heads: number; keys: number | undefined } {
  const [, n, heads, window] = /^N=(\d+) H=(\d+) D=64(?: window (\d+))?$/.exec(
    name,
  ) as RegExpExecArray;
  return { n: Number(n), heads: Number(heads), keys: window ? Number(window) + 1 : undefined };
}

/** A suite beside libraries, with what one takes of another's time, and the memory. */
const byRatios = (suite: string) => (file: ResultFile) => {
  const rows = [...casesOf(file, suite).values()]
    .flat()
    .map((row) => [
      row.case,
      row.impl,
      ...[row.ms.min, row.ms.median, row.ms.p90].map(digits),
      (row.ratios ?? []).map(ratioOf).join("; "),
      row.memoryBytes === undefined ? "" : bytes(row.memoryBytes),
      errorOf(row),
    ]);
  const ratios = "times: min, median, p90";
  return table(["case", "", "min", "median", "p90", ratios, "memory", "max error"], rows);
};

const ratioOf = ({ name, min, median, p90, atMost, atLeast }: RatioRow) => {
  const least = atLeast === undefined ? "" : ` (asked: at least ${atLeast})`;
  const asked = atMost === undefined ? least : ` (asked: at most ${atMost})`;
  return `${name}: ${[min, median, p90].map(digits).join(", ")}${asked}`;
};

/** Gradients by length: how the work is cut, and what memory it takes. */
function backwardLong(file: ResultFile): string {
  const most = `2^${Math.log2(MOST_FLOPS[file.adapter.software ? "software" : "gpu"])}`;
  const rows = [...casesOf(file, "backward-long")].map(([name, [row]]) => {
    const [, n, heads] = /^N=(\d+) H=(\d+)/.exec(name) as RegExpExecArray;
    const scores = naiveBytesOf({ B: 1, H: Number(heads), M: Number(n), N: Number(n) });
    const cost = [digits(row.ms.median), digits(row.gflops), `${row.dispatches}`, most];
    return [thousands(n), heads, ...cost, bytes(row.workspaceBytes), bytes(scores), errorOf(row)];
  });
  const work = ["ms", "GFLOP/s", "dispatches", "operations of a dispatch, at most"];
  return table(["N", "H", ...work, "scratch", "scores", "max error"], rows);
}

/** Suites that have tables of their own. */
const APART: readonly string[] = ["scale", "backward", "training", "models"];

/** The cases in which libraries take part, of all suites but those. */
export function contests({ rows }: ResultFile): Row[][] {
  const cases = new Map<string, Row[]>();
  for (const row of rows) {
    const key = `${row.suite} ${row.case}`;
    cases.set(key, [...(cases.get(key) ?? []), row]);
  }
  return [...cases.values()].filter(
    (all) => !APART.includes(all[0].suite) && all.some(({ impl }) => libraryOf(impl)),
  );
}

/** Our times beside the libraries'. */
function others(file: ResultFile): string {
  const rows = contests(file).flatMap((all) =>
    all.map((row) => {
      const ratio = row === all[0] || !row.correct ? "" : faster(row.ms.median / all[0].ms.median);
      const times = [row.ms.min, row.ms.median, row.ms.p90].map(digits);
      return [row.suite, row.case, row.impl, ...times, ratio, errorOf(row)];
    }),
  );
  return table(["suite", "case", "", "min", "median", "p90", "times ours", "max error"], rows);
}

/** Sections of Markdown by name, and the suites that each shows. */
export const SECTIONS: Readonly<
  Record<string, { suites: readonly string[]; render: (file: ResultFile) => string }>
> = {
  workloads: { suites: ["workloads"], render: workloads },
  generate: { suites: ["generate"], render: generate },
  ladder: { suites: ["ladder"], render: ladder("ladder") },
  climb: { suites: ["ladder"], render: climb },
  start: { suites: ["start"], render: start },
  scale: { suites: ["scale"], render: scale },
  backward: { suites: ["backward"], render: byRatios("backward") },
  training: { suites: ["training"], render: byRatios("training") },
  models: { suites: ["models"], render: byRatios("models") },
  backward_ladder: { suites: ["backward-ladder"], render: ladder("backward-ladder") },
  backward_long: { suites: ["backward-long"], render: backwardLong },
  others: { suites: [], render: others },
};
