// The vectors of a folder.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import { FoveaError } from "../../src/index.ts";
import { type Header, parseHeader } from "./vector.ts";

/** One vector's file, and what it says of itself. */
export interface Case extends Header {
  /** The path from the folder on, with forward slashes. */
  readonly file: string;
  readonly path: string;
}

/**
 * Returns the cases of a folder: those of its manifest.json, or else all JSON files in it. Refuses
 * what isn't such a folder.
 */
export function casesOf(folder: string): Case[] {
  if (!existsSync(folder))
    throw new FoveaError("file", `there is no folder ${folder} with vectors.`);
  const manifest = join(folder, "manifest.json");
  const files = existsSync(manifest) ? listed(manifest) : found(folder);
  return files.map((file) => ({
    file,
    path: resolve(folder, file),
    ...headerOf(resolve(folder, file)),
  }));
}

function listed(manifest: string): string[] {
  try {
    return JSON.parse(readFileSync(manifest, "utf8")).map((entry: { file?: unknown }) => {
      if (typeof entry?.file !== "string")
        throw new Error(`${JSON.stringify(entry)} names no file`);
      return entry.file;
    });
  } catch (cause) {
    throw new FoveaError(
      "file",
      `${manifest} is no list of vectors: ${(cause as Error).message}.`,
      { cause },
    );
  }
}

const found = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".json"))
    .map((file) => relative(folder, join(folder, file)).split(sep).join("/"))
    .sort();

/** A file that can't be read is a case as well, which fails when it is run. */
function headerOf(path: string): Header {
  try {
    return parseHeader(readFileSync(path, "utf8"));
  } catch {
    return { op: "unknown", opset: null, dtype: "none" };
  }
}
