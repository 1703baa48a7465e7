// `npm run generate`: goes on with a text by a checkpoint in a folder, in Node by Dawn.

import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { openDawn } from "../../bench/dawn.ts";
import { type Context, describe, parse, positive, writeJson } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import {
  type CacheOptions,
  type GeneratedToken,
  type GenerateOptions,
  generate,
  Model,
} from "../../src/models/index.ts";
import { folderSource, tokenizerOf } from "./folder.ts";

const HELP = `
npm run generate -- --model FOLDER "prompt"
npm run generate -- --model FOLDER --ids "1 410 29"

Goes on with a text. The folder has config.json and model.safetensors as Hugging Face keeps them, and
for texts tokenizer.json; without it, prompts are ids and so is what comes.

  --max-new-tokens N       (256, or what there is room for)
  --temperature X          0 takes the likeliest token (0)
  --top-k N, --top-p X, --min-p X, --repetition-penalty X
  --seed N                 of the draws (0)
  --stop TEXT              ends there; may be repeated. Default: the ids of the config
  --no-stop                goes on to the last token
  --cache KIND             contiguous, or paged (contiguous)
  --cache-dtype DTYPE      f32, f16, bf16, int8 or int4 (f32)
  --json FILE              tokens, logprobs and times as JSON
  --help                   this text
`;

const OPTIONS = {
  model: { type: "string" },
  ids: { type: "string" },
  "max-new-tokens": { type: "string" },
  temperature: { type: "string" },
  "top-k": { type: "string" },
  "top-p": { type: "string" },
  "min-p": { type: "string" },
  "repetition-penalty": { type: "string" },
  seed: { type: "string" },
  stop: { type: "string", multiple: true },
  "no-stop": { type: "boolean" },
  cache: { type: "string" },
  "cache-dtype": { type: "string" },
  json: { type: "string" },
  help: { type: "boolean" },
} as const;

const NUMBERS = ["temperature", "top-k", "top-p", "min-p", "repetition-penalty", "seed"] as const;

export async function main({ root, args }: Context): Promise<number> {
  const { values, positionals } = parse(
    () => parseArgs({ args, options: OPTIONS, allowPositionals: true }),
    HELP,
  );
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  if (values.model === undefined) throw new FoveaError("argument", `--model is missing.\n${HELP}`);
  const folder = resolve(values.model);
  const tokenizer = await tokenizerOf(folder);
  const prompt = promptOf(positionals, values.ids);
  const { device, adapter, engine } = await openDawn();
  console.log(describe({ adapter, engine }));
  const begun = performance.now();
  const model = await Model.load(device, folderSource(folder));
  const loaded = performance.now();
  const mebibytes = (model.bytes / 2 ** 20).toFixed(1);
  console.log(`${model.family}, ${mebibytes} MiB, loaded in ${seconds(begun, loaded)}\n`);
  const most = values["max-new-tokens"];
  const options: GenerateOptions = {
    ...Object.fromEntries(
      NUMBERS.filter((name) => values[name] !== undefined).map((name) => [
        camelCase(name),
        numberOf(`--${name}`, values[name] as string),
      ]),
    ),
    cache: cacheOf(values),
    ...(most !== undefined && { maxNewTokens: positive("--max-new-tokens", most) }),
    ...(values["no-stop"] ? { stop: [] } : values.stop && { stop: values.stop }),
    ...(tokenizer && { tokenizer }),
  };
  const tokens: GeneratedToken[] = [];
  let first = Number.NaN;
  for await (const one of generate(model, prompt, options)) {
    if (tokens.length === 0) first = performance.now();
    process.stdout.write(tokenizer ? one.text : `${one.token} `);
    tokens.push(one);
  }
  const end = performance.now();
  const rate = ((tokens.length - 1) / (end - first)) * 1000;
  console.log(
    `\n\n${tokens.length} tokens; the first after ${seconds(loaded, first)}, then ${rate.toFixed(1)} a second`,
  );
  if (values.json) {
    writeJson(
      values.json,
      root,
      { adapter, engine },
      {
        family: model.family,
        tokens: tokens.map(({ token, logprob, text }) => ({ token, logprob, text })),
        firstMilliseconds: first - loaded,
        tokensPerSecond: rate,
      },
    );
  }
  model.destroy();
  return 0;
}

function promptOf(positionals: readonly string[], ids: string | undefined): string | number[] {
  if ((ids === undefined) === (positionals.length === 0) || positionals.length > 1)
    throw new FoveaError("argument", `give one prompt, or --ids.\n${HELP}`);
  if (ids === undefined) return positionals[0];
  const list = ids.split(/[\s,]+/).filter(Boolean);
  return list.map((one) => numberOf("--ids", one));
}

function cacheOf(values: { readonly cache?: string; readonly "cache-dtype"?: string }) {
  const { cache: kind, "cache-dtype": dtype } = values;
  return { ...(kind && { kind }), ...(dtype && { dtype }) } as CacheOptions;
}

function numberOf(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new FoveaError("argument", `${name} takes numbers, got ${text}.`);
}

const camelCase = (name: string) => name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase());
const seconds = (from: number, to: number) => `${((to - from) / 1000).toFixed(2)} s`;
