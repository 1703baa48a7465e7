// `npm run against`: attention of this checkout and of another one, call by call in turns in one
// process, so that a noisy machine slows both alike. Ratios hold even if separate runs tell
// nothing.

import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { FoveaError } from "../src/errors.ts";
import { normal } from "../src/reference/random.ts";
import type { Dims } from "./cost.ts";
import { openDawn } from "./dawn.ts";
import { summarize, type Times } from "./harness.ts";
import { type Context, parse, positive } from "./start.ts";
import { verify } from "./verify.ts";

const HELP = `npm run against -- FOLDER [--turns N] [--case TEXT]

Times attention of this checkout and of the one in FOLDER in turns, call by call, in Node on Dawn. Every result is
compared with the float64 reference first. A call is encoding, submitting and waiting for the GPU.

  --turns N        calls of each (default by the size of the case)
  --case TEXT      only the cases whose name has this text
  --help           this text`;

const OPTIONS = {
  turns: { type: "string" },
  case: { type: "string" },
  help: { type: "boolean" },
} as const;

const WARM_UP = 5;

type Library = typeof import("../src/index.ts");

interface Shape {
  readonly H: number;
  readonly Hkv?: number;
  readonly M: number;
  readonly N: number;
  readonly D?: number;
  readonly turns: number;
}

const CASES: Readonly<Record<string, Shape>> = {
  "small S=16 H=1": { H: 1, M: 16, N: 16, turns: 400 },
  "decode T=1024 H=8": { H: 8, M: 1, N: 1024, turns: 100 },
  "decode T=4096 H=8": { H: 8, M: 1, N: 4096, turns: 60 },
  "decode T=1024 H=32/8": { H: 32, Hkv: 8, M: 1, N: 1024, turns: 100 },
  "decode T=4096 H=32/8": { H: 32, Hkv: 8, M: 1, N: 4096, turns: 40 },
  "prefill S=256 H=8 D=128": { H: 8, M: 256, N: 256, D: 128, turns: 15 },
  "prefill S=512 H=8": { H: 8, M: 512, N: 512, turns: 9 },
};

/** One checkout's way to compute a case. */
async function contestant(library: Library, device: GPUDevice, dims: Dims, data: Float32Array[]) {
  const { B, H, Hkv, M, N, D, Dv, causal } = dims;
  const [q, k, v] = [
    [B, H, M, D],
    [B, Hkv, N, D],
    [B, Hkv, N, Dv],
  ].map((shape, index) => library.tensor(device, shape, { data: data[index] }));
  const output = library.tensor(device, [B, H, M, Dv]);
  const plan = await library.planAttention(device, { q, k, v, output, causal });
  const call = async () => {
    const start = performance.now();
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  const free = () => {
    for (const one of [plan, q, k, v, output]) one.destroy();
  };
  return { call, output, free };
}

export async function main({ args, server }: Context): Promise<number> {
  const { values, positionals } = parse(
    () => parseArgs({ args, options: OPTIONS, allowPositionals: true }),
    HELP,
  );
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [folder = ""] = positionals;
  const other = join(resolve(folder), "src/index.ts");
  if (!folder || !existsSync(other)) {
    throw new FoveaError("argument", `name the folder of another checkout; ${other} is not one's.`);
  }
  const asked = values.turns === undefined ? undefined : positive("--turns", values.turns);
  const { device, adapter, engine } = await openDawn();
  console.log(`${adapter.description}, ${engine}; milliseconds: min, median, p90`);
  const libraries: Readonly<Record<string, Library>> = {
    here: await import("../src/index.ts"),
    there: (await server.ssrLoadModule(other)) as Library,
  };
  let failed = 0;
  for (const [name, { H, Hkv = H, M, N, D = 64, turns }] of Object.entries(CASES)) {
    if (values.case && !name.includes(values.case)) continue;
    const dims: Dims = { B: 1, H, Hkv, M, N, D, Dv: D, causal: M > 1 };
    const sizes = [H * M * D, Hkv * N * D, Hkv * N * D];
    const data = sizes.map((size, seed) => normal(seed + 1, size, 1));
    const names = Object.keys(libraries);
    const made = new Map<string, Awaited<ReturnType<typeof contestant>>>();
    const times = new Map<string, number[]>(names.map((one) => [one, []]));
    for (const one of names) {
      const ready = await contestant(libraries[one], device, dims, data);
      made.set(one, ready);
      for (let call = 0; call < WARM_UP; call++) await ready.call();
      const [q, k, v] = data;
      const { correct, maxError } = verify(dims, { q, k, v }, await ready.output.read());
      if (correct) continue;
      console.error(`${name}: the result of ${one} is wrong by ${maxError}`);
      failed++;
    }
    for (let turn = 0; turn < (asked ?? turns); turn++) {
      // The two take turns at going first.
      for (const one of turn % 2 ? names : [...names].reverse())
        times.get(one)?.push((await made.get(one)?.call()) as number);
    }
    for (const { free } of made.values()) free();
    const [here, there] = names.map((one) => summarize(times.get(one) as number[]));
    const told = ({ min, median, p90 }: Times) =>
      [min, median, p90].map((ms) => ms.toFixed(3).padStart(8)).join(" ");
    const ratios = [here.min / there.min, here.median / there.median];
    console.log(
      `${name.padEnd(24)} here${told(here)}   there${told(there)}   here / there: min ${ratios[0].toFixed(2)}, median ${ratios[1].toFixed(2)}`,
    );
  }
  return failed ? 1 : 0;
}
