// The program that `npm run conformance -- --engine deno` bundles and runs in Deno: for each line
// of its input, the path of a vector, a line of JSON with how it went. The first line describes the
// adapter.

import { describeAdapter } from "../../bench/program.ts";
import { requestFoveaDevice } from "../../src/index.ts";
import { Runner } from "./runner.ts";

/** The part of Deno that is used here. */
interface DenoGlobals {
  readonly stdin: { readonly readable: ReadableStream<Uint8Array<ArrayBuffer>> };
  readonly version: { readonly deno: string };
  readTextFile(path: string): Promise<string>;
}
const { stdin, version, readTextFile } = (globalThis as unknown as { Deno: DenoGlobals }).Deno;

const say = (line: unknown) => console.log(JSON.stringify(line));

const runner = new Runner(requestFoveaDevice);
say({ adapter: describeAdapter(await runner.device()), engine: `Deno ${version.deno}` });
let rest = "";
for await (const chunk of stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop() ?? "";
  for (const path of lines) say(await runner.run(await readTextFile(path)));
}
