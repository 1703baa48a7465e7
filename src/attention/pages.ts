// Which pages of a cache belong to which of its entries. Bookkeeping only: nothing here knows of a GPU.

import { check } from "../errors.ts";

/** Pages with the number of their owners. A page without one is free. */
class PagePool {
  readonly #owners: Uint32Array;
  /** Free pages, the next one to be taken last. */
  readonly #free: number[];

  constructor(pages: number) {
    this.#owners = new Uint32Array(pages);
    this.#free = Array.from({ length: pages }, (_, index) => pages - 1 - index);
  }

  get free(): number {
    return this.#free.length;
  }

  owners(page: number): number {
    return this.#owners[page];
  }

  /** A page that nobody had, with one owner. Callers ask `free` first. */
  take(): number {
    const page = this.#free.pop();
    if (page === undefined) throw new Error("there is no free page"); // a bug of the caller
    this.#owners[page] = 1;
    return page;
  }

  share(page: number): void {
    if (this.#owners[page] === 0) throw new Error(`page ${page} is free and cannot be shared`);
    this.#owners[page]++;
  }

  release(page: number): void {
    if (this.#owners[page] === 0) throw new Error(`page ${page} is released twice`);
    if (--this.#owners[page] === 0) this.#free.push(page);
  }
}

/** A page that an entry is about to write and that others own too: its rows in use are copied to a page of its own. */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
}

interface Sequence {
  length: number;
  readonly pages: number[];
  /** When each page came to its place. Only last ones come and go, so these never fall along the list. */
  readonly since: number[];
}

export interface PageTablesOptions {
  /** How messages begin. */
  readonly label: string;
  readonly entries: number;
  readonly pages: number;
  /** Tokens of a page. */
  readonly pageSize: number;
  /** The most tokens of an entry. */
  readonly maxTokens: number;
}

/**
 * The pages of every entry, in the order of its tokens. Entries that were forked share pages; a page is written by its
 * only owner. Whatever throws has changed nothing.
 */
export class PageTables {
  readonly #options: PageTablesOptions;
  readonly #pool: PagePool;
  readonly #sequences: readonly Sequence[];
  /** Counts changes of pages. */
  #version = 0;

  constructor(options: PageTablesOptions) {
    this.#options = options;
    this.#pool = new PagePool(options.pages);
    this.#sequences = Array.from({ length: options.entries }, () => ({ length: 0, pages: [], since: [] }));
  }

  /** Pages that no entry has. */
  get freePages(): number {
    return this.#pool.free;
  }

  /** Entries that have a page. */
  owners(page: number): number {
    return this.#pool.owners(page);
  }

  length(entry: number): number {
    return this.#sequences[entry].length;
  }

  /** The pages of an entry: token j is in row j mod pageSize of page number floor(j / pageSize) of the list. */
  pages(entry: number): readonly number[] {
    return this.#sequences[entry].pages;
  }

  /** Grows with every page that an entry gets. */
  get version(): number {
    return this.#version;
  }

  /** The first place in the list of an entry's pages that has got another page since a version, or the list's length. */
  firstChanged(entry: number, version: number): number {
    const { since } = this.#sequences[entry];
    let first = since.length;
    while (first > 0 && since[first - 1] > version) first--;
    return first;
  }

  /**
   * Gives entries room for more tokens, `counts[i]` for `entries[i]`, which are different ones. Returns the pages that
   * must be copied before the tokens are written. `label` begins its messages.
   */
  append(entries: readonly number[], counts: readonly number[], label = this.#options.label): PageCopy[] {
    const { pages, maxTokens } = this.#options;
    for (const [index, entry] of entries.entries()) {
      const length = this.#sequences[entry].length;
      check(
        length + counts[index] <= maxTokens,
        "limit",
        () =>
          `${label}: entry ${entry} has ${length} tokens and no room for ${counts[index]} more: an entry holds ${maxTokens} (maxTokens). Truncate or free it first.`,
      );
    }
    const needed = this.#pagesFor(entries, counts);
    check(
      needed <= this.freePages,
      "limit",
      () =>
        `${label}: these tokens take ${needed} more pages, and ${this.freePages} of ${pages} are free. Free or truncate entries first, or make a cache with more pages.`,
    );
    const copies: PageCopy[] = [];
    for (const [index, entry] of entries.entries()) this.#grow(this.#sequences[entry], counts[index], copies);
    return copies;
  }

  /** Takes back all tokens of an entry from number `length` on. */
  truncate(entry: number, length: number): void {
    const { label, pageSize } = this.#options;
    const sequence = this.#sequences[entry];
    check(
      Number.isInteger(length) && length >= 0 && length <= sequence.length,
      "argument",
      () => `${label}.truncate: entry ${entry} can be cut to 0 up to ${sequence.length} tokens, got ${length}.`,
    );
    sequence.length = length;
    const kept = Math.ceil(length / pageSize);
    // From the last one on, so that pages are taken again in the order in which they stood.
    while (sequence.pages.length > kept) {
      this.#pool.release(sequence.pages.pop() as number);
      sequence.since.pop();
    }
  }

  /** Gives the empty entry `to` the first `tokens` tokens of another one, in the same pages. */
  fork(from: number, to: number, tokens: number): void {
    const { label, pageSize } = this.#options;
    const [source, target] = [this.#sequences[from], this.#sequences[to]];
    check(
      target.length === 0 && from !== to,
      "argument",
      () =>
        `${label}.fork: entry ${to} must be another one than ${from}, and empty; it has ${target.length} tokens. Free it first.`,
    );
    check(
      Number.isInteger(tokens) && tokens >= 0 && tokens <= source.length,
      "argument",
      () => `${label}.fork: entry ${from} has ${source.length} tokens to share, got ${tokens}.`,
    );
    target.length = tokens;
    for (const page of source.pages.slice(0, Math.ceil(tokens / pageSize))) {
      this.#pool.share(page);
      this.#set(target, target.pages.length, page);
    }
  }

  /** Pages that an append takes from the pool. */
  #pagesFor(entries: readonly number[], counts: readonly number[]): number {
    const { pageSize } = this.#options;
    let needed = 0;
    // Of the owners of a page the last one that is left writes it in place.
    const left = new Map<number, number>();
    for (const [index, entry] of entries.entries()) {
      const { length, pages } = this.#sequences[entry];
      needed += Math.ceil((length + counts[index]) / pageSize) - pages.length;
      if (counts[index] === 0 || length % pageSize === 0) continue;
      const page = pages[pages.length - 1];
      const owners = left.get(page) ?? this.#pool.owners(page);
      if (owners > 1) needed++;
      left.set(page, owners - 1);
    }
    return needed;
  }

  #grow(sequence: Sequence, count: number, copies: PageCopy[]): void {
    const { pageSize } = this.#options;
    const { length, pages } = sequence;
    const last = pages.length - 1;
    if (count > 0 && length % pageSize > 0 && this.#pool.owners(pages[last]) > 1) {
      const copy = { from: pages[last], to: this.#pool.take() };
      this.#pool.release(copy.from);
      this.#set(sequence, last, copy.to);
      copies.push(copy);
    }
    sequence.length = length + count;
    while (pages.length * pageSize < sequence.length) this.#set(sequence, pages.length, this.#pool.take());
  }

  #set({ pages, since }: Sequence, place: number, page: number): void {
    pages[place] = page;
    since[place] = ++this.#version;
  }
}
