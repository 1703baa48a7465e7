// Texts with labels: passages of the Brown corpus, each of a genre.

import { loadText } from "./data/load.ts";

/** Ids that are no word: what fills up a text, and a word that no text for training has. */
const PADDING = 0;
const UNKNOWN = 1;

/** A text as a model reads it. */
export interface LabelledText {
  readonly ids: readonly number[];
  readonly label: number;
  readonly text: string;
}

/** Texts for training and for tests. */
export interface Texts {
  readonly labels: readonly string[];
  readonly vocab: number;
  readonly train: readonly LabelledText[];
  readonly test: readonly LabelledText[];
  read(text: string): { readonly words: readonly string[]; readonly ids: readonly number[] };
}

/** Words of a text that are read at most. */
export const LENGTH = 32;
/** How often a word has to stand in texts for training to get an id. */
const LEAST = 3;

const wordsOf = (text: string) =>
  text
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "");

let loaded: Promise<Texts> | undefined;

/** Loads the texts once. */
export function loadTexts(): Promise<Texts> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<Texts> {
  const [first, ...lines] = (await loadText(new URL("./data/genres.bin", import.meta.url))).split(
    "\n",
  );
  const examples = lines.map((line) => {
    const [part, label, text] = line.split("\t");
    return { part, label: Number(label), text };
  });
  const counts = new Map<string, number>();
  for (const { part, text } of examples)
    if (part === "train")
      for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const words = [...counts].filter(([, count]) => count >= LEAST).map(([word]) => word);
  const idOf = new Map(words.map((word, index) => [word, index + 2]));
  const read = (text: string) => {
    const all = wordsOf(text).slice(0, LENGTH);
    return { words: all, ids: all.map((word) => idOf.get(word) ?? UNKNOWN) };
  };
  const chosen = (wanted: string) =>
    examples
      .filter(({ part }) => part === wanted)
      .map(({ text, label }): LabelledText => ({ text, label, ids: read(text).ids }));
  return {
    labels: first.split(" "),
    vocab: words.length + 2,
    train: chosen("train"),
    test: chosen("test"),
    read,
  };
}

/** Texts side by side, as a program takes them. */
export function textBatch(texts: readonly Pick<LabelledText, "ids">[]) {
  const ids = new Int32Array(texts.length * LENGTH).fill(PADDING);
  for (const [row, { ids: own }] of texts.entries()) ids.set(own, row * LENGTH);
  return { ids, lengths: texts.map((text) => text.ids.length) };
}
