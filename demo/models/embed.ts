// `npm run embed`: embeddings of sentences by a checkpoint in a folder, and how alike they are.

import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { openDawn } from "../../bench/dawn.ts";
import { type Context, describe, parse, writeJson } from "../../bench/start.ts";
import { FoveaError } from "../../src/index.ts";
import { Model } from "../../src/models/index.ts";
import { folderSource, tokenizerOf } from "./folder.ts";

const HELP = `
npm run embed -- --model FOLDER "text" ["text" ...]

Embeddings of texts by an encoder as MiniLM: the mean of the last rows, of length 1. It prints how
alike the texts are, as the cosine of each pair. The folder has config.json, model.safetensors and
tokenizer.json as Hugging Face keeps them.

  --json FILE   the embeddings as JSON
  --help        this text
`;

const OPTIONS = {
  model: { type: "string" },
  json: { type: "string" },
  help: { type: "boolean" },
} as const;

export async function main({ root, args }: Context): Promise<number> {
  const { values, positionals: texts } = parse(
    () => parseArgs({ args, options: OPTIONS, allowPositionals: true }),
    HELP,
  );
  if (values.help) {
    console.log(HELP.trim());
    return 0;
  }
  if (values.model === undefined || texts.length === 0)
    throw new FoveaError("argument", `give --model and one text or more.\n${HELP}`);
  const folder = resolve(values.model);
  const tokenizer = await tokenizerOf(folder);
  if (!tokenizer) throw new FoveaError("file", `${folder}: there is no tokenizer.json.`);
  const { device, adapter, engine } = await openDawn();
  console.log(describe({ adapter, engine }));
  const model = await Model.load(device, folderSource(folder));
  const encoded = texts.map((text) => {
    const given = tokenizer.encode(text);
    return Array.from("ids" in given ? given.ids : given, Number);
  });
  const begun = performance.now();
  const embeddings = await embeddingsOf(model, encoded);
  console.log(`${texts.length} texts in ${(performance.now() - begun).toFixed(0)} ms\n`);
  for (const [at, text] of texts.entries()) {
    const row = embeddings.map((other) => dot(embeddings[at], other).toFixed(3).padStart(7));
    console.log(`${row.join("")}  ${text}`);
  }
  if (values.json) {
    const told = texts.map((text, at) => ({ text, embedding: [...embeddings[at]] }));
    writeJson(values.json, root, { adapter, engine }, { family: model.family, texts: told });
  }
  model.destroy();
  return 0;
}

/** An embedding of length 1 for each text. */
async function embeddingsOf(
  model: Model,
  texts: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const longest = Math.max(...texts.map(({ length }) => length));
  const padded = (row: readonly number[]) =>
    Array.from({ length: longest }, (_, at) => row[at] ?? 0);
  const inputs = {
    ids: texts.map(padded),
    mask: texts.map((row) => padded(row.map(() => 1))),
  };
  const { sentence_embedding: found } = await model.run(inputs, { sentence: true });
  const [, width] = found.shape;
  return texts.map((_, at) => found.data.slice(at * width, (at + 1) * width));
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, at) => sum + x * b[at], 0);
