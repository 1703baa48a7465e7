// Writes what PyTorch needs to train a system as it is trained here: the first parameters, the
// batches of all steps, and the test data. `node scripts/run.mjs test/torch/export.ts SYSTEM FOLDER
// [--seed N] [--steps N]`, and then `python3 test/torch/train.py FOLDER`.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openDawn } from "../../bench/dawn.ts";
import { type Context, positive } from "../../bench/start.ts";
import { SYSTEMS } from "../../demo/systems/index.ts";
import { FoveaError } from "../../src/index.ts";
import type { Batch } from "../../src/training/index.ts";

/** Tensors of one name in all batches, one after the other. */
interface Stored {
  readonly dtype: "float32" | "int32";
  readonly shape: readonly number[];
}

export async function main({ args }: Context): Promise<number> {
  const options = { seed: { type: "string", default: "1" }, steps: { type: "string" } } as const;
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [name, folder] = positionals;
  const system = SYSTEMS.find((one) => one.name === name);
  if (!system || !folder) throw new FoveaError("argument", "give a system and a folder.");
  const seed = positive("--seed", values.seed);
  const steps = values.steps === undefined ? system.steps : positive("--steps", values.steps);
  const { device } = await openDawn();
  const session = await system.start(device, { seed });
  mkdirSync(folder, { recursive: true });
  const write = (file: string, batches: readonly Batch[], dtypes: ReadonlyMap<string, string>) => {
    const parts: Buffer[] = [];
    const stored: Record<string, Stored> = {};
    for (const key of Object.keys(batches[0])) {
      const isFloat = dtypes.get(key) === "f32";
      for (const batch of batches) {
        const elements = Array.from(batch[key] as ArrayLike<number>);
        const typed = isFloat ? Float32Array.from(elements) : Int32Array.from(elements);
        parts.push(Buffer.from(typed.buffer));
      }
      const each = (batches[0][key] as ArrayLike<number>).length;
      stored[key] = { dtype: isFloat ? "float32" : "int32", shape: [batches.length, each] };
    }
    writeFileSync(join(folder, `${file}.bin`), Buffer.concat(parts));
    return stored;
  };
  const inputs = session.training.program.inputs;
  const dtypes = new Map([...inputs].map(([key, { dtype }]) => [key, dtype]));
  const shapes = Object.fromEntries([...inputs].map(([key, { shape }]) => [key, shape]));
  const batches = Array.from({ length: steps }, (_, step) => session.batch(step));
  const parameters: Record<string, unknown> = {};
  const elements: Buffer[] = [];
  for (const [key, one] of session.training.program.parameters) {
    parameters[key] = one.shape;
    elements.push(Buffer.from((await one.read()).buffer as ArrayBuffer));
  }
  writeFileSync(join(folder, "parameters.bin"), Buffer.concat(elements));
  const test = session.test();
  const manifest = {
    system: name,
    steps,
    shapes,
    testShapes: Object.fromEntries(
      Object.entries(test[0]).map(([key, of]) => [
        key,
        [
          (of as ArrayLike<number>).length / shapes[key].slice(1).reduce((a, b) => a * b, 1),
          ...shapes[key].slice(1),
        ],
      ]),
    ),
    parameters,
    train: write("train", batches, dtypes),
    test: write("test", test, dtypes),
  };
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
  session.destroy();
  return 0;
}
