// Suite `start`: how long a page waits for its first result, from the import of the built package
// on. Every measurement opens a new browser, since browsers keep what they compiled.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { build } from "vite";
import { check, FoveaError } from "../src/errors.ts";
import { launchPage } from "./browser.ts";
import { bytesOf, type Dims, flopsOf } from "./cost.ts";
import { type Measurement, summarize } from "./harness.ts";
import { inputs } from "./inputs.ts";
import type { Phases, Start } from "./page/start_up.ts";
import type { Report } from "./program.ts";
import type { Context } from "./start.ts";
import { type Verdict, verify } from "./verify.ts";

const eightHeads = { B: 1, H: 8, Hkv: 8, D: 64, Dv: 64 };
const CASES: readonly { readonly name: string; readonly dims: Dims }[] = [
  { name: "prefill S=512 H=8 D=64", dims: { ...eightHeads, M: 512, N: 512, causal: false } },
  { name: "decode T=1024 H=8 D=64", dims: { ...eightHeads, M: 1, N: 1024, causal: true } },
];

/** The second implementation compiles ahead, and is timed from the plan on. */
const IMPLEMENTATIONS = ["fovea", "fovea, prewarmed"] as const;

/** More starts than these say nothing new, and each takes seconds. */
const MOST_ROUNDS = 5;
const SEED = 11;

/**
 * Starts the package as built, again and again. @param args The flags with which a browser finds
 * its adapter.
 */
export async function startUp(
  { server, root, files }: Context,
  args: readonly string[],
  rounds: number,
  report: Report,
): Promise<Measurement[]> {
  for (const [name, code] of await application(root)) files.set(name, Buffer.from(code));
  const address = server.resolvedUrls?.local[0] as string;
  const found = CASES.flatMap((one) =>
    IMPLEMENTATIONS.map((impl) => ({ ...one, impl, starts: [] as Start[] })),
  );
  const verdicts = new Map<(typeof found)[number], Verdict>();
  const count = Math.min(rounds, MOST_ROUNDS);
  report({ steps: count * found.length });
  for (let round = 0; round < count; round++) {
    for (const entry of found) {
      report({ step: `start: ${entry.name}, ${entry.impl}` });
      const { browser, page } = await launchPage(
        args,
        `${address}bench/page/start_up.html`,
        "startUp",
      );
      try {
        const warm = entry.impl !== "fovea";
        const start = await page.evaluate(
          ([url, dims, seed, warm]) => window.startUp(url, dims, seed, warm),
          [`${address}files/application.js`, entry.dims, SEED, warm] as const,
        );
        entry.starts.push(start);
      } catch (error) {
        throw new FoveaError("device", `start: ${entry.name}: ${(error as Error).message}`, {
          cause: error,
        });
      } finally {
        await browser.close();
      }
      const output = new Float32Array(new Uint8Array(files.get("output") as Uint8Array).buffer);
      // One wrong result counts, whatever the other results are.
      if (verdicts.get(entry)?.correct ?? true) {
        verdicts.set(entry, verify(entry.dims, inputs(entry.dims, SEED), output, 3e7));
      }
      report({ done: 1 });
    }
  }
  return found.map((entry) => measurementOf(entry, verdicts.get(entry) as Verdict, count));
}

/**
 * Returns what an application's bundler makes of the built package, file by file; `application.js`
 * comes first.
 */
async function application(root: string): Promise<[name: string, code: string][]> {
  const built = join(root, "dist/index.js");
  check(
    existsSync(built),
    "file",
    () => `start: the package is not built: there is no ${built}. Run npm run build.`,
  );
  const source = `export { planAttention, prewarm, requestFoveaDevice, tensor } from ${JSON.stringify(built)};`;
  const id = "application";
  const result = await build({
    root,
    configFile: false,
    logLevel: "silent",
    plugins: [
      {
        name: id,
        resolveId: (name) => (name === id ? id : null),
        load: (name) => (name === id ? source : null),
      },
    ],
    build: {
      write: false,
      modulePreload: false,
      rolldownOptions: {
        input: { application: id },
        preserveEntrySignatures: "strict",
        output: { entryFileNames: "[name].js", chunkFileNames: "[name].js" },
      },
    },
  });
  const { output } = result as { output: { fileName: string; code?: string }[] };
  return output.flatMap(({ fileName, code }) => (code === undefined ? [] : [[fileName, code]]));
}

function measurementOf(
  {
    name,
    impl,
    dims,
    starts,
  }: { name: string; impl: string; dims: Dims; starts: readonly Start[] },
  verdict: Verdict,
  rounds: number,
): Measurement {
  const counted: readonly (keyof Phases)[] =
    impl === "fovea" ? ["import", "device", "plan", "run"] : ["plan", "run"];
  const ms = summarize(
    starts.map(({ phases }) => counted.reduce((sum, phase) => sum + (phases[phase] ?? 0), 0)),
  );
  const names = Object.keys(starts[0].phases) as (keyof Phases)[];
  const median = (phase: keyof Phases) =>
    summarize(starts.map(({ phases }) => phases[phase] as number)).median;
  const { kernel, workspaceBytes } = starts[0];
  return {
    suite: "start",
    case: name,
    impl,
    kernel,
    ms,
    rounds,
    workspaceBytes,
    dims,
    verdict,
    timing: "wall-clock",
    gflops: flopsOf(dims) / ms.median / 1e6,
    gbps: bytesOf(dims) / ms.median / 1e6,
    maxError: verdict.maxError,
    correct: verdict.correct,
    phases: Object.fromEntries(names.map((phase) => [phase, median(phase)])),
  };
}
