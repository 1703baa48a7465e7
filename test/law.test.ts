// The import law of the house: who may know whom. A folder may import from itself and from the folders named here.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");

const LAW: Readonly<Record<string, readonly string[]>> = {
  "src/types.ts": [],
  "src/errors.ts": [],
  "src/recent.ts": [],
  "src/unknown_option.ts": ["src/errors.ts"],
  "src/given.ts": ["src/errors.ts", "src/unknown_option.ts"],
  "src/options.ts": ["src/given.ts", "src/unknown_option.ts"],
  "src/index.ts": ["src/attention", "src/gpu", "src/kernels/slots.ts", "src/types.ts", "src/errors.ts", "src/given.ts"],
  "src/attention": [
    "src/kernels",
    "src/gpu",
    "src/shader",
    "src/types.ts",
    "src/errors.ts",
    "src/given.ts",
    "src/options.ts",
  ],
  "src/kernels": ["src/shader", "src/types.ts", "src/errors.ts", "src/recent.ts", "shaders"],
  "src/shader": ["src/types.ts", "src/errors.ts", "shaders"],
  "src/gpu": ["src/types.ts", "src/errors.ts", "src/given.ts", "src/options.ts", "src/recent.ts"],
  "src/reference": ["src/types.ts"],
  "src/interop": ["src/index.ts", "src/errors.ts", "src/given.ts", "src/unknown_option.ts"],
};

const files = (folder: string, pattern: RegExp) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => pattern.test(file))
    .map((file) => join(folder, file));

/** Everything that a TypeScript file imports, as paths from the root or as package names. */
function imports(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  const specifiers = [...text.matchAll(/^(?:import|export)\b[^;]*?from\s+"([^"]+)"|^import\s+"([^"]+)"/gm)];
  return specifiers.map((match) => {
    const specifier = match[1] ?? match[2];
    if (!specifier.startsWith(".")) return specifier;
    return relative(root, resolve(join(root, dirname(file)), specifier.replace(/\?\w+$/, "")));
  });
}

describe("import law", () => {
  const sources = files("src", /\.ts$/);
  it("covers every source file", () => {
    expect(sources.length).toBeGreaterThan(10);
    for (const file of sources) expect(ownerOf(file), file).toBeDefined();
  });

  it.each(sources)("%s", (file) => {
    const owner = ownerOf(file) as string;
    const forbidden = imports(file).filter((target) => {
      const allowed = [owner, ...LAW[owner]];
      return !allowed.some((place) => target === place || target.startsWith(`${place}/`));
    });
    expect(forbidden).toEqual([]);
  });

  it("the demo uses the public API, and the bench's harness", () => {
    for (const file of files("demo", /\.ts$/)) {
      const outside = imports(file).filter((target) => /^(?:src|shaders|test)\//.test(target));
      expect(
        outside.filter((target) => target !== "src/index.ts" && target !== "src/reference/index.ts"),
        file,
      ).toEqual([]);
    }
  });
});

const ownerOf = (file: string) => Object.keys(LAW).find((place) => file === place || file.startsWith(`${place}/`));

describe("the tree", () => {
  it("has nothing at the top but what the house allows", () => {
    const allowed = ["src", "shaders", "test", "bench", "demo", "scripts"];
    const names = ["package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
    const prose = ["README.md", "LICENSE", "CHANGELOG.md"];
    const built = ["node_modules", "dist"];
    const strangers = readdirSync(root).filter(
      (name) => !name.startsWith(".") && ![...allowed, ...names, ...prose, ...built].includes(name),
    );
    expect(strangers).toEqual([]);
  });

  it("publishes a package without runtime dependencies", () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    expect(manifest.dependencies).toBeUndefined();
    expect(manifest.sideEffects).toBe(false);
  });

  it("records no registry host in the lockfile", () => {
    expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toMatch(/"resolved": *"https?:/);
  });
});
