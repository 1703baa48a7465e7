// Files of the origin private file system, where a page keeps checkpoints.

import { check, FoveaError, show } from "../errors.ts";

/**
 * Keeps a file in the browser's origin private file system: `"runs/gpt.safetensors"`. What was
 * there is replaced once all bytes are written, and stays if that fails.
 *
 * Rejects with FoveaError("file") where there is no such file system, or no room.
 */
export async function writeOpfs(path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const { folder, name } = await placeOf(path, true);
  await told(path, async () => {
    const file = await folder.getFileHandle(name, { create: true });
    const stream = await file.createWritable();
    try {
      await stream.write(bytes);
    } catch (error) {
      await stream.abort();
      throw error;
    }
    await stream.close();
  });
}

/** Reads a file of the origin private file system; undefined if there is none at that path. */
export async function readOpfs(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  return absent(async () => {
    const { folder, name } = await placeOf(path, false);
    const file = await (await folder.getFileHandle(name)).getFile();
    return new Uint8Array(await file.arrayBuffer());
  }, path);
}

/** Deletes a file of the origin private file system, if there is one. */
export async function removeOpfs(path: string): Promise<void> {
  await absent(async () => {
    const { folder, name } = await placeOf(path, false);
    await folder.removeEntry(name);
  }, path);
}

/** The folder of a path, made if it is not there, and the name in it. */
async function placeOf(path: string, create: boolean) {
  const names = typeof path === "string" ? path.split("/") : [];
  check(
    names.length > 0 && names.every((name) => name !== "" && name !== "." && name !== ".."),
    "argument",
    () => `a path is names with "/" between them, got ${show(path)}.`,
  );
  const storage = globalThis.navigator?.storage;
  check(
    typeof storage?.getDirectory === "function",
    "file",
    () => `${show(path)}: there is no origin private file system here.`,
  );
  let folder = await storage.getDirectory();
  for (const name of names.slice(0, -1)) folder = await folder.getDirectoryHandle(name, { create });
  return { folder, name: names[names.length - 1] };
}

/** What reading gives, or undefined if the file system says that nothing is there. */
async function absent<Result>(work: () => Promise<Result>, path: string) {
  return told(path, async () => {
    try {
      return await work();
    } catch (error) {
      if ((error as Partial<DOMException>)?.name === "NotFoundError") return undefined;
      throw error;
    }
  });
}

/** Turns errors of the file system into ours. */
async function told<Result>(path: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof FoveaError) throw cause;
    throw new FoveaError("file", `${show(path)}: the file system says: ${cause}`, { cause });
  }
}
