// Checks of the entries that calls of a paged cache are given.

import { check, show } from "../../errors.ts";
import { elementsOfList, type Numbers } from "../../given.ts";
import type { PageCopy, PageTables } from "./pages.ts";

/** Takes pages for tokens of each entry. Gives the pages to copy first. */
export function appendTo(
  tables: PageTables,
  label: string,
  entries: readonly number[],
  counts: readonly number[],
): readonly PageCopy[] {
  const grown = entries.filter((_, index) => counts[index] > 0);
  checkOnce(label, grown, entries);
  return tables.append(entries, counts, label);
}

/** Throws FoveaError("argument") if an entry that gets tokens is given twice. */
export function checkOnce(
  label: string,
  changed: readonly number[],
  entries: readonly number[],
): void {
  const seen = new Set<number>();
  for (const entry of changed) {
    check(
      !seen.has(entry),
      "argument",
      () =>
        `${label}: entry ${entry} of the cache is twice in the batch [${entries}] and would get tokens twice.`,
    );
    seen.add(entry);
  }
}

/**
 * A copy of a list of entries. Throws FoveaError("argument") for entries that a cache of `count`
 * entries does not have.
 */
export function checkedEntries(what: string, entries: Numbers, count: number): readonly number[] {
  const list = elementsOfList<number>(entries);
  check(
    list !== undefined &&
      list.length > 0 &&
      list.every((entry) => Number.isInteger(entry) && entry >= 0 && entry < count),
    "argument",
    () =>
      `${what}: entries of this cache are whole numbers from 0 to ${count - 1}, got ${show(entries)}.`,
  );
  return list;
}
