// The pages of the project, and the programs in them.

import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Lists the pages that users and contributors read, as paths from the root. */
export const pagesOf = (root: string): string[] => [
  ...readdirSync(root).filter((name) => name.endsWith(".md")),
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
  "bench/README.md",
  "shaders/README.md",
];

/** Returns the TypeScript blocks of a Markdown text. */
export const programs = (markdown: string): string[] =>
  [...markdown.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]);

/** Returns the examples in the doc comments of a source. */
export const examples = (source: string): string[] =>
  [...source.matchAll(/^ \* @example\n((?: \*(?: .*)?\n)+?)(?= \*\/| \* @)/gm)].map((match) =>
    match[1].replace(/^ \* ?/gm, ""),
  );
