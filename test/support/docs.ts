// The programs in prose.

/** The TypeScript blocks of a Markdown text. */
export const programs = (markdown: string): string[] =>
  [...markdown.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]);

/** The examples in the doc comments of a source. */
export const examples = (source: string): string[] =>
  [...source.matchAll(/^ \* @example\n((?: \*(?: .*)?\n)+?)(?= \*\/| \* @)/gm)].map((match) =>
    match[1].replace(/^ \* ?/gm, ""),
  );
