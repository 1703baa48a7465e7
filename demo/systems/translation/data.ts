// Pairs of sequences: words and their phonemes, dates in words and in numbers.

import { loadText } from "../data/load.ts";
import { shuffled } from "../order.ts";

/** Ids of every vocabulary that are no piece of a sequence. */
export const PADDING = 0;
export const BEGIN = 1;
export const END = 2;
const FIRST = 3;

/** A sequence and what it becomes, in pieces. */
export interface Pair {
  readonly source: readonly string[];
  readonly target: readonly string[];
}

/** Pairs for training and for tests, and the vocabularies of both sides. */
export interface Pairs {
  readonly train: readonly Pair[];
  readonly test: readonly Pair[];
  readonly sources: readonly string[];
  readonly targets: readonly string[];
  /** Pieces that a source, and a target without its end, may have. */
  readonly sourceLength: number;
  readonly targetLength: number;
  /** Between pieces of a target when people read it. */
  readonly separator: string;
  /** The pieces of what somebody writes. */
  read(text: string): string[];
}

/** How many pairs are kept for tests. */
const TEST = 500;

function pairsOf(all: readonly Pair[], separator: string, read: Pairs["read"]): Pairs {
  const pairs = shuffled(all.length, 17).map((at) => all[at]);
  const pieces = (side: keyof Pair) => [...new Set(all.flatMap((pair) => pair[side]))].sort();
  const longest = (side: keyof Pair) => Math.max(...all.map((pair) => pair[side].length));
  return {
    train: pairs.slice(TEST),
    test: pairs.slice(0, TEST),
    sources: pieces("source"),
    targets: pieces("target"),
    sourceLength: longest("source"),
    targetLength: longest("target"),
    separator,
    read,
  };
}

/** Words of English and their phonemes. */
export async function loadPhonemes(): Promise<Pairs> {
  const text = await loadText(new URL("../data/phonemes.bin", import.meta.url));
  const all = text.split("\n").map((line): Pair => {
    const [word, phonemes] = line.split("\t");
    return { source: [...word], target: phonemes.split(" ") };
  });
  return pairsOf(all, " ", (word) => [...word.toLowerCase()]);
}

/** Dates as `Intl` writes them in English, and as ISO 8601 does. */
export async function loadDates(): Promise<Pairs> {
  const styles = (["long", "medium"] as const).map(
    (dateStyle) => new Intl.DateTimeFormat("en", { dateStyle, timeZone: "UTC" }),
  );
  const day = 24 * 60 * 60 * 1000;
  const first = Date.UTC(1970, 0, 1);
  const all = Array.from({ length: 4500 }, (_, at): Pair => {
    const date = new Date(first + at * 5 * day);
    const source = styles[at % styles.length].format(date).toLowerCase();
    return { source: [...source], target: [...date.toISOString().slice(0, 10)] };
  });
  return pairsOf(all, "", (text) => [...text.toLowerCase()]);
}

/** Ids of pieces; those that the vocabulary does not have are left out. */
export function idsOf(pieces: readonly string[], vocabulary: readonly string[]): number[] {
  return pieces.map((piece) => vocabulary.indexOf(piece) + FIRST).filter((id) => id >= FIRST);
}

/** The piece of an id, or undefined if it is the end or none. */
export const pieceOf = (id: number, vocabulary: readonly string[]): string | undefined =>
  vocabulary[id - FIRST];

/** Entries of a vocabulary of pieces. */
export const vocabularySize = (pieces: readonly string[]): number => pieces.length + FIRST;
