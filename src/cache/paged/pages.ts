// Which pages of a cache belong to which of its entries. This is bookkeeping only, without a GPU.

import { check, show } from "../../errors.ts";
import type { Journaled } from "../ledger.ts";
import { PagePool } from "./pool.ts";

/**
 * A page that an entry is about to write and that others own too: its used rows are copied to a
 * page that the entry alone owns.
 */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
}

export interface PageTablesOptions {
  /** The beginning of error messages. */
  readonly label: string;
  readonly entries: number;
  readonly pages: number;
  /** Tokens of a page. */
  readonly pageSize: number;
  /** The most tokens of an entry. */
  readonly maxTokens: number;
}

/**
 * The pages of every entry, in the order of its tokens. Forks share pages; only a page with one
 * owner is written. A method that throws has changed nothing.
 */
export class PageTables implements Journaled<PageTables> {
  readonly #options: PageTablesOptions;
  readonly #pool: PagePool;

  constructor(options: PageTablesOptions, pool = PagePool.of(options.pages)) {
    this.#options = options;
    this.#pool = pool;
  }

  begin(): void {
    this.#pool.begin();
  }

  commit(): void {
    this.#pool.commit();
  }

  rollBack(): void {
    this.#pool.rollBack();
  }

  clone(): PageTables {
    return new PageTables(this.#options, this.#pool.clone());
  }

  /** Pages that no entry has. */
  get freePages(): number {
    return this.#pool.free;
  }

  /** How many entries have a page. */
  owners(page: number): number {
    return this.#pool.owners(page);
  }

  length(entry: number): number {
    return this.#pool.sequence(entry).length;
  }

  /**
   * The pages of an entry: token j is in row j mod pageSize of page number floor(j / pageSize) of
   * the list.
   */
  pages(entry: number): readonly number[] {
    return this.#pool.sequence(entry).pages;
  }

  /** A number that grows with every page that an entry gets. */
  get version(): number {
    return this.#pool.version;
  }

  /**
   * The first index in the list of an entry's pages that has another page since `version`, or the
   * list's length.
   */
  firstChanged(entry: number, version: number): number {
    const { since } = this.#pool.sequence(entry);
    let first = since.length;
    while (first > 0 && since[first - 1] > version) first--;
    return first;
  }

  /**
   * Gives entries, no two of them alike, room for more tokens: `counts[i]` for `entries[i]`.
   * Returns the pages that must be copied before the tokens are written. `label` begins error
   * messages.
   */
  append(
    entries: readonly number[],
    counts: readonly number[],
    label = this.#options.label,
  ): PageCopy[] {
    const { pages, maxTokens } = this.#options;
    for (const [index, entry] of entries.entries()) {
      const { length } = this.#pool.sequence(entry);
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
    for (const [index, entry] of entries.entries()) this.#grow(entry, counts[index], copies);
    return copies;
  }

  /** Takes back all tokens of an entry from number `length` on. */
  truncate(entry: number, length: number): void {
    const { label, pageSize } = this.#options;
    const sequence = this.#pool.sequence(entry);
    check(
      Number.isInteger(length) && length >= 0 && length <= sequence.length,
      "argument",
      () =>
        `${label}.truncate: entry ${entry} can be cut to 0 up to ${sequence.length} tokens, got ${show(length)}.`,
    );
    if (length === sequence.length) return;
    this.#pool.setLength(entry, length);
    const kept = Math.ceil(length / pageSize);
    // The last page is released first, so that pages are taken again in the order in which they
    // stood.
    while (sequence.pages.length > kept) this.#pool.release(this.#pool.pop(entry));
  }

  /** Gives the empty entry `to` the first `tokens` tokens of another one, in the same pages. */
  fork(from: number, to: number, tokens: number): void {
    const { label, pageSize } = this.#options;
    const source = this.#pool.sequence(from);
    const target = this.#pool.sequence(to);
    check(
      target.length === 0 && from !== to,
      "argument",
      () =>
        `${label}.fork: entry ${to} must be another one than ${from}, and empty; it has ${target.length} tokens. Free it first.`,
    );
    check(
      Number.isInteger(tokens) && tokens >= 0 && tokens <= source.length,
      "argument",
      () =>
        `${label}.fork: entry ${from} has ${source.length} tokens to share, got ${show(tokens)}.`,
    );
    if (tokens === 0) return;
    this.#pool.setLength(to, tokens);
    for (const [place, page] of source.pages.slice(0, Math.ceil(tokens / pageSize)).entries()) {
      this.#pool.share(page);
      this.#pool.put(to, place, page);
    }
  }

  /**
   * Gives each of some entries, no two of them alike, the pages of another one of them:
   * `entries[i]` gets those of `sources[i]`.
   */
  reorder(entries: readonly number[], sources: readonly number[]): void {
    const moved = entries
      .map((to, index) => ({ to, from: sources[index] }))
      .filter(({ to, from }) => to !== from)
      .map(({ to, from }) => {
        const { length, pages } = this.#pool.sequence(from);
        return { to, length, pages: [...pages] };
      });
    for (const { pages } of moved) for (const page of pages) this.#pool.share(page);
    for (const { to } of moved) this.truncate(to, 0);
    for (const { to, length, pages } of moved) {
      if (length > 0) this.#pool.setLength(to, length);
      for (const [place, page] of pages.entries()) this.#pool.put(to, place, page);
    }
  }

  /** Pages that an append takes from the pool. */
  #pagesFor(entries: readonly number[], counts: readonly number[]): number {
    const { pageSize } = this.#options;
    let needed = 0;
    // Each owner of a page but the last one needs a copy; the last one writes the page in place.
    const left = new Map<number, number>();
    for (const [index, entry] of entries.entries()) {
      const { length, pages } = this.#pool.sequence(entry);
      needed += Math.ceil((length + counts[index]) / pageSize) - pages.length;
      if (counts[index] === 0 || length % pageSize === 0) continue;
      const page = pages[pages.length - 1];
      const owners = left.get(page) ?? this.#pool.owners(page);
      if (owners > 1) needed++;
      left.set(page, owners - 1);
    }
    return needed;
  }

  #grow(entry: number, count: number, copies: PageCopy[]): void {
    if (count === 0) return;
    const { pageSize } = this.#options;
    const { length, pages } = this.#pool.sequence(entry);
    const last = pages.length - 1;
    if (length % pageSize > 0 && this.#pool.owners(pages[last]) > 1) {
      const copy = { from: pages[last], to: this.#pool.take() };
      this.#pool.release(copy.from);
      this.#pool.put(entry, last, copy.to);
      copies.push(copy);
    }
    const longer = length + count;
    this.#pool.setLength(entry, longer);
    const needed = Math.ceil(longer / pageSize);
    for (let place = pages.length; place < needed; place++)
      this.#pool.put(entry, place, this.#pool.take());
  }
}
