// The tokens of a cache as a model that keeps every one of them in a list; and new tokens for it,
// as tensors and as rows.

import { type Tensor, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import type { Token } from "./cache_looks.ts";
import { plainRow, type RowTransform, transformed } from "./cache_rows.ts";
import type { CacheMake } from "./cache_subjects.ts";
import { product } from "./cases.ts";
import { defined } from "./features.ts";

/** What every entry has. */
export class CacheModel {
  readonly entries: Token[][];
  /** What lies in each row of a ring. */
  readonly rings: Map<number, Token>[];
  /** Tokens that each entry had at once since it was empty: a ring has lost those far behind. */
  readonly peaks: number[];
  readonly #make: CacheMake;

  constructor(make: CacheMake) {
    this.#make = make;
    this.entries = Array.from({ length: make.entries }, () => []);
    this.rings = this.entries.map(() => new Map());
    this.peaks = this.entries.map(() => 0);
  }

  get lengths(): number[] {
    return this.entries.map(({ length }) => length);
  }

  append(entry: number, tokens: readonly Token[]): void {
    const { sinkTokens = 0, ring = 0 } = this.#make;
    for (const token of tokens) {
      const j = this.entries[entry].push(token) - 1;
      this.rings[entry].set(
        ring && j >= sinkTokens ? sinkTokens + ((j - sinkTokens) % ring) : j,
        token,
      );
    }
    this.peaks[entry] = Math.max(this.peaks[entry], this.entries[entry].length);
  }

  /**
   * Returns the length of an entry after so many tokens are taken back. A ring gives back only what
   * it has beside its window.
   */
  cut(entry: number, tokens: number): number {
    const { place, ring = 0, window = 0 } = this.#make;
    const { length } = this.entries[entry];
    const most =
      place === "ring" ? Math.max(0, ring - window - 1 - (this.peaks[entry] - length)) : length;
    return length - Math.min(tokens, length, most);
  }

  truncate(entry: number, length: number): void {
    this.entries[entry].length = Math.min(length, this.entries[entry].length);
    const { sinkTokens = 0 } = this.#make;
    if (length <= sinkTokens) this.peaks[entry] = this.entries[entry].length;
  }

  /** Gives an entry the first tokens of another one. */
  fork(from: number, to: number, tokens: number): void {
    this.entries[to] = this.entries[from].slice(0, tokens);
    this.rings[to] = new Map(this.rings[from]);
    this.peaks[to] = this.#make.place === "ring" ? this.peaks[from] : tokens;
  }

  /** Gives every entry the tokens of another one. */
  reorder(sources: readonly number[]): void {
    const before = {
      entries: this.entries.map((tokens) => [...tokens]),
      rings: this.rings.map((ring) => new Map(ring)),
      peaks: [...this.peaks],
    };
    for (const [to, from] of sources.entries()) {
      this.entries[to] = [...before.entries[from]];
      this.rings[to] = new Map(before.rings[from]);
      this.peaks[to] = before.peaks[from];
    }
  }
}

/** What new tokens are drawn from. */
export interface Drawing {
  readonly device: GPUDevice;
  readonly make: CacheMake;
  /** Returns another seed for every tensor. */
  nextSeed(): number;
  /** What is destroyed in the end. */
  readonly made: { destroy(): void }[];
}

/**
 * Makes rows of new tokens of some entries, as a tensor [entries, heads, M, dim] and one by one.
 */
export function newRows(
  { device, nextSeed, made }: Drawing,
  counts: readonly number[],
  {
    heads,
    dim,
    deviation = 1,
  }: { readonly heads: number; readonly dim: number; readonly deviation?: number | undefined },
) {
  const M = Math.max(1, ...counts);
  const shape = [counts.length, heads, M, dim];
  const data = normal(nextSeed(), product(shape), deviation);
  const at = (b: number, h: number, i: number) => ((b * heads + h) * M + i) * dim;
  // What is not appended must not be read.
  for (const [b, count] of counts.entries()) {
    for (let h = 0; h < heads; h++) data.fill(Number.NaN, at(b, h, count), at(b, h, M));
  }
  const row = (b: number, h: number, i: number) => data.slice(at(b, h, i), at(b, h, i) + dim);
  const gpu: Tensor = tensor(device, shape, { data });
  made.push(gpu);
  return { at, row, gpu };
}

/**
 * Makes keys and values of new tokens, and the tokens that they become behind those that the
 * entries have.
 */
export function newTokens(
  drawing: Drawing,
  lengths: readonly number[],
  counts: readonly number[],
  deviation?: number,
): { readonly k: Tensor; readonly v: Tensor; readonly tokens: Token[][] } {
  const { D, Dv = D, Hkv, qkNorm, rotary } = drawing.make;
  const k = newRows(drawing, counts, { heads: Hkv, dim: D, deviation });
  const v = newRows(drawing, counts, { heads: Hkv, dim: Dv, deviation });
  const how: RowTransform = defined({ qkNorm, rotary });
  const heads = Array.from({ length: Hkv }, (_, h) => h);
  const tokens = counts.map((count, b) =>
    Array.from({ length: count }, (_, i): Token => {
      const key = (h: number) => k.row(b, h, i);
      const turned = (h: number) => transformed(key(h), lengths[b] + i, "k", how);
      return {
        k: heads.map((h) => (qkNorm || rotary ? turned(h) : plainRow(key(h)))),
        v: heads.map((h) => plainRow(v.row(b, h, i))),
      };
    }),
  );
  return { k: k.gpu, v: v.gpu, tokens };
}
