// The law of the house: who may know whom, and what the tree has.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { blankComments } from "../src/shader/source.ts";

const root = resolve(import.meta.dirname, "..");

/** What any room may import. */
const COMMON = [
  "src/types.ts",
  "src/errors.ts",
  "src/given.ts",
  "src/options.ts",
  "src/recent.ts",
  "src/seeded.ts",
  "src/unknown_option.ts",
];
/** Rooms of operations, from the lowest up: each may know those before it. */
const OPERATIONS = ["operations", "positions", "functions", "scores", "attention"].map(
  (room) => `src/${room}`,
);
/** What every operation stands on. */
const GROUND = ["src/plan", "src/kernels", "src/shader", "src/gpu"];
const below = (room: string) => [
  ...OPERATIONS.slice(0, OPERATIONS.indexOf(`src/${room}`)),
  ...GROUND,
  ...COMMON,
];

/**
 * A folder may import from itself and from what stands here: arrows go down only, also those of
 * types and `import()`.
 */
const LAW: Readonly<Record<string, readonly string[]>> = {
  "src/types.ts": [],
  "src/errors.ts": [],
  "src/recent.ts": [],
  "src/seeded.ts": [],
  "src/unknown_option.ts": ["src/errors.ts"],
  "src/given.ts": ["src/errors.ts", "src/unknown_option.ts"],
  "src/options.ts": ["src/given.ts", "src/unknown_option.ts"],
  "src/shader": ["src/types.ts", "src/errors.ts", "shaders"],
  "src/kernels": ["src/shader", "src/types.ts", "src/errors.ts", "src/recent.ts", "shaders"],
  "src/gpu": COMMON,
  "src/plan": ["src/kernels", "src/gpu", ...COMMON],
  "src/files": ["src/gpu", ...COMMON],
  "src/operations": below("operations"),
  "src/positions": below("positions"),
  "src/functions": below("functions"),
  "src/scores": below("scores"),
  "src/attention": below("attention"),
  "src/linear": [...GROUND, ...COMMON],
  "src/tune": [...OPERATIONS, ...GROUND, ...COMMON],
  "src/cache": [...OPERATIONS, ...GROUND, ...COMMON],
  "src/layers": [...OPERATIONS, "src/cache", "src/linear", ...GROUND, ...COMMON],
  "src/training": [
    ...OPERATIONS,
    "src/cache",
    "src/layers",
    "src/linear",
    "src/files",
    ...GROUND,
    ...COMMON,
  ],
  "src/models": [...OPERATIONS, "src/cache", "src/training", "src/files", ...GROUND, ...COMMON],
  // Random numbers for tests come from a development dependency; the package does not have that
  // file.
  "src/reference": ["src/types.ts", "pure-rand"],
  "src/gradients.ts": [...OPERATIONS, "src/layers", "src/linear"],
  "src/losses.ts": ["src/operations"],
  "src/index.ts": [
    "src/gradients.ts",
    "src/losses.ts",
    ...OPERATIONS,
    "src/cache",
    "src/layers",
    "src/linear",
    "src/tune",
    ...GROUND,
    ...COMMON,
  ],
  "src/interop": ["src/index.ts", "src/errors.ts", "src/given.ts", "src/unknown_option.ts"],
};

const files = (folder: string, pattern: RegExp) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => pattern.test(file))
    .map((file) => join(folder, file));

/**
 * Everything that a TypeScript file imports, types and `import()` included, as paths from the root
 * or package names.
 */
function imports(file: string): string[] {
  const text = blankComments(readFileSync(join(root, file), "utf8"));
  const specifiers = [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g)].map(
    ([, specifier]) => specifier,
  );
  return specifiers.map((specifier) => {
    if (!specifier.startsWith(".")) return specifier;
    return relative(root, resolve(join(root, dirname(file)), specifier.replace(/\?\w+$/, "")));
  });
}

/** Files that import each other in a circle, each circle once. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const done = new Set<string>();
  const found: string[][] = [];
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) found.push(path.slice(at));
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

describe("import law", () => {
  const sources = files("src", /\.ts$/);
  it("covers every source file", () => {
    expect(sources.length).toBeGreaterThan(10);
    for (const file of sources) expect(ownerOf(file), file).toBeDefined();
  });

  it("has no file above 300 lines", () => {
    const long = sources.filter(
      (file) => readFileSync(join(root, file), "utf8").split("\n").length > 301,
    );
    expect(long).toEqual([]);
  });

  it("has no line above 100 columns but where a string stands", () => {
    const lines = sources.flatMap((file) => {
      const text = readFileSync(join(root, file), "utf8").split("\n");
      return text.map((line, index) => ({ line, place: `${file}:${index + 1}` }));
    });
    const long = lines.filter(({ line }) => line.length > 100 && !/["'`/].*["'`/]|`/.test(line));
    expect(long.map(({ place }) => place)).toEqual([]);
  });

  it("has no room above 3,900 lines", () => {
    const rooms = new Map<string, number>();
    for (const file of sources) {
      const lines = readFileSync(join(root, file), "utf8").split("\n").length - 1;
      rooms.set(dirname(file), (rooms.get(dirname(file)) ?? 0) + lines);
    }
    expect([...rooms].filter(([, lines]) => lines > 3900)).toEqual([]);
  });

  it("has no folder that the law does not name", () => {
    const folders = new Set(sources.map((file) => file.split("/").slice(0, 2).join("/")));
    expect([...folders].filter((place) => !(place in LAW))).toEqual([]);
  });

  it("sees types, import() and what is exported on, and no comments", () => {
    const file = sources.find((one) => one.endsWith("scores/resolve.ts")) as string;
    expect(imports(file)).toEqual(
      expect.arrayContaining(["src/scores/extension.ts", "src/errors.ts"]),
    );
    expect(imports("src/index.ts")).toContain("src/types.ts");
  });

  it("has no circle of files", () => {
    const graph = new Map(
      sources.map((file) => [file, imports(file).filter((target) => target.endsWith(".ts"))]),
    );
    expect(circles(graph)).toEqual([]);
    const edges: readonly [string, string[]][] = [
      ["a", ["b"]],
      ["b", ["c", "d"]],
      ["c", ["b"]],
      ["d", ["d"]],
    ];
    expect(circles(new Map(edges))).toEqual([["b", "c"], ["d"]]);
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
      const entries = ["index", "reference/index", "training/index", "models/index"].map(
        (name) => `src/${name}.ts`,
      );
      expect(
        outside.filter((target) => !entries.includes(target)),
        file,
      ).toEqual([]);
    }
  });
});

const ownerOf = (file: string) =>
  Object.keys(LAW).find((place) => file === place || file.startsWith(`${place}/`));

describe("the tree", () => {
  it("has nothing at the top but what the house allows", () => {
    const allowed = ["src", "shaders", "test", "bench", "demo", "docs", "scripts"];
    const names = ["package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
    const prose = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "LICENSE", "CHANGELOG.md"];
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
    expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toMatch(
      /"resolved": *"https?:/,
    );
  });
});
