// `npm start`: attention of real models, or of the user's tensors, computed in a browser, checked
// against float64, timed.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import type { ViteDevServer } from "vite";
import { FoveaError } from "../src/errors.ts";
import { type OpenPage, openPage } from "./browser.ts";
import { progress } from "./console.ts";
import { type Dims, flopsOf, naiveBytesOf } from "./cost.ts";
import { bytes, digits, milliseconds } from "./format.ts";
import type { Measurement, Times } from "./harness.ts";
import { loadInput, saveOutput } from "./input.ts";
import type { Adapter } from "./program.ts";
import type { Verdict } from "./verify.ts";
import { WORKLOADS } from "./workloads.ts";

export interface Context {
  readonly server: ViteDevServer;
  readonly root: string;
  /** Files that the page can fetch and store, by name. */
  readonly files: Map<string, Uint8Array>;
  readonly args: string[];
}

const HELP = `
npm start                                   attention of eight real models, checked and timed
npm start -- --input qkv.safetensors        the same for your own q, k and v
npm start -- --input q.npy,k.npy,v.npy

  --input FILES    .safetensors with tensors q, k, v (f64, f32, f16 or bf16), or three .npy files;
                   shapes [B, H, M, D], [H, M, D] or [M, D]
  --causal         causal mask for --input: the last query stands at the last key
  --output FILE    where --input's result goes: .safetensors (output and lse) or .npy (output)
  --rounds N       timed runs of each (5)
  --json FILE      results as JSON
  --help           this text
`;

const OPTIONS = {
  input: { type: "string" },
  causal: { type: "boolean" },
  output: { type: "string" },
  rounds: { type: "string", default: "5" },
  json: { type: "string" },
  help: { type: "boolean" },
} as const;

export async function main({ server, root, files, args }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const rounds = positive("--rounds", values.rounds);
  const input =
    values.input === undefined ? undefined : loadInput(values.input, values.causal ?? false);
  if (!input && (values.output || values.causal)) {
    throw new FoveaError(
      "argument",
      "--output and --causal go with --input; the workloads have masks of their own.",
    );
  }
  const { report, stop } = progress();
  const page = await openPage(server, report);
  try {
    console.log(`${describe(page)}\n`);
    if (input) {
      const result = await runOwn(page, files, input);
      if (values.output) saveOutput(resolve(values.output), input, result.output, result.lse);
      if (values.json)
        writeJson(values.json, root, page, {
          rows: [{ suite: "start", case: values.input, ...result.row }],
        });
      return result.row.correct ? 0 : 1;
    }
    const measurements = await page.call<Measurement[]>("suites", {
      suites: ["workloads"],
      rounds,
    });
    stop();
    printWorkloads(measurements, page.adapter);
    if (values.json)
      writeJson(values.json, root, page, {
        rows: measurements.map(({ verdict: _, ...row }) => ({ ...row, suite: "start" })),
      });
    return measurements.every(({ correct }) => correct) ? 0 : 1;
  } finally {
    stop();
    await page.close();
  }
}

/** Runs a parser of arguments; its complaints become errors with the help text. */
export function parse<T>(parser: () => T, help: string): T {
  try {
    return parser();
  } catch (cause) {
    throw new FoveaError("argument", `${(cause as Error).message}\n${help}`, { cause });
  }
}

export function positive(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new FoveaError("argument", `${name} must be a whole number from 1 up, got ${text}.`);
}

export function describe({ adapter, engine }: Pick<OpenPage, "adapter" | "engine">): string {
  const software = adapter.software
    ? "\nThere is no GPU here: this is a software adapter, on the CPU."
    : "";
  return `Fovea on ${adapter.description}, ${engine}${software}`;
}

/** A result file. */
export function writeJson(
  path: string,
  root: string,
  { adapter, engine }: Pick<OpenPage, "adapter" | "engine">,
  content: object,
): void {
  let commit = "unknown";
  try {
    commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], {
      cwd: root,
      encoding: "utf8",
      stdio: "pipe",
    }).trim();
  } catch {} // not a checkout
  const file = { schema: 1, adapter, engine, commit, ...content };
  writeFileSync(resolve(path), `${JSON.stringify(file, null, 2)}\n`);
}

const shapeText = ({ B, H, Hkv, M, N, D, Dv, causal }: Dims) =>
  `B=${B} H=${H}${Hkv === H ? "" : `/${Hkv}`} M=${M} N=${N} D=${D}${Dv === D ? "" : `/${Dv}`}${causal ? " causal" : ""}`;

function printWorkloads(measurements: readonly Measurement[], { software }: Adapter): void {
  const table = new Table({
    head: ["workload", "shape", "kernel", "time", "GFLOP/s", "max error", "scratch", "naive"],
    style: { head: [], border: [] },
    colAligns: ["left", "left", "left", "right", "right", "right", "right", "right"],
  });
  let cut = false;
  for (const {
    case: name,
    dims,
    kernel,
    ms,
    gflops,
    maxError,
    correct,
    workspaceBytes,
  } of measurements) {
    const full = WORKLOADS.find((workload) => workload.name === name);
    const isCut = full !== undefined && (full.M !== dims.M || full.N !== dims.N);
    cut ||= isCut;
    const error = `${maxError.toExponential(1)}${correct ? "" : " WRONG"}`;
    const shape = `${shapeText(dims)}${isCut ? ` *` : ""}`;
    table.push([
      name,
      shape,
      kernel,
      milliseconds(ms.median),
      digits(gflops),
      error,
      bytes(workspaceBytes),
      bytes(naiveBytesOf(dims)),
    ]);
  }
  console.log(table.toString());
  if (cut && software) {
    const lengths = measurements.flatMap(({ case: name, dims }) => {
      const full = WORKLOADS.find((workload) => workload.name === name);
      return full && (full.M !== dims.M || full.N !== dims.N)
        ? [`${name} ${full.M}x${full.N}`]
        : [];
    });
    console.log(`* Cut for the software adapter. At full length: ${lengths.join(", ")}.`);
  }
  const [first] = measurements;
  const checked = measurements.map(({ verdict: { rows, ofRows } }) => rows / ofRows);
  const all = checked.filter((share) => share === 1).length;
  console.log(
    `Each output was checked against a float64 reference before it was timed: ${all} of ${checked.length} in all rows, the others in an even sample of them (at least ${(100 * Math.min(...checked)).toFixed(0)} %).`,
  );
  console.log(
    `Times are medians of ${first.rounds} runs by ${first.timing}. Scratch is what attention itself allocates; naive is the M x N scores it avoids.`,
  );
  for (const { case: name, verdict, correct } of measurements)
    if (!correct) console.error(wrong(name, verdict));
}

const wrong = (name: string, { worst, bound }: Verdict) =>
  `${name} is WRONG: output [${worst.index}] is ${worst.actual}, expected ${worst.expected}; the error may be ${bound.toExponential(1)}.`;

async function runOwn(
  page: OpenPage,
  files: Context["files"],
  { dims, q, k, v }: ReturnType<typeof loadInput>,
) {
  for (const [name, { data }] of Object.entries({ q, k, v }))
    files.set(name, new Uint8Array(data.buffer));
  const { verdict, kernel, ms } = await page.call<{ verdict: Verdict; kernel: string; ms: Times }>(
    "input",
    dims,
  );
  // A copy, because a small Buffer is a part of a larger one.
  const floats = (name: string) => new Float32Array(new Uint8Array(files.get(name) ?? []).buffer);
  const gflops = flopsOf(dims) / ms.median / 1e6;
  const { rows, ofRows, correct, maxError } = verdict;
  console.log(
    `${shapeText(dims)}  (${[q, k, v].map(({ dtype }) => dtype).join(", ")} in the file, f32 on the GPU)`,
  );
  console.log(`${kernel}: ${milliseconds(ms.median)}, ${digits(gflops)} GFLOP/s`);
  console.log(
    `${rows === ofRows ? `all ${rows} rows` : `${rows} of ${ofRows} rows`} checked against float64: largest error ${maxError.toExponential(1)}`,
  );
  console.log(`scratch ${bytes(0)}; the naive way keeps ${bytes(naiveBytesOf(dims))} of scores`);
  if (!correct) console.error(wrong("The output", verdict));
  return {
    output: floats("output"),
    lse: floats("lse"),
    row: { impl: "fovea", kernel, ms, gflops, maxError, correct, dims },
  };
}
