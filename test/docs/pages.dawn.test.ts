// Runs the programs of the README and of docs/ as they stand, in Node on Dawn, with a navigator
// that has WebGPU; and checks the links of all pages.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, normalize, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { failOnGpuErrors, gpu, overridden } from "../support/device.ts";
import { pagesOf, programs } from "../support/docs.ts";

failOnGpuErrors();

const root = resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "fovea-readme-"));

/**
 * An entry that gives one device to all programs that ask for the same, since they share kernels.
 */
function sharing(entry: GPU): GPU {
  const devices = new Map<string, Promise<GPUDevice>>();
  return overridden(entry, {
    async requestAdapter(options: GPURequestAdapterOptions) {
      const adapter = await entry.requestAdapter(options);
      if (!adapter) return null;
      return overridden(adapter, {
        requestDevice(descriptor: GPUDeviceDescriptor) {
          const asked = JSON.stringify([options, descriptor]);
          const device = devices.get(asked) ?? adapter.requestDevice(descriptor);
          devices.set(asked, device);
          return device;
        },
      });
    },
  });
}

beforeAll(async () => vi.stubGlobal("navigator", { gpu: sharing(await gpu) }));
afterAll(() => {
  vi.unstubAllGlobals();
  rmSync(folder, { recursive: true, force: true });
});

const pages = pagesOf(root);
const read = (page: string) => readFileSync(join(root, page), "utf8");

describe("programs of the pages", () => {
  const texts = pages.flatMap((page) =>
    programs(read(page)).map((text, index) => ({ text, name: `program ${index + 1} of ${page}` })),
  );

  it("are there: the README has three", () => {
    expect(programs(read("README.md"))).toHaveLength(3);
    expect(texts.length).toBeGreaterThanOrEqual(12);
  });
  it.each(texts)("$name runs", async ({ text, name }) => {
    const webgpu = pathToFileURL(createRequire(import.meta.url).resolve("webgpu")).href;
    const file = join(folder, `${name.replace(/\W+/g, "-")}.ts`);
    const places = {
      fovea: join(root, "src/index.ts"),
      "fovea/onnx": join(root, "src/interop/onnx/index.ts"),
      "fovea/training": join(root, "src/training/index.ts"),
      "fovea/models": join(root, "src/models/index.ts"),
      webgpu,
    };
    const placed = Object.entries(places).reduce(
      (all, [from, to]) => all.replaceAll(`"${from}"`, JSON.stringify(to)),
      text,
    );
    writeFileSync(file, placed);
    const printed: unknown[] = [];
    const log = vi
      .spyOn(console, "log")
      .mockImplementation((...values) => printed.push(values.at(-1)));
    await import(/* @vite-ignore */ file);
    log.mockRestore();
    if (!text.includes("console.log")) return;
    expect(printed).toHaveLength(1);
    expect(printed[0]).toBeInstanceOf(Float32Array);
    expect((printed[0] as Float32Array).every((value) => value > 0 && value < 1)).toBe(true);
  });
});

describe("links of the pages", () => {
  /** Returns the anchors of a page, as GitHub makes them of its headings. */
  const anchors = (page: string) =>
    [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading
        .toLowerCase()
        .replace(/[^\w\s-]/g, "")
        .replaceAll(" ", "-"),
    );
  /** Whether a path matches an entry of package.json's files, in which * stands for any name. */
  const matchesGlob = (path: string, entry: string) =>
    new RegExp(`^${entry.replace(/\./g, "\\.").replace("*", "[^/]*")}$`).test(path);
  const { files } = JSON.parse(read("package.json")) as { files: readonly string[] };
  const isPublished = (path: string) =>
    path === "README.md" ||
    path === "LICENSE" ||
    files.some((entry) => matchesGlob(path, entry) || path.startsWith(`${entry}/`));

  it.each(pages)("of %s lead to files and headings that are there, in the package, too", (page) => {
    for (const [, target] of read(page).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [path, anchor] = target.split("#");
      const file = path ? normalize(join(dirname(page), path)) : page;
      expect(existsSync(join(root, file)), `${page}: ${target}`).toBe(true);
      if (anchor !== undefined) expect(anchors(file), `${page}: ${target}`).toContain(anchor);
      if (isPublished(page))
        expect(isPublished(file), `${page}: ${target} is not published`).toBe(true);
    }
  });

  it("show that the README is short enough to read", () => {
    expect(read("README.md").split("\n").length).toBeLessThanOrEqual(151);
  });
});
