// Writes what PyTorch needs to compute the step of bench/training.ts: `node scripts/run.mjs
// test/torch/gpt_step.ts FOLDER`, and then `python3 test/torch/gpt_step.py FOLDER`, which writes
// bench/peers/gpt_step.json.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openDawn } from "../../bench/dawn.ts";
import { COMPARED, GPT_STEP } from "../../bench/peers/gpt.ts";
import type { Context } from "../../bench/start.ts";
import { gptStep } from "../../bench/training.ts";
import { FoveaError } from "../../src/index.ts";

export async function main({ args }: Context): Promise<number> {
  const [folder] = args;
  if (!folder) throw new FoveaError("argument", "give a folder.");
  const { device } = await openDawn();
  const { parameters, ids, targets } = await gptStep(device);
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, "parameters.bin"),
    Buffer.concat(parameters.map(({ data }) => Buffer.from(data.buffer))),
  );
  const shapes = Object.fromEntries(parameters.map(({ name, shape }) => [name, shape]));
  const manifest = {
    sizes: GPT_STEP,
    compared: COMPARED,
    shapes,
    ids: Array.from(ids),
    targets: Array.from(targets),
  };
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
  return 0;
}
