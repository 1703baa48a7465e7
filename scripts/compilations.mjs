// Adds up what tests compile, for those who want tests to take less time:
//   FOVEA_COMPILATIONS=1 npx vitest run --project dawn >run.log; node scripts/compilations.mjs run.log
// A kernel that compiles beside others counts for its share of the time.

import { readFileSync } from "node:fs";
import { relative } from "node:path";

const MARK = "compilation: ";
/** The most lines of a list. */
const LONGEST = Number(process.argv[3] ?? 25);

/**
 * @typedef {{ file?: string, test?: string, label: string, text: string, size: number,
 *   page: number, started: number, ended: number, seconds: number }} Compilation
 */

/** @type {Compilation[]} */
const all = readFileSync(process.argv[2], "utf8")
  .split("\n")
  .filter((line) => line.startsWith(MARK))
  .map((line) => ({ ...JSON.parse(line.slice(MARK.length)), seconds: 0 }));

/**
 * @template Key
 * @param {readonly Compilation[]} some
 * @param {(one: Compilation) => Key} key
 * @returns {Map<Key, Compilation[]>}
 */
function groups(some, key) {
  const found = new Map();
  for (const one of some) {
    if (!found.has(key(one))) found.set(key(one), []);
    found.get(key(one)).push(one);
  }
  return found;
}

// Between two moments at which a page starts or ends to compile, those under way share the time.
for (const compiled of groups(all, ({ page }) => page).values()) {
  const moments = compiled.flatMap(({ started, ended }) => [started, ended]).sort((a, b) => a - b);
  for (let i = 1; i < moments.length; i++) {
    const under = compiled.filter(
      ({ started, ended }) => started < moments[i] && ended > moments[i - 1],
    );
    for (const one of under) one.seconds += (moments[i] - moments[i - 1]) / 1000 / under.length;
  }
}

/** @param {Iterable<Compilation>} some */
const seconds = (some) => [...some].reduce((total, one) => total + one.seconds, 0);

/** @param {string} title @param {(one: Compilation) => string} key */
function list(title, key) {
  const sorted = [...groups(all, key)].sort((a, b) => seconds(b[1]) - seconds(a[1]));
  console.log(`\n${title}: seconds, compilations, texts`);
  for (const [name, some] of sorted.slice(0, LONGEST)) {
    const texts = new Set(some.map(({ text }) => text)).size;
    console.log(
      `${seconds(some).toFixed(1).padStart(7)} ${`${some.length}`.padStart(5)} ${`${texts}`.padStart(5)} ${name}`,
    );
  }
}

const texts = new Set(all.map(({ text }) => text)).size;
console.log(`${all.length} compilations of ${texts} texts in ${seconds(all).toFixed(1)} seconds`);
list("By file", ({ file = "" }) => relative(process.cwd(), file));
list("By kernel", ({ label }) => label);
list("By test", ({ file = "", test = "" }) => `${relative(process.cwd(), file)}: ${test}`);
list("By text", ({ label, text, size }) => `${label} ${text} of ${size} characters`);
const files = groups(all, ({ text }) => text);
for (const [text, some] of files)
  if (new Set(some.map(({ page }) => page)).size < 2) files.delete(text);
console.log(
  `\n${files.size} texts are compiled by more than one page: ${seconds([...files.values()].flat()).toFixed(1)} seconds`,
);
