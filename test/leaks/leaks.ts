// `npm run leaks` makes thousands of calls of every kind in Node on Dawn. They must leave nothing
// behind.

import { parseArgs } from "node:util";
import Table from "cli-table3";
import { progress } from "../../bench/console.ts";
import { openDawn } from "../../bench/dawn.ts";
import { type Context, describe, parse, positive } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import { ATTENTION_CASES } from "./attention_cases.ts";
import { CACHE_CASES } from "./cache_cases.ts";
import { GRADIENT_CASES } from "./gradient_cases.ts";
import { Lab, type LeakCase } from "./lab.ts";
import { HEAP_CALLS, HEAP_KIB, type Leakage, LINKING_KIB, measure } from "./measure.ts";
import { MODEL_CASES } from "./model_cases.ts";
import { ONNX_CASES } from "./onnx_cases.ts";
import { OPERATION_CASES } from "./operation_cases.ts";
import { PAGED_CASES } from "./paged_cases.ts";
import { RECURRENT_CASES } from "./recurrent_cases.ts";
import { TENSOR_CASES } from "./tensor_cases.ts";
import { TEXT_CASES } from "./text_cases.ts";
import { TRAINING_CASES } from "./training_cases.ts";

export const CASES: readonly LeakCase[] = [
  ...TENSOR_CASES,
  ...ATTENTION_CASES,
  ...OPERATION_CASES,
  ...GRADIENT_CASES,
  ...RECURRENT_CASES,
  ...ONNX_CASES,
  ...CACHE_CASES,
  ...PAGED_CASES,
  ...TRAINING_CASES,
  ...MODEL_CASES,
  ...TEXT_CASES, // last, because functions are optimised for them
];

const HELP = `
npm run leaks -- [--calls N] [--case TEXT]

Calls of every kind, those that are rejected included, in Node on Dawn; each must leave everything as it was.

  --calls N        calls of each case (2000)
  --case TEXT      only the cases whose name has this text
  --help           this text

GPU objects are buffers, textures and query sets, those made less those destroyed: as many after the last call as after
call 50, and none when what the calls had in common was destroyed. The heap is what JavaScript has in use when all garbage
is gone, the median of several readings: between a quarter of the calls and the last one it may grow by ${HEAP_KIB} KiB, or by
${LINKING_KIB} where calls link other texts, each of which is hundreds. With fewer than 2000
calls caches may not be full yet, and grow; with fewer than ${HEAP_CALLS} the heap is not looked at.
All but one case run kernels that write nothing, because the true ones take software adapters seconds to compile.
`;

const OPTIONS = {
  calls: { type: "string", default: "2000" },
  case: { type: "string", default: "" },
  help: { type: "boolean" },
} as const;

export async function main({ args }: Pick<Context, "args">): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const calls = positive("--calls", values.calls);
  const cases = CASES.filter(({ name }) => name.includes(values.case));
  if (!cases.length) {
    const names = CASES.map(({ name }) => `\n  ${name}`).join("");
    throw new FoveaError(
      "argument",
      `--case: no case has "${values.case}" in its name; there are${names}`,
    );
  }
  const { device, ...dawn } = await openDawn();
  const { report, stop } = progress();
  const results: Leakage[] = [];
  try {
    console.log(`${describe(dawn)}\n`);
    const lab = new Lab(device);
    report({ steps: cases.length });
    for (const [index, one] of cases.entries()) {
      report({ step: `${index + 1} of ${cases.length}: ${one.name}` });
      const leakage = await measure(lab, one, calls);
      results.push(leakage);
      // faults are printed at once, since a run is long
      if (leakage.faults.length) console.log(`${one.name}: ${leakage.faults.join("; ")}`);
      report({ done: 1 });
    }
    stop();
    console.log(tableOf(results));
    const flat = results.filter(({ faults }) => !faults.length).length;
    console.log(`${flat} of ${results.length} cases leave nothing behind`);
    return flat === results.length ? 0 : 1;
  } finally {
    stop();
    device.destroy();
  }
}

function tableOf(results: readonly Leakage[]): string {
  const table = new Table({
    head: [
      "case",
      "calls",
      "objects: early",
      "last",
      "left",
      "heap KiB: early",
      "last",
      "grown",
      "seconds",
      "",
    ],
    style: { head: [], border: [] },
    colAligns: [
      "left",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "right",
      "left",
    ],
  });
  for (const { name, calls, objects, heap, seconds, faults } of results) {
    table.push([
      name,
      calls,
      ...objects,
      ...heap,
      heap[1] - heap[0],
      seconds.toFixed(1),
      faults.length ? "LEAK" : "flat",
    ]);
  }
  return table.toString();
}
