// Running a program of bench/ or test/ as its npm script does.

import { spawn } from "node:child_process";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");

/** @param program Path from the root, as in `bench/start.ts` */
export function runProgram(
  program: string,
  ...args: string[]
): Promise<{ code: number | null; out: string; err: string }> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [join(root, "scripts/run.mjs"), program, ...args], {
      env: { ...process.env, VITEST: "" },
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
