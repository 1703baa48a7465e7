// The types that users see: every option says what it means, every type of a signature has an
// exported name, every compiler from TypeScript 5.4 on can read them, and the README's links lead
// to files that are there.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const types = join(root, "dist/types");
const ENTRIES = [
  "index.d.ts",
  "interop/onnx/index.d.ts",
  "training/index.d.ts",
  "models/index.d.ts",
];
const read = (file: string) => readFileSync(join(types, file), "utf8");

/** Returns the exported names of an entry, and the files that declare them. */
function exportsOf(entry: string): { name: string; file: string }[] {
  const others = [...read(entry).matchAll(/export \* from "([^"]+)"/g)].flatMap(([, from]) =>
    exportsOf(join(dirname(entry), from.replace(/\.[jt]s$/, ".d.ts"))),
  );
  const own = [...read(entry).matchAll(/export (?:type )?\{([^}]*)\} from "([^"]+)"/g)].flatMap(
    ([, names, from]) =>
      names
        .split(",")
        .map((name) => name.trim().replace(/^type /, ""))
        .filter(Boolean)
        .map((name) => ({
          name: name.split(" as ")[0],
          file: join(dirname(entry), from.replace(/\.[jt]s$/, ".d.ts")),
        })),
  );
  return [...others, ...own];
}

/** Returns the lines of a declaration, and first the line before it. */
function declaration(file: string, name: string): string[] {
  const lines = read(file).split("\n");
  const begin = lines.findIndex((line) =>
    new RegExp(`^export (declare )?(interface|class|type|const|function) ${name}\\b`).test(line),
  );
  if (begin < 0) throw new Error(`${file} has no declaration of ${name}`);
  const isBlock = lines[begin].endsWith("{");
  const end = isBlock
    ? lines.findIndex((line, index) => index > begin && line.startsWith("}"))
    : begin;
  return lines.slice(Math.max(0, begin - 1), end + 1);
}

describe("declarations", () => {
  const exported = ENTRIES.flatMap(exportsOf);

  it("tell of every option what it means", () => {
    const bare: string[] = [];
    const options = exported.filter(({ name }) =>
      /(Options|Problem|Settings|KerasSizes|QkvSizes|NewMultiHead)$/.test(name),
    );
    expect(options.length).toBeGreaterThan(30);
    for (const { name, file } of options) {
      const lines = declaration(file, name);
      if (!lines[0].endsWith("*/")) bare.push(name);
      lines.forEach((line, index) => {
        const member = /^ {4}(?:readonly )?("[^"]+"|\w+)\??:/.exec(line);
        if (member && index > 1 && !lines[index - 1].endsWith("*/"))
          bare.push(`${name}.${member[1]}`);
      });
    }
    expect(bare).toEqual([]);
  });

  it("name no type that has no exported name", () => {
    // Names of literal types, of the members of an object, and of a cache's inside, which nobody
    // has to name
    const written = ["fromPyTorch", "glorot", "KvSource", "Kinds", "AttributeKinds"];
    const names = new Set([...written, ...exported.map(({ name }) => name)]);
    const hidden = new Set<string>();
    for (const { name, file } of exported) {
      const imported = [...read(file).matchAll(/^import (?:type )?\{([^}]*)\} from/gm)].flatMap(
        ([, list]) => list.split(",").map((one) => one.trim().replace(/^type /, "")),
      );
      const text = declaration(file, name)
        .slice(1)
        .filter((line) => !/#private|private |@internal/.test(line))
        .join("\n");
      for (const one of imported)
        if (
          !names.has(one) &&
          new RegExp(`\\b${one}\\b`).test(text.replace(/\/\*\*[\s\S]*?\*\//g, ""))
        )
          hidden.add(`${one}, of ${name}`);
    }
    expect([...hidden].sort()).toEqual([]);
  });

  it("have no typed arrays that are generic, as before TypeScript 5.7, and need no types but WebGPU's", () => {
    for (const file of readdirSync(types, { recursive: true, encoding: "utf8" }).filter((name) =>
      name.endsWith(".d.ts"),
    )) {
      expect(read(file), file).not.toMatch(
        /Array<ArrayBuffer|\bNodeJS\b|\bBuffer\b|from "(node|vite)|<reference (?!lib="esnext\.disposable")/,
      );
    }
  });
});

describe("the package", () => {
  const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root,
    encoding: "utf8",
    shell: process.platform === "win32",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const parsed = JSON.parse(listed);
  const [{ files }] = (Array.isArray(parsed) ? parsed : Object.values(parsed)) as [
    { files: { path: string }[] },
  ];
  const paths = new Set(files.map(({ path }) => path));

  it.each([...paths].filter((path) => path.endsWith(".md")))("has what %s links to", (path) => {
    const links = [...readFileSync(join(root, path), "utf8").matchAll(/\]\(([^)#\s]+)/g)].map(
      ([, link]) => link,
    );
    const local = links.filter((link) => !/^https?:/.test(link));
    const missing = local
      .map((link) => normalize(join(dirname(path), link)))
      .filter((file) => !paths.has(file));
    expect(missing).toEqual([]);
  });

  it("is found by tools that know no exports, and names each entry to them", () => {
    const {
      main,
      types: typed,
      typesVersions,
      browser,
      exports,
    } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    expect([main, typed]).toEqual([exports["."].default, exports["."].types]);
    for (const [entry, { types: at, default: file }] of Object.entries(
      exports as Record<string, { types: string; default: string }>,
    )) {
      if (entry === "." || !at) continue;
      expect(typesVersions["*"][entry.slice(2)]).toEqual([at]);
      expect(browser[entry]).toBe(file);
      expect(paths).toContain(file.slice(2));
      expect(paths).toContain(at.slice(2));
    }
  });
});
