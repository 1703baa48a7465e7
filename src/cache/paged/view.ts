// The lengths and page tables that the GPU has for some entries of a paged cache, and the commands
// that bring them up to date.

import { type CacheState, LONGEST_RUN } from "../state.ts";
import type { PageTables } from "./pages.ts";

/** Stands for an unknown length, page number or entry. */
const UNKNOWN = -1;

/**
 * The lengths and page tables of some entries, as the GPU will have them once it has run what is
 * encoded. `update` encodes what differs from the tables. Words in a row that are equal, or that
 * count up by one, take one command.
 */
export class PageView {
  readonly #state: CacheState;
  readonly #words: Int32Array;
  readonly #stride: number;
  /** The entry of each row at the last update; `#version` is that of the tables then. */
  readonly #entries: Int32Array;
  #version = 0;
  // The run of words that is being collected, which will be one command.
  #at = 0;
  #value = 0;
  #step = 0;
  #count = 0;

  constructor(state: CacheState) {
    this.#state = state;
    this.#stride = 1 + state.pagesPerEntry;
    this.#words = new Int32Array(state.countsAt);
    this.#entries = new Int32Array(state.batch).fill(UNKNOWN);
  }

  /**
   * Encodes commands that bring the GPU up to date for these entries. `counts` are tokens of each
   * entry that are in the tables already, and that the GPU will add to the lengths by the next
   * command. If this throws, the next update tells the GPU everything.
   */
  update(
    pass: GPUComputePassEncoder,
    tables: PageTables,
    entries: readonly number[],
    counts: readonly number[] = [],
  ): void {
    try {
      this.#update(pass, tables, entries, counts);
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /**
   * Makes the next update tell the GPU everything, because it may not have run the commands that
   * were encoded.
   */
  forget(): void {
    this.#words.fill(UNKNOWN);
    this.#entries.fill(UNKNOWN);
    this.#count = 0;
  }

  #update(
    pass: GPUComputePassEncoder,
    tables: PageTables,
    entries: readonly number[],
    counts: readonly number[],
  ): void {
    for (let index = 0; index < entries.length; index++) {
      const entry = entries[index];
      const at = 1 + index * this.#stride;
      const pages = tables.pages(entry);
      const length = tables.length(entry);
      const added = counts[index] ?? 0;
      this.#set(pass, at, length - added);
      this.#words[at] = length;
      const first = this.#entries[index] === entry ? tables.firstChanged(entry, this.#version) : 0;
      for (let page = first; page < pages.length; page++)
        this.#set(pass, at + 1 + page, pages[page]);
      this.#entries[index] = entry;
    }
    this.#flush(pass);
    this.#version = tables.version;
  }

  #set(pass: GPUComputePassEncoder, at: number, value: number): void {
    if (this.#words[at] === value) return;
    this.#words[at] = value;
    if (this.#count > 0 && at === this.#at + this.#count && this.#count < LONGEST_RUN) {
      const step = this.#count === 1 ? value - this.#value : this.#step;
      if ((step === 0 || step === 1) && value === this.#value + this.#count * step) {
        this.#step = step;
        this.#count++;
        return;
      }
    }
    this.#flush(pass);
    this.#at = at;
    this.#value = value;
    this.#step = 0;
    this.#count = 1;
  }

  #flush(pass: GPUComputePassEncoder): void {
    if (this.#count > 0) this.#state.write(pass, this.#at, this.#count, this.#value, this.#step);
    this.#count = 0;
  }
}
