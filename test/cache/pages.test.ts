// The pages of a cache, in random histories of entries that append, are cut, share and are freed,
// against plain lists.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PageTables, type PageTablesOptions } from "../../src/cache/paged/pages.ts";
import { FoveaError } from "../../src/index.ts";
import { expectError } from "../support/errors.ts";

/** The expected tokens of every entry. */
interface Model {
  readonly entries: number[][];
}

/**
 * The real tables, and a memory of tokens that is written as a GPU would, page by page and row by
 * row.
 */
class Real {
  readonly options: PageTablesOptions;
  readonly tables: PageTables;
  readonly memory: number[][];
  /** Lists of pages as known to a reader that asks only for what has changed. */
  readonly known: { version: number; pages: readonly number[] }[];
  #token = 0;

  constructor(
    options: PageTablesOptions,
    tables = new PageTables(options),
    memory: number[][] = Array.from({ length: options.pages }, () => []),
  ) {
    this.options = options;
    this.tables = tables;
    this.memory = memory;
    this.known = Array.from({ length: options.entries }, () => ({ version: 0, pages: [] }));
  }

  /** Appends new tokens and returns them, one list for each entry. */
  append(entries: readonly number[], counts: readonly number[]): number[][] {
    const { tables, memory } = this;
    const { pageSize } = this.options;
    const before = entries.map((entry) => tables.length(entry));
    for (const { from, to } of tables.append(entries, counts)) memory[to] = [...memory[from]];
    return entries.map((entry, index) =>
      Array.from({ length: counts[index] }, (_, i) => {
        const position = before[index] + i;
        const page = tables.pages(entry)[Math.floor(position / pageSize)];
        expect(tables.owners(page), `owners of page ${page}, which is written`).toBe(1);
        memory[page][position % pageSize] = ++this.#token;
        return this.#token;
      }),
    );
  }

  tokens(entry: number): number[] {
    const { tables, memory } = this;
    const { pageSize } = this.options;
    const pages = tables.pages(entry);
    return Array.from(
      { length: tables.length(entry) },
      (_, j) => memory[pages[Math.floor(j / pageSize)]][j % pageSize],
    );
  }

  /** Everything that a failed call must leave as it was. */
  state() {
    const { tables, options } = this;
    const entries = Array.from({ length: options.entries }, (_, entry) => [
      tables.length(entry),
      ...tables.pages(entry),
    ]);
    return { entries, free: tables.freePages };
  }

  expectSound({ entries }: Model): void {
    const { tables, options } = this;
    const owners = new Array<number>(options.pages).fill(0);
    for (const [entry, tokens] of entries.entries()) {
      expect(this.tokens(entry), `tokens of entry ${entry}`).toEqual(tokens);
      expect(tables.pages(entry), `pages of entry ${entry}`).toHaveLength(
        Math.ceil(tokens.length / options.pageSize),
      );
      for (const page of tables.pages(entry)) owners[page]++;
    }
    expect(owners.map((_, page) => tables.owners(page))).toEqual(owners);
    expect(owners.filter((count) => count > 0).length + tables.freePages).toBe(options.pages);
  }
}

type Command = fc.Command<Model, Real>;

/** Runs a call that may be refused, and then must have changed nothing. */
function attempted(real: Real, allowed: boolean, call: () => void): boolean {
  const before = real.state();
  try {
    call();
  } catch (error) {
    if (!(error instanceof FoveaError)) throw error;
    expect(real.state()).toEqual(before);
    expect(allowed, error.message).toBe(false);
    return false;
  }
  expect(allowed, "a call that ought to be refused").toBe(true);
  return true;
}

class Append implements Command {
  readonly order: readonly number[];
  readonly counts: readonly number[];

  constructor(order: readonly number[], counts: readonly number[]) {
    this.order = order;
    this.counts = counts;
  }
  check = () => true;
  run(model: Model, real: Real): void {
    const { maxTokens, pageSize, pages } = real.options;
    const entries = this.order.filter((entry) => entry < model.entries.length);
    const counts = entries.map((_, index) => this.counts[index]);
    const lengths = entries.map((entry, index) => model.entries[entry].length + counts[index]);
    // Counts the pages that the entries have afterwards, page by page and not by what changes.
    const kept = new Set<number>();
    let own = 0;
    for (const [entry, tokens] of model.entries.entries()) {
      const at = entries.indexOf(entry);
      const grown = at >= 0 && counts[at] > 0;
      const whole = grown
        ? Math.floor(tokens.length / pageSize)
        : Math.ceil(tokens.length / pageSize);
      for (const page of real.tables.pages(entry).slice(0, whole)) kept.add(page);
      if (grown) own += Math.ceil(lengths[at] / pageSize) - whole;
    }
    const allowed = lengths.every((length) => length <= maxTokens) && kept.size + own <= pages;
    let written: number[][] = [];
    const done = attempted(real, allowed, () => {
      written = real.append(entries, counts);
    });
    if (done)
      for (const [index, entry] of entries.entries()) model.entries[entry].push(...written[index]);
    real.expectSound(model);
  }
  toString = () => `append(${JSON.stringify(this.order)}, ${JSON.stringify(this.counts)})`;
}

class Truncate implements Command {
  readonly entry: number;
  readonly share: number;

  constructor(entry: number, share: number) {
    this.entry = entry;
    this.share = share;
  }
  check = (model: Readonly<Model>) => this.entry < model.entries.length;
  run(model: Model, real: Real): void {
    const tokens = model.entries[this.entry];
    const length = Math.round(tokens.length * this.share);
    if (attempted(real, length <= tokens.length, () => real.tables.truncate(this.entry, length)))
      tokens.length = length;
    real.expectSound(model);
  }
  toString = () => `truncate(${this.entry}, ${this.share} of it)`;
}

class Fork implements Command {
  readonly from: number;
  readonly to: number;
  readonly share: number;

  constructor(from: number, to: number, share: number) {
    this.from = from;
    this.to = to;
    this.share = share;
  }
  check = (model: Readonly<Model>) =>
    this.from < model.entries.length && this.to < model.entries.length;
  run(model: Model, real: Real): void {
    const tokens = Math.round(model.entries[this.from].length * this.share);
    const allowed = this.from !== this.to && model.entries[this.to].length === 0 && this.share <= 1;
    if (attempted(real, allowed, () => real.tables.fork(this.from, this.to, tokens))) {
      model.entries[this.to].push(...model.entries[this.from].slice(0, tokens));
    }
    real.expectSound(model);
  }
  toString = () => `fork(${this.from}, ${this.to}, ${this.share} of it)`;
}

class Reorder implements Command {
  readonly sources: readonly number[];

  constructor(sources: readonly number[]) {
    this.sources = sources;
  }
  check = () => true;
  run(model: Model, real: Real): void {
    const every = model.entries.map((_, entry) => entry);
    const sources = every.map((entry) => this.sources[entry] % every.length);
    real.tables.reorder(every, sources);
    const before = model.entries.map((tokens) => [...tokens]);
    for (const [to, from] of sources.entries()) model.entries[to] = [...before[from]];
    real.expectSound(model);
  }
  toString = () => `reorder(${JSON.stringify(this.sources)})`;
}

/** A command whose changes are all given back. */
class GivenBack implements Command {
  readonly commands: readonly Command[];

  constructor(commands: readonly Command[]) {
    this.commands = commands;
  }
  check = () => true;
  run(model: Model, real: Real): void {
    const { tables } = real;
    const before = { ...real.state(), next: nextPages(tables, real.options) };
    const aside = tables.clone();
    // biome-ignore format: one idea
    const other = new Real(real.options, aside, real.memory.map((page) => [...page]));
    const entries = model.entries.map((tokens) => [...tokens]);
    tables.begin();
    const scratch = new Real(real.options, tables, other.memory);
    for (const command of this.commands) {
      const changed = { entries };
      if (command.check(changed)) command.run(changed, scratch);
    }
    tables.rollBack();
    expect({ ...real.state(), next: nextPages(tables, real.options) }).toEqual(before);
    expect(nextPages(aside, real.options)).toEqual(before.next);
    real.expectSound(model);
  }
  toString = () => `giveBack(${this.commands.map(String).join("; ")})`;
}

/** Returns the pages in the order in which they would be taken. */
function nextPages(tables: PageTables, options: PageTablesOptions): number[] {
  const copy = tables.clone();
  const { pageSize, maxTokens, entries } = options;
  const next: number[] = [];
  for (let entry = 0; entry < entries; entry++) {
    copy.truncate(entry, 0);
    for (let count = Math.min(maxTokens, copy.freePages * pageSize); count > 0; ) {
      copy.append([entry], [count]);
      next.push(...copy.pages(entry));
      count = 0;
    }
  }
  return next;
}

class Ask implements Command {
  readonly entry: number;

  constructor(entry: number) {
    this.entry = entry;
  }
  check = (model: Readonly<Model>) => this.entry < model.entries.length;
  run(_: Model, { tables, known }: Real): void {
    const { version, pages } = known[this.entry];
    const first = tables.firstChanged(this.entry, version);
    const expected = tables.pages(this.entry);
    expect([...pages.slice(0, first), ...expected.slice(first)]).toEqual(expected);
    known[this.entry] = { version: tables.version, pages: [...expected] };
  }
  toString = () => `ask(${this.entry})`;
}

const entry = fc.nat({ max: 4 });
/** Draws a share of an entry's tokens, often none or all. */
const share = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }));
const count = fc.oneof(fc.constantFrom(0, 1, 1, 2), fc.nat({ max: 20 }));
const changes: fc.Arbitrary<Command>[] = [
  fc
    .tuple(fc.shuffledSubarray([0, 1, 2, 3, 4]), fc.array(count, { minLength: 5, maxLength: 5 }))
    .map(([order, counts]) => new Append(order, counts)),
  fc.tuple(entry, share).map(([at, kept]) => new Truncate(at, kept)),
  entry.map((at) => new Truncate(at, 0)),
  fc.tuple(entry, entry, share).map(([from, to, kept]) => new Fork(from, to, kept)),
  fc.array(entry, { minLength: 5, maxLength: 5 }).map((sources) => new Reorder(sources)),
];
const commands = fc.commands(
  [
    ...changes,
    entry.map((at) => new Ask(at)),
    fc.array(fc.oneof(...changes), { maxLength: 6 }).map((given) => new GivenBack(given)),
  ],
  { maxCommands: 60, size: "max" },
);
const options = fc.record({
  label: fc.constant("cache"),
  entries: fc.integer({ min: 1, max: 5 }),
  pages: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 60 })),
  pageSize: fc.oneof(fc.constantFrom(1, 2, 4), fc.integer({ min: 1, max: 20 })),
  maxTokens: fc.integer({ min: 1, max: 80 }),
});

describe("the pages of a cache", () => {
  it("are never lost, freed twice or written by one of several owners, whatever happens to entries", () => {
    const property = fc.property(options, commands, (given, history) => {
      const model = { entries: Array.from({ length: given.entries }, () => [] as number[]) };
      fc.modelRun(() => ({ model, real: new Real(given) }), history);
    });
    fc.assert(property, { numRuns: 150, seed: 4 });
  });

  const tables = (rest: Partial<PageTablesOptions> = {}) =>
    new PageTables({ label: "cache", entries: 3, pages: 4, pageSize: 4, maxTokens: 12, ...rest });

  it("are handed out in order, and again in that order", () => {
    const made = tables();
    made.append([0], [12]);
    expect(made.pages(0)).toEqual([0, 1, 2]);
    made.truncate(0, 0);
    made.append([1], [9]);
    expect(made.pages(1)).toEqual([0, 1, 2]);
  });

  it("are shared by forks but for the one that is written next, which the last owner keeps", () => {
    const made = tables();
    made.append([0], [6]);
    made.fork(0, 1, 6);
    made.fork(0, 2, 5);
    expect([made.owners(0), made.owners(1), made.freePages]).toEqual([3, 3, 2]);
    expect(made.append([1, 0, 2], [1, 2, 1])).toEqual([
      { from: 1, to: 2 },
      { from: 1, to: 3 },
    ]);
    expect([0, 1, 2].map((at) => made.pages(at))).toEqual([
      [0, 3],
      [0, 2],
      [0, 1],
    ]);
    expect([made.owners(0), made.freePages, made.append([2], [1])]).toEqual([3, 0, []]);
  });

  it("are asked for what has changed", () => {
    const made = tables({ pages: 9 });
    made.append([0], [10]);
    const { version } = made;
    expect([made.firstChanged(0, 0), made.firstChanged(0, version)]).toEqual([0, 3]);
    made.append([0], [2]);
    expect(made.firstChanged(0, version)).toBe(3);
    made.truncate(0, 6);
    expect(made.firstChanged(0, version)).toBe(2);
    made.fork(0, 1, 6);
    made.append([0], [1]); // a copy of page 1
    expect([made.firstChanged(0, version), made.firstChanged(1, version)]).toEqual([1, 0]);
  });

  it("are refused in words", async () => {
    const made = tables();
    made.append([0, 1], [5, 7]);
    await expectError(
      () => made.append([2, 0], [1, 3]),
      "limit",
      "cache: these tokens take 1 more pages, and 0 of 4 are free. Free or truncate entries first, or make a cache with more pages.",
    );
    await expectError(
      () => made.append([0, 1], [1, 6]),
      "limit",
      "cache: entry 1 has 7 tokens and no room for 6 more: an entry holds 12 (maxTokens). Truncate or free it first.",
    );
    await expectError(
      () => made.truncate(1, 8),
      "argument",
      "cache.truncate: entry 1 can be cut to 0 up to 7 tokens, got 8.",
    );
    await expectError(
      () => made.fork(0, 1, 3),
      "argument",
      "cache.fork: entry 1 must be another one than 0, and empty; it has 7 tokens. Free it first.",
    );
    await expectError(
      () => made.fork(1, 2, 7.5),
      "argument",
      "cache.fork: entry 1 has 7 tokens to share, got 7.5.",
    );
  });
});
