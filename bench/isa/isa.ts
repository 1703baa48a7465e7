// `npm run isa`: what a real GPU's compiler makes of the hot kernels, without the GPU.

import { parseArgs } from "node:util";
import Table from "cli-table3";
import { missingCompiler } from "../../scripts/isa.mjs";
import { FoveaError } from "../../src/errors.ts";
import { type Context, parse } from "../start.ts";
import { compileForRdna2 } from "./compiler.ts";
import type { IsaReport } from "./disassembly.ts";
import {
  broken,
  fmaPerInstruction,
  fmaPerWord,
  fmaShare,
  type HotKernel,
  hotKernels,
  percent,
  steadyShare,
} from "./kernels.ts";
import { peerKernels } from "./peers.ts";

const HELP = `
npm run isa -- [--peers] [--filter S]

  --peers      also onnxruntime-web's kernels for the same problem, as it hands them to the browser
  --filter S   kernels with S in their name
  --help       this text
`;

const OPTIONS = {
  peers: { type: "boolean", default: false },
  filter: { type: "string", default: "" },
  help: { type: "boolean" },
} as const;

export async function main({ server, args }: Context): Promise<number> {
  const { values } = parse(() => parseArgs({ args, options: OPTIONS }), HELP);
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const missing = missingCompiler();
  if (missing) throw new FoveaError("device", `no instruction report here: ${missing}.`);
  const ours = (await hotKernels()).filter(({ name }) => name.includes(values.filter));
  const theirs = values.peers ? await peerKernels(server) : [];
  if (ours.length + theirs.length === 0)
    throw new FoveaError("argument", `no kernel has "${values.filter}" in it.`);
  const reports = compileForRdna2([...ours, ...theirs]);
  print(reports, ours);
  const failures = ours.flatMap(({ limits }, index) => broken(reports[index], limits));
  for (const failure of failures) console.error(failure);
  return failures.length ? 1 : 0;
}

function print(reports: readonly IsaReport[], ours: readonly HotKernel[]): void {
  const head = [
    "kernel",
    "FMA share",
    "steady",
    "FMA ops / VALU",
    "FMA a word",
    "VGPRs",
    "spills",
    "LDS bytes",
    "waves",
  ];
  const more = ["lane ops", "scalar loads", "barriers"];
  const table = new Table({
    head: [...head, ...more],
    style: { head: [], border: [] },
    colAligns: ["left", ...[...head, ...more].slice(1).map(() => "right" as const)],
  });
  for (const [index, report] of reports.entries()) {
    const { name, vgprs, spills, workgroupBytes, waves, loop } = report;
    const word = loop.ldsWords ? fmaPerWord(report).toFixed(2) : "";
    const shares = [
      percent(fmaShare(report)),
      percent(steadyShare(report)),
      fmaPerInstruction(report, ours[index]?.limits ?? {}).toFixed(2),
    ];
    table.push([
      name,
      ...shares,
      word,
      vgprs,
      spills,
      workgroupBytes,
      waves,
      loop.lane,
      loop.scalarLoads,
      loop.barriers,
    ]);
  }
  console.log(table.toString());
  console.log(
    "RDNA2 (navi21), waves of 64 lanes, robustness on; shares are of the vector instructions of the key loop.",
  );
}
