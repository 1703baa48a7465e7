// How many tokens the entries of a contiguous cache have, and what its ring has lost. This is
// bookkeeping only, without a GPU.

import { check, show } from "../errors.ts";
import type { Journaled } from "./ledger.ts";

/** The properties of a cache that the bookkeeping depends on. */
export type LengthRules = {
  readonly label: string;
  readonly batch: number;
  /**
   * Rows of the ring, which are used again, 0 if there is none; `sinkTokens` are the rows before
   * it.
   */
  readonly ring: number;
  readonly sinkTokens: number;
  /** For a ring, how many keys before its own position a query sees. */
  readonly window: number | undefined;
};

interface Tokens {
  /**
   * The most tokens of an entry now; `maxCapacity` is the most after the cache has grown by itself.
   */
  readonly capacity: number;
  readonly maxCapacity: number;
  readonly lengths: readonly number[];
  /** The most tokens that each entry had since it was empty: what a ring has lost depends on it. */
  readonly peaks: readonly number[];
}

/** The tokens of each entry. A method that throws has changed nothing. */
export class CacheLengths implements Journaled<CacheLengths> {
  readonly #rules: LengthRules;
  /** This object is never changed, only replaced. */
  #now: Tokens;
  #before: Tokens | undefined;

  constructor(rules: LengthRules, now: Tokens) {
    this.#rules = rules;
    this.#now = now;
  }

  /** The lengths of a cache without tokens. */
  static empty(
    rules: LengthRules,
    { capacity, maxCapacity }: Pick<Tokens, "capacity" | "maxCapacity">,
  ): CacheLengths {
    const lengths = new Array<number>(rules.batch).fill(0);
    return new CacheLengths(rules, { capacity, maxCapacity, lengths, peaks: lengths });
  }

  get capacity(): number {
    return this.#now.capacity;
  }

  get maxCapacity(): number {
    return this.#now.maxCapacity;
  }

  get lengths(): readonly number[] {
    return this.#now.lengths;
  }

  /**
   * The most tokens that one of the entries had since it was empty: rows beyond were never written.
   */
  mostOf(entries: readonly number[] = this.#now.peaks.map((_, entry) => entry)): number {
    return entries.reduce((most, entry) => Math.max(most, this.#now.peaks[entry]), 0);
  }

  begin(): void {
    this.#before = this.#now;
  }

  commit(): void {
    this.#before = undefined;
  }

  rollBack(): void {
    if (this.#before) this.#now = this.#before;
    this.#before = undefined;
  }

  clone(label = this.#rules.label): CacheLengths {
    return new CacheLengths({ ...this.#rules, label }, this.#now);
  }

  /** The tokens that the longest entry would have with so many more. */
  needed(counts: readonly number[]): number {
    return this.lengths.reduce((most, length, entry) => Math.max(most, length + counts[entry]), 0);
  }

  /** Throws FoveaError("argument") for a capacity that the cache cannot grow to. */
  checkCapacity(capacity: number, most: number): void {
    const { label, ring } = this.#rules;
    check(
      ring === 0,
      "argument",
      () =>
        `${label}.grow: a ring does not grow; give createKvCache a larger capacity, which costs it no memory.`,
    );
    check(
      Number.isInteger(capacity) && capacity >= this.capacity && capacity <= most,
      "argument",
      () =>
        `${label}.grow: capacity must be a whole number from ${this.capacity}, what it is, to ${most}, got ${show(capacity)}.`,
    );
  }

  grow(capacity: number, most: number): void {
    this.checkCapacity(capacity, most);
    this.#now = { ...this.#now, capacity, maxCapacity: Math.max(this.maxCapacity, capacity) };
  }

  /**
   * Counts new tokens of each entry. Throws FoveaError("limit"), whose message `label` begins,
   * without room for them.
   */
  append(label: string, counts: readonly number[], capacity = this.capacity): void {
    const { lengths, peaks, maxCapacity } = this.#now;
    const longer = lengths.map((length, entry) => length + counts[entry]);
    const full = longer.findIndex((length) => length > capacity);
    check(
      full < 0,
      "limit",
      () =>
        `${label}: the cache is full: entry ${full} has ${lengths[full]} of ${this.capacity} tokens, and ${counts[full]} more were given. ${
          longer[full] <= maxCapacity
            ? `Call grow(${longer[full]} or more) first, or append(), which does.`
            : "Take tokens back with truncate() or reset(), call grow(), or make the cache with a larger capacity or a window."
        }`,
    );
    this.#now = {
      ...this.#now,
      lengths: longer,
      peaks: peaks.map((peak, entry) => Math.max(peak, longer[entry])),
    };
  }

  /**
   * Takes tokens back: entries longer than their limit get that length. Returns the new lengths.
   */
  truncate(limits: readonly number[]): readonly number[] {
    const { lengths, peaks } = this.#now;
    const kept = limits.map((limit, entry) => Math.min(limit, lengths[entry]));
    for (const [entry, limit] of kept.entries()) this.#checkKept(entry, limit);
    const { sinkTokens } = this.#rules;
    // An entry with nothing but sink tokens writes the ring anew before a query reads it.
    const most = peaks.map((peak, entry) => (kept[entry] <= sinkTokens ? kept[entry] : peak));
    this.#now = { ...this.#now, lengths: kept, peaks: most };
    return kept;
  }

  /** Gives each entry the tokens of another one, or its own. */
  reorder(entries: readonly number[]): void {
    const { lengths, peaks } = this.#now;
    this.#now = {
      ...this.#now,
      lengths: entries.map((from) => lengths[from]),
      peaks: entries.map((from) => peaks[from]),
    };
  }

  /** Throws FoveaError if a ring has lost a key that the query after `limit` tokens sees. */
  #checkKept(entry: number, limit: number): void {
    const { label, ring, sinkTokens, window = 0 } = this.#rules;
    const peak = this.#now.peaks[entry];
    if (ring === 0 || limit <= sinkTokens) return;
    const oldest = Math.max(sinkTokens, peak - ring);
    check(
      limit - window >= oldest || oldest === sinkTokens,
      "limit",
      () =>
        `${label}: entry ${entry} had ${peak} tokens and its ring keeps the last ${ring}; a query after ${limit} of them would miss keys of its window of ${window}. Take back at most ring - window = ${ring - window} tokens, or all of them with reset().`,
    );
  }
}
