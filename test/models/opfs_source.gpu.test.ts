// Checkpoints that stay in the browser.

import { expect, it } from "vitest";
import { bytesSource, forgetOpfs, opfsSource } from "../../src/models/index.ts";
import { readOpfs, writeOpfs } from "../../src/training/opfs.ts";

/** Bytes that differ from block to block. */
const bytesOf = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) * 7 + seed) & 255);

/** A source that counts what is read of it, and can be out of reach. */
function watched(files: Readonly<Record<string, Uint8Array>>) {
  const own = bytesSource(files);
  const state = { read: 0, isAway: false };
  const reach = () => {
    if (state.isAway) throw new Error("no network");
  };
  const source = {
    label: own.label,
    size: async (name: string) => {
      reach();
      return own.size(name);
    },
    read: async (name: string, begin: number, end: number) => {
      reach();
      state.read += end - begin;
      return own.read(name, begin, end);
    },
  };
  return { source, state };
}

const FOLDER = `test/${crypto.randomUUID()}`;
const LENGTH = 2 ** 22 + 1000;

it("reads each block once from its source, then without it, and what is damaged again", async () => {
  const file = bytesOf(LENGTH, 1);
  const { source, state } = watched({ "model.safetensors": file });
  const first = opfsSource(source, FOLDER);
  expect(await first.size("model.safetensors")).toBe(LENGTH);
  expect(await first.size("absent")).toBeUndefined();
  const across = [2 ** 22 - 5, 2 ** 22 + 7] as const;
  expect(await first.read("model.safetensors", ...across)).toEqual(file.slice(...across));
  expect(state.read).toBe(LENGTH);
  state.isAway = true;
  const later = opfsSource(source, FOLDER);
  expect(await later.size("model.safetensors")).toBe(LENGTH);
  expect(await later.size("absent")).toBeUndefined();
  expect(await later.read("model.safetensors", 3, 90)).toEqual(file.slice(3, 90));
  await expect(later.size("other")).rejects.toThrow("no network");
  const path = `${FOLDER}/model.safetensors.1`;
  const block = (await readOpfs(path)) as Uint8Array<ArrayBuffer>;
  block[5] ^= 1;
  await writeOpfs(path, block);
  await expect(later.read("model.safetensors", ...across)).rejects.toThrow("no network");
  state.isAway = false;
  expect(await later.read("model.safetensors", ...across)).toEqual(file.slice(...across));
  expect(state.read).toBe(LENGTH + 1000);
});

it("reads a file anew whose size has changed, and forgets it", async () => {
  const file = bytesOf(500, 2);
  const { source, state } = watched({ "model.safetensors": file });
  const changed = opfsSource(source, FOLDER);
  expect(await changed.read("model.safetensors", 0, 500)).toEqual(file);
  expect(state.read).toBe(500);
  expect(await readOpfs(`${FOLDER}/model.safetensors.1`)).toBeUndefined();
  await forgetOpfs(FOLDER, ["model.safetensors", "absent"]);
  expect(await readOpfs(`${FOLDER}/model.safetensors.0`)).toBeUndefined();
  expect(await readOpfs(`${FOLDER}/model.safetensors.size`)).toBeUndefined();
});
