// The files of a checkpoint in a folder, for the commands.

import { existsSync } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import type { FileSource, Tokenizer as ModelTokenizer } from "../../src/models/index.ts";

/** Files of a folder, of which no more is read than is asked for. */
export function folderSource(folder: string): FileSource {
  const path = (name: string) => join(folder, name);
  return {
    label: folder,
    async size(name) {
      return existsSync(path(name)) ? (await stat(path(name))).size : undefined;
    },
    async read(name, begin, end) {
      const file = await open(path(name));
      try {
        const bytes = new Uint8Array(end - begin);
        const { bytesRead } = await file.read(bytes, 0, bytes.length, begin);
        return bytes.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    },
  };
}

/** The tokenizer of a folder; undefined if there is none. */
export async function tokenizerOf(folder: string): Promise<ModelTokenizer | undefined> {
  const json = async (name: string) => {
    const path = join(folder, name);
    return existsSync(path) ? JSON.parse(await readFile(path, "utf8")) : undefined;
  };
  const tokens = await json("tokenizer.json");
  return tokens && new Tokenizer(tokens, (await json("tokenizer_config.json")) ?? {});
}
