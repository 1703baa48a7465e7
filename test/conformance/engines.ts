// The engines that run vectors: Chromium and Firefox with a page that Vite serves, Node on Dawn,
// and Deno.

import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "vite";
import { openPage } from "../../bench/browser.ts";
import { openDawn } from "../../bench/dawn.ts";
import type { Adapter } from "../../bench/program.ts";
import type { Context } from "../../bench/start.ts";
import { denoProgram, lavapipe } from "../../scripts/deno.mjs";
import { FoveaError } from "../../src/index.ts";
import { openFirefox } from "./firefox.ts";
import { type Outcome, Runner } from "./runner.ts";

/** Something with WebGPU that runs vectors. */
export interface Engine {
  readonly adapter: Adapter;
  /** Its name and version. */
  readonly engine: string;
  /** Runs the vector of a file. Rejects only if the engine itself is gone. */
  run(path: string): Promise<Outcome>;
  close(): Promise<void>;
}

/** Milliseconds after which a vector has failed. Software adapters compile a kernel in seconds. */
const PATIENCE = 300_000;

/**
 * Returns an engine that is opened again if it ends, or is stuck, in the middle of a vector, which
 * has then failed.
 */
export async function lasting(open: () => Promise<Engine>, patience = PATIENCE): Promise<Engine> {
  let current = await open();
  const { adapter, engine } = current;
  const run = async (path: string): Promise<Outcome> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`no answer in ${patience / 1000} seconds`)),
        patience,
      );
    });
    try {
      return await Promise.race([current.run(path), late]);
    } catch (error) {
      await current.close().catch(() => {});
      current = await open();
      return {
        status: "failed",
        message: `the engine ended: ${(error as Error).message}`,
        worst: null,
      };
    } finally {
      clearTimeout(timer);
    }
  };
  return { adapter, engine, run, close: () => current.close() };
}

type Server = Pick<Context, "server" | "root" | "files">;

/** Makes an engine of a page. Vectors reach it as files of the server, one at a time. */
function pageEngine(
  page: Omit<Engine, "run"> & { call<T>(name: string, ...args: unknown[]): Promise<T> },
  { files }: Server,
) {
  const run = async (path: string) => {
    files.set("vector.json", readFileSync(path));
    return page.call<Outcome>("run", "vector.json");
  };
  return { ...page, run };
}

const PAGE = "test/conformance/page/index.html";

async function openChromium(context: Server): Promise<Engine> {
  return pageEngine(await openPage(context.server, () => {}, PAGE), context);
}

async function openFirefoxPage(context: Server): Promise<Engine> {
  return pageEngine(
    await openFirefox(`${context.server.resolvedUrls?.local[0]}${PAGE}`, context.root),
    context,
  );
}

async function openNode(): Promise<Engine> {
  const { device, adapter, engine } = await openDawn();
  const devices = [device]; // others only if it was lost
  const runner = new Runner(async () => devices.pop() ?? (await openDawn()).device);
  return {
    adapter,
    engine,
    run: (path) => runner.run(readFileSync(path, "utf8")),
    close: async () => device.destroy(),
  };
}

/** Opens Deno, on Mesa's software driver if there is one, since that is the one that is tested. */
async function openDeno({ root }: Server): Promise<Engine> {
  if (!lavapipe())
    spawnSync(process.execPath, [join(root, "scripts/setup.mjs"), "--tests"], { stdio: "inherit" });
  const driver = lavapipe();
  const outDir = join(root, "node_modules/.cache/fovea/conformance");
  const lib = {
    entry: join(root, "test/conformance/deno.ts"),
    formats: ["es" as const],
    fileName: "deno",
  };
  // It builds without the config file, whose plugins keep the engine out of what is built on it.
  await build({
    root,
    configFile: false,
    logLevel: "warn",
    build: { outDir, emptyOutDir: true, sourcemap: false, lib },
  });
  const child = spawn(denoProgram(), ["run", "--unstable-webgpu", "-A", join(outDir, "deno.js")], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...(driver && { VK_ICD_FILENAMES: driver }), NO_COLOR: "1" },
  });
  child.stdin.on("error", () => {}); // it has ended, and so have its answers
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done)
      throw new FoveaError("device", "Deno ended before it answered; what it said stands above.");
    return JSON.parse(value);
  };
  const { adapter, engine } = await next();
  return {
    adapter,
    engine,
    run: (path) => {
      child.stdin.write(`${path}\n`);
      return next();
    },
    close: async () => void child.kill(),
  };
}

export const ENGINES = {
  chromium: openChromium,
  firefox: openFirefoxPage,
  deno: openDeno,
  dawn: openNode,
} as const satisfies Readonly<Record<string, (context: Server) => Promise<Engine>>>;
