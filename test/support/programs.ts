// Running a program of bench/ or test/ as its npm script does.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const root = join(import.meta.dirname, "../..");
/** Programs wait for Dawn as tests do. */
const patience = pathToFileURL(join(import.meta.dirname, "patience.mjs"));

/** @param program Path from the root, as in `bench/start.ts` */
export function runProgram(
  program: string,
  ...args: string[]
): Promise<{ code: number | null; out: string; err: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [join(root, "scripts/run.mjs"), program, ...args], {
      env: { ...process.env, VITEST: "", NODE_OPTIONS: `--import=${patience}` },
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (text) => {
      out += text;
    });
    child.stderr.on("data", (text) => {
      err += text;
    });
    child.on("close", (code) => done({ code, out, err }));
  });
}
