// Files of a checkpoint that stay in the browser after they were read for the first time.

import { check, show } from "../errors.ts";
import { readOpfs, removeOpfs, writeOpfs } from "../training/opfs.ts";
import type { FileSource } from "./source.ts";

/** Files are kept in blocks of so many bytes, each with its hash after it. */
const BLOCK = 2 ** 22;
const HASH_BYTES = 32;

/** What is kept of a file beside its blocks: its size, or that there is none. */
interface Known {
  readonly size: number | null;
}

/**
 * A source whose files stay in the origin private file system, below a folder. What was read once
 * comes from there, also without a network; each block is checked by its SHA-256, and read again
 * from the source if it is damaged. A file whose size at the source has changed is read anew.
 *
 * Its promises reject as those of the source do, and with FoveaError("file") where there is no such
 * file system, or no room. `forgetOpfs` deletes what is kept.
 *
 * @param folder Names with "/" between them: `"models/gpt2"`
 *
 * @example
 * const source = opfsSource(urlSource("https://example.com/gpt2"), "models/gpt2");
 * const model = await Model.load(device, source);
 */
export function opfsSource(source: FileSource, folder: string): FileSource {
  check(
    typeof folder === "string" && folder !== "",
    "argument",
    () => `opfsSource: a folder is a path as "models/gpt2", got ${show(folder)}.`,
  );
  const sizes = new Map<string, Promise<number | undefined>>();
  const sizeOf = (name: string) => {
    const size = sizes.get(name) ?? currentSize(source, folder, name);
    sizes.set(name, size);
    size.catch(() => sizes.delete(name));
    return size;
  };
  const block = async (name: string, at: number, size: number) => {
    const path = blockPath(folder, name, at);
    const kept = await checked(await readOpfs(path));
    const begin = at * BLOCK;
    const length = Math.min(BLOCK, size - begin);
    if (kept?.length === length) return kept;
    const bytes = await source.read(name, begin, begin + length);
    const whole = new Uint8Array(length + HASH_BYTES);
    whole.set(bytes);
    whole.set(await hashOf(bytes), length);
    await writeOpfs(path, whole);
    return bytes;
  };
  return {
    label: source.label,
    size: sizeOf,
    async read(name, begin, end) {
      const size = (await sizeOf(name)) ?? 0;
      const result = new Uint8Array(end - begin);
      for (let at = Math.floor(begin / BLOCK); at * BLOCK < end; at++) {
        const bytes = await block(name, at, size);
        const from = Math.max(begin - at * BLOCK, 0);
        const to = Math.min(end - at * BLOCK, bytes.length);
        result.set(bytes.subarray(from, to), at * BLOCK + from - begin);
      }
      return result;
    },
  };
}

/** Deletes what {@link opfsSource} has kept of files below a folder. */
export async function forgetOpfs(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const known = await knownOf(folder, name);
    if (!known) continue;
    await removeBlocks(folder, name, known.size ?? 0);
    await removeOpfs(knownPath(folder, name));
  }
}

/** The size of a file by its source; by what is kept if the source cannot be asked. */
async function currentSize(source: FileSource, folder: string, name: string) {
  const known = await knownOf(folder, name);
  let size: number | undefined;
  try {
    size = await source.size(name);
  } catch (error) {
    if (known) return known.size ?? undefined;
    throw error;
  }
  if (known && known.size === (size ?? null)) return size;
  if (known) await removeBlocks(folder, name, known.size ?? 0);
  const text = JSON.stringify({ size: size ?? null } satisfies Known);
  await writeOpfs(knownPath(folder, name), new TextEncoder().encode(text));
  return size;
}

async function knownOf(folder: string, name: string): Promise<Known | undefined> {
  const bytes = await readOpfs(knownPath(folder, name));
  try {
    const { size } = JSON.parse(new TextDecoder().decode(bytes)) as Known;
    return size === null || Number.isSafeInteger(size) ? { size } : undefined;
  } catch {
    return undefined; // there is none, or it is damaged
  }
}

async function removeBlocks(folder: string, name: string, size: number): Promise<void> {
  for (let at = 0; at * BLOCK < size; at++) await removeOpfs(blockPath(folder, name, at));
}

/** The bytes before a hash, if it is theirs. */
async function checked(whole: Uint8Array<ArrayBuffer> | undefined) {
  if (!whole || whole.length < HASH_BYTES) return undefined;
  const bytes = whole.subarray(0, whole.length - HASH_BYTES);
  const expected = whole.subarray(bytes.length);
  const hash = await hashOf(bytes);
  return hash.every((one, at) => one === expected[at]) ? bytes : undefined;
}

const hashOf = async (bytes: Uint8Array) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));

const knownPath = (folder: string, name: string) => `${folder}/${name}.size`;
const blockPath = (folder: string, name: string, at: number) => `${folder}/${name}.${at}`;
