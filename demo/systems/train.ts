// `npm run train`: trains a system in Node, on a GPU or on the software adapter.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { progress } from "../../bench/console.ts";
import { openDawn } from "../../bench/dawn.ts";
import { type Context, describe, parse, positive, writeJson } from "../../bench/start.ts";
import { svgOf } from "../../bench/svg.ts";
import { FoveaError } from "../../src/index.ts";
import { type ProgramBytes, saveParameters } from "../../src/training/index.ts";
import { SYSTEMS } from "./index.ts";
import { type Progress, train } from "./loop.ts";
import { lossPlot, picturePlot } from "./pictures.ts";
import type { Answer, Metrics, System } from "./system.ts";

const HELP = `
npm run train -- SYSTEM [--steps N] [--seed N] [--json FILE] [--output FOLDER]

Trains a small system from the texts on attention, in Node by Dawn, and says what it has learned.

${SYSTEMS.map(({ name, title, steps }) => `  ${name.padEnd(24)}${title} (${steps} steps)`).join("\n")}

  --steps N        steps to train, in all (those named above)
  --every N        steps between two measurements on the test data
  --seed N         of the first parameters and the order of the batches (1)
  --input TEXT     what to ask the model at the end
  --json FILE      losses and measurements as JSON
  --output FOLDER  loss.svg, where the model looks as attention-N.svg, its parameters as
                   model.safetensors, and checkpoint.safetensors to go on from
  --resume FILE    goes on from such a checkpoint
  --help           this text
`;

const OPTIONS = {
  steps: { type: "string" },
  every: { type: "string" },
  seed: { type: "string", default: "1" },
  input: { type: "string" },
  json: { type: "string" },
  output: { type: "string" },
  resume: { type: "string" },
  help: { type: "boolean" },
} as const;

export async function main({ root, args }: Context): Promise<number> {
  const { values, positionals } = parse(
    () => parseArgs({ args, options: OPTIONS, allowPositionals: true }),
    HELP,
  );
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  const system = systemOf(positionals);
  const steps = values.steps === undefined ? system.steps : positive("--steps", values.steps);
  const every = values.every === undefined ? system.every : positive("--every", values.every);
  const seed = positive("--seed", values.seed);
  const checkpoint = values.resume === undefined ? undefined : fileOf(values.resume);
  const { device, adapter, engine } = await openDawn();
  console.log(describe({ adapter, engine }));
  console.log(`${system.title}: ${system.about}\n`);
  const { report, stop } = progress();
  const session = await system.start(device, { seed, checkpoint });
  const { program } = session.training;
  const first = session.training.step;
  const told: Progress[] = [];
  const started = performance.now();
  try {
    report({ steps: Math.max(0, steps - first) });
    for await (const one of train(session, { every }, { steps })) {
      told.push(one);
      const loss = `step ${one.step} of ${steps}, loss ${one.loss.toFixed(4)}`;
      report({ done: 1 });
      if (one.metrics) report({ step: `${loss}; test ${measured(one.metrics)}` });
    }
    stop();
    const seconds = (performance.now() - started) / 1000;
    const answer = await session.answer(values.input);
    const last = told.at(-1);
    console.log(
      `${told.length} steps in ${seconds.toFixed(1)} s; ${program.dispatchCount} dispatches a step, ${(total(program.bytes) / 2 ** 20).toFixed(1)} MiB`,
    );
    if (last?.metrics) console.log(`test: ${measured(last.metrics)}`);
    console.log(`\n${answer.text}`);
    if (values.json)
      writeJson(
        values.json,
        root,
        { adapter, engine },
        {
          system: system.name,
          seed,
          seconds,
          bytes: program.bytes,
          dispatches: program.dispatchCount,
          steps: told,
          answer,
        },
      );
    if (values.output !== undefined) {
      const written = {
        "model.safetensors": await saveParameters(program),
        "checkpoint.safetensors": await session.training.save(),
      };
      save(resolve(values.output), told, answer, written);
    }
    return 0;
  } finally {
    stop();
    session.destroy();
  }
}

function systemOf(positionals: readonly string[]): System {
  const [name, ...others] = positionals;
  const system = SYSTEMS.find((one) => one.name === name);
  if (system && !others.length) return system;
  const names = SYSTEMS.map((one) => one.name).join(", ");
  throw new FoveaError(
    "argument",
    `name one system of ${names}; got ${positionals.join(" ") || "none"}.\n${HELP}`,
  );
}

function fileOf(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new FoveaError("file", `--resume: ${(cause as Error).message}`, { cause });
  }
}

const total = ({ parameters, inputs, computed, workspace }: ProgramBytes) =>
  parameters + inputs + computed + workspace;

const measured = (metrics: Metrics) =>
  Object.entries(metrics)
    .map(([name, value]) => `${name} ${value.toFixed(4)}`)
    .join(", ");

function save(
  folder: string,
  told: readonly Progress[],
  { pictures }: Answer,
  files: Readonly<Record<string, Uint8Array>>,
): void {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, content: string | Uint8Array) =>
    writeFileSync(join(folder, name), content);
  if (told.length)
    write(
      "loss.svg",
      svgOf((canvas) => lossPlot(told, canvas)),
    );
  for (const [index, picture] of pictures.entries())
    write(
      `attention-${index + 1}.svg`,
      svgOf((canvas) => picturePlot(picture, canvas)),
    );
  for (const [name, content] of Object.entries(files)) write(name, content);
}
