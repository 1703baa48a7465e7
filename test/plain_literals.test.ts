// Literals are written out: a literal that is spread into another one, or taken apart as soon as it
// is made, packs lines, and keeps the compiler from seeing unknown names.

import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseAst } from "vite";
import { describe, expect, it } from "vitest";
import { pagesOf } from "./support/docs.ts";

const root = resolve(import.meta.dirname, "..");
const FOLDERS = ["src", "test", "bench", "demo", "scripts"];

interface Node {
  readonly type: string;
  readonly start: number;
  readonly argument?: Node;
  readonly declarations?: readonly { readonly id: Node; readonly init: Node | null }[];
  readonly elements?: readonly (Node | null)[];
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && "type" in value;

/**
 * Finds literals that are spread into a literal of their kind, and lists of names that are declared
 * from a list of values.
 */
function packed(node: Node, parent?: Node): Node[] {
  const own = isSpread(node, parent) || isTuple(node) ? [node] : [];
  const children = Object.values(node).flat().filter(isNode);
  return [...own, ...children.flatMap((child) => packed(child, node))];
}

const isSpread = (node: Node, parent: Node | undefined) =>
  node.type === "SpreadElement" &&
  /^(Object|Array)Expression$/.test(parent?.type ?? "") &&
  node.argument?.type === parent?.type;

const isTuple = ({ declarations = [] }: Node) =>
  declarations.some(({ id, init }) => {
    const values = init?.elements ?? [];
    return (
      id.type === "ArrayPattern" &&
      init?.type === "ArrayExpression" &&
      values.length === id.elements?.length &&
      values.every((value) => value?.type !== "SpreadElement")
    );
  });

/**
 * Returns the packed literals of a text, as "line: text". Most texts have nothing that could be
 * one, and need no parser.
 */
function findings(text: string): string[] {
  if (!/\.\.\.\s*[{[]|\]\s*=\s*\[/.test(text)) return [];
  const lines = text.split("\n");
  return packed(parseAst(text, { lang: "ts" }) as unknown as Node).map(({ start }) => {
    const line = text.slice(0, start).split("\n").length;
    return `${line}: ${lines[line - 1].trim()}`;
  });
}

const sources = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => /\.m?ts$|\.mjs$/.test(file))
    .map((file) => join(folder, file));
const pages = pagesOf(root);

describe("literals are written out", () => {
  it("finds what is packed", () => {
    const text =
      "const a = { ...{ b, c }, ...(d && { e }) };\nconst [f, g] = [1, 2];\nconst [h] = [1, 2];\nx([...[1], ...y]);";
    expect(findings(text).map((line) => line.slice(0, 2))).toEqual(["1:", "2:", "4:"]);
  });

  it.each(FOLDERS)("in %s", (folder) => {
    const files = sources(folder);
    expect(files.length).toBeGreaterThan(0);
    const found = files.flatMap((file) =>
      findings(readFileSync(join(root, file), "utf8")).map((line) => `${file}:${line}`),
    );
    expect(found).toEqual([]);
  });

  it.each(pages)("in the code of %s", (file) => {
    const text = readFileSync(join(root, file), "utf8");
    const blocks = [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)];
    expect(blocks.flatMap(([, block]) => findings(block))).toEqual([]);
  });
});
