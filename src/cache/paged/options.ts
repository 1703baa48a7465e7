// The options of a paged cache, and their checks.

import { check, show } from "../../errors.ts";
import type { OptionNames, Taken } from "../../given.ts";
import { NUMBER_LIMIT } from "../../kernels/cache_pages.ts";
import { takeOptions } from "../../options.ts";
import { ROW_OPTIONS, type RowOptions } from "../options.ts";
import { type ResolvedRows, resolveRows, whole } from "../resolved.ts";
import { checkStateSize } from "../state.ts";

/** Options of {@link createPagedKvCache}. */
export interface PagedKvCacheOptions extends RowOptions {
  /** The most sequences at a time. One without tokens costs only the memory of its page table. */
  readonly entries: number;
  /** Hkv, heads of k and v. */
  readonly kvHeads: number;
  /** D, elements of a row of k. */
  readonly headDim: number;
  /** Dv, elements of a row of v. Default D. */
  readonly vDim?: number;
  /**
   * Pages of all sequences together. Memory is pages * pageSize * Hkv rows of k and of v, allocated
   * once.
   */
  readonly pages: number;
  /**
   * Tokens of a page, 1 to 256. Small pages waste less at the end of sequences and share more of a
   * prefix; large ones have shorter tables. Default 16.
   */
  readonly pageSize?: number;
  /** The most tokens of a sequence: N of attention. Default: as many as all pages hold. */
  readonly maxTokens?: number;
  /** Name of the GPU objects in errors and captures. Default `"pagedKvCache"`. */
  readonly label?: string;
}

/** The names of the options. */
const PAGED_OPTIONS: OptionNames<PagedKvCacheOptions> = {
  ...ROW_OPTIONS,
  entries: "number",
  kvHeads: "number",
  headDim: "number",
  vDim: "number",
  pages: "number",
  pageSize: "number",
  maxTokens: "number",
  label: "string",
};

const LARGEST_PAGE = 256;

/** Checked options. */
export interface ResolvedPagedCache {
  readonly label: string;
  readonly entries: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly pages: number;
  readonly pageSize: number;
  readonly maxTokens: number;
  readonly pagesPerEntry: number;
  readonly rows: ResolvedRows;
}

/**
 * The options of a paged cache as they are at the call. Throws FoveaError("argument") for unknown
 * names.
 */
export function takePagedOptions(given: PagedKvCacheOptions): Taken<PagedKvCacheOptions> {
  check(
    typeof given === "object" && given !== null,
    "argument",
    () =>
      `pagedKvCache: a cache is made from { entries, kvHeads, headDim, pages, ... }, got ${show(given)}.`,
  );
  return takeOptions("pagedKvCache", given, PAGED_OPTIONS);
}

/**
 * Checks the options of a paged cache and fills in the defaults. Throws FoveaError that names what
 * is wrong.
 */
export function resolvePagedCache(options: Taken<PagedKvCacheOptions>): ResolvedPagedCache {
  const { label = "pagedKvCache" } = options;
  const { entries, kvHeads, headDim, vDim = headDim, pages, pageSize = 16 } = options;
  for (const [name, value] of Object.entries({ entries, kvHeads, headDim, vDim }))
    whole(label, name, value, 1);
  // Page numbers, lengths and offsets in the state travel in commands, which have room for numbers
  // below a limit.
  whole(label, "pages", pages, 1, NUMBER_LIMIT);
  whole(label, "pageSize", pageSize, 1, LARGEST_PAGE);
  const { maxTokens = Math.min(pages * pageSize, NUMBER_LIMIT - 1) } = options;
  whole(label, "maxTokens", maxTokens, 1, NUMBER_LIMIT - 1);
  const pagesPerEntry = Math.ceil(maxTokens / pageSize);
  const tables = `${label}: ${entries} page tables of ${pagesPerEntry} pages`;
  checkStateSize(tables, "Give larger pages, or fewer maxTokens.", entries, pagesPerEntry);
  const rows = resolveRows(label, options, headDim, vDim);
  return {
    label,
    entries,
    kvHeads,
    headDim,
    vDim,
    pages,
    pageSize,
    maxTokens,
    pagesPerEntry,
    rows,
  };
}
