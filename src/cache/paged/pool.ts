// The pages of a cache and the lists of its entries. Every change of them can be taken back.

/** The tokens of an entry. */
export interface Sequence {
  readonly length: number;
  readonly pages: readonly number[];
  /**
   * The version at which each page came to its place. Pages come and go only at the end, so
   * versions never fall along the list.
   */
  readonly since: readonly number[];
}

interface OpenSequence {
  length: number;
  readonly pages: number[];
  readonly since: number[];
}

const NONE: Sequence = { length: 0, pages: [], since: [] };

/** A change, as it is taken back. */
type Change =
  | { readonly kind: "take"; readonly page: number }
  | { readonly kind: "share"; readonly page: number }
  | { readonly kind: "release"; readonly page: number; readonly isFree: boolean }
  | { readonly kind: "length"; readonly entry: number; readonly length: number }
  | { readonly kind: "pop"; readonly entry: number; readonly page: number; readonly since: number }
  | { readonly kind: "push"; readonly entry: number }
  | {
      readonly kind: "place";
      readonly entry: number;
      readonly place: number;
      readonly page: number;
      readonly since: number;
    };

/**
 * Pages with the number of their owners, and the pages of each entry. A page without owners is
 * free. `begin`, `commit` and `rollBack` are as a ledger calls them.
 */
export class PagePool {
  readonly #owners: Uint32Array;
  /** Free pages, the next one to be taken last. */
  readonly #free: number[];
  /** Entries that ever had a token. */
  readonly #sequences: Map<number, OpenSequence>;
  #journal: Change[] | undefined;
  /** How many pages entries ever got. It never falls. */
  #version: number;

  private constructor(
    owners: Uint32Array,
    free: number[],
    sequences: Map<number, OpenSequence>,
    version: number,
  ) {
    this.#owners = owners;
    this.#free = free;
    this.#sequences = sequences;
    this.#version = version;
  }

  static of(pages: number): PagePool {
    const free = Array.from({ length: pages }, (_, index) => pages - 1 - index);
    return new PagePool(new Uint32Array(pages), free, new Map(), 0);
  }

  clone(): PagePool {
    const copies = new Map<number, OpenSequence>();
    for (const [entry, { length, pages, since }] of this.#sequences) {
      copies.set(entry, { length, pages: [...pages], since: [...since] });
    }
    return new PagePool(this.#owners.slice(), [...this.#free], copies, this.#version);
  }

  begin(): void {
    this.#journal = [];
  }

  commit(): void {
    this.#journal = undefined;
  }

  rollBack(): void {
    const journal = this.#journal ?? [];
    this.#journal = undefined;
    for (const change of journal.reverse()) this.#giveBack(change);
  }

  get free(): number {
    return this.#free.length;
  }

  get version(): number {
    return this.#version;
  }

  owners(page: number): number {
    return this.#owners[page];
  }

  sequence(entry: number): Sequence {
    return this.#sequences.get(entry) ?? NONE;
  }

  /** Takes a free page, which then has one owner. Callers ask `free` first. */
  take(): number {
    const page = this.#free.pop();
    if (page === undefined) throw new Error("there is no free page"); // a bug of the caller
    this.#owners[page] = 1;
    this.#journal?.push({ kind: "take", page });
    return page;
  }

  share(page: number): void {
    if (this.#owners[page] === 0) throw new Error(`page ${page} is free and cannot be shared`);
    this.#owners[page]++;
    this.#journal?.push({ kind: "share", page });
  }

  release(page: number): void {
    if (this.#owners[page] === 0) throw new Error(`page ${page} is released twice`);
    const isFree = --this.#owners[page] === 0;
    if (isFree) this.#free.push(page);
    this.#journal?.push({ kind: "release", page, isFree });
  }

  setLength(entry: number, length: number): void {
    const sequence = this.#open(entry);
    this.#journal?.push({ kind: "length", entry, length: sequence.length });
    sequence.length = length;
  }

  /** Puts a page behind those of an entry, or in the place of one. */
  put(entry: number, place: number, page: number): void {
    const { pages, since } = this.#open(entry);
    if (place === pages.length) this.#journal?.push({ kind: "push", entry });
    else
      this.#journal?.push({ kind: "place", entry, place, page: pages[place], since: since[place] });
    pages[place] = page;
    since[place] = ++this.#version;
  }

  /** Takes the last page from an entry. */
  pop(entry: number): number {
    const { pages, since } = this.#open(entry);
    const page = pages.pop() as number;
    const came = since.pop() as number;
    this.#journal?.push({ kind: "pop", entry, page, since: came });
    return page;
  }

  #open(entry: number): OpenSequence {
    let sequence = this.#sequences.get(entry);
    if (!sequence) {
      sequence = { length: 0, pages: [], since: [] };
      this.#sequences.set(entry, sequence);
    }
    return sequence;
  }

  #giveBack(change: Change): void {
    if (change.kind === "take") {
      this.#owners[change.page] = 0;
      this.#free.push(change.page);
    } else if (change.kind === "share") {
      this.#owners[change.page]--;
    } else if (change.kind === "release") {
      this.#owners[change.page]++;
      if (change.isFree) this.#free.pop();
    } else {
      const sequence = this.#open(change.entry);
      if (change.kind === "length") {
        sequence.length = change.length;
      } else if (change.kind === "push") {
        sequence.pages.pop();
        sequence.since.pop();
      } else if (change.kind === "pop") {
        sequence.pages.push(change.page);
        sequence.since.push(change.since);
      } else {
        sequence.pages[change.place] = change.page;
        sequence.since[change.place] = change.since;
      }
    }
  }
}
