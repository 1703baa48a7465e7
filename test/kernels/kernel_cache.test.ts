// How many linked kernels are kept, and which.

import { expect, it } from "vitest";
import { KernelCache, MOST_KERNELS } from "../../src/kernels/kernel_cache.ts";
import type { KernelSource } from "../../src/types.ts";

const kernel = (label: string): KernelSource => ({
  label,
  code: "",
  locate: () => ({ module: label, line: 1 }),
  bindings: [],
});

it("keeps the kernels that were asked for last, and makes the others again", () => {
  const cache = new KernelCache<{ readonly text: string }>();
  const made: string[] = [];
  const get = (text: string) =>
    cache.get({ text }, () => {
      made.push(text);
      return kernel(text);
    });
  const first = get("first");
  for (let i = 0; i < 1000; i++) {
    get(`text ${i}`);
    if (i < 900) expect(get("first")).toBe(first);
  }
  expect(made).toHaveLength(1001);
  for (let i = 1000 - MOST_KERNELS; i < 1000; i++) get(`text ${i}`);
  expect(made).toHaveLength(1001);
  get("text 0");
  expect(get("first")).not.toBe(first);
  expect(made.slice(1001)).toEqual(["text 0", "first"]);
});

it("tries a kernel again that could not be loaded, and keeps the one that could", async () => {
  const cache = new KernelCache<string, Promise<KernelSource>>();
  await expect(cache.get("a", () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
  const loaded = cache.get("a", () => Promise.resolve(kernel("a")));
  expect((await loaded).label).toBe("a");
  expect(cache.get("a", () => Promise.reject(new Error("made twice")))).toBe(loaded);
});
