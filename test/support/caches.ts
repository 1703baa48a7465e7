// Keeps on the CPU, word for word, what the memory of a contiguous cache must hold. Rows that
// nobody wrote hold poison.

import { bfloat16Bits, float16Bits } from "../../src/gpu/elements.ts";
import { type KvCache, type KvCacheOptions, tensor } from "../../src/index.ts";
import { quantisedWords, ringRow } from "../../src/reference/index.ts";

const POISON = 0xffffffff; // NaN in all types of floats, and a NaN scale

/** Returns the words that a cache stores for a row. */
export function rowWords(
  row: ArrayLike<number>,
  options: KvCacheOptions,
  which: "k" | "v",
): Uint32Array {
  const { dtype = "f32", groupSize } = options;
  const group = (typeof groupSize === "object" ? groupSize[which] : groupSize) ?? row.length;
  if (dtype === "int8" || dtype === "int4")
    return quantisedWords(row, { bits: dtype === "int8" ? 8 : 4, group });
  const padded = new Float32Array(4 * Math.ceil(row.length / 4));
  padded.set(Float32Array.from(row));
  if (dtype === "f32") return new Uint32Array(padded.buffer);
  const bits = dtype === "f16" ? float16Bits : bfloat16Bits;
  return new Uint32Array(Uint16Array.from(padded, bits).buffer);
}

/** Rows of new tokens, dense [B, Hkv, M, D]. */
export interface NewRows {
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly M: number;
}

/** The memory of a cache, as appends, truncations and copies leave it. */
export class CacheImage {
  readonly lengths: number[];
  readonly #options: KvCacheOptions;
  #rows: number;
  #words: { k: Uint32Array; v: Uint32Array };

  /** Poisons the memory of a new cache. */
  constructor(cache: KvCache, options: KvCacheOptions) {
    this.#options = options;
    this.lengths = new Array<number>(options.batch).fill(0);
    this.#rows = cache.source.k.shape[2];
    const words = (buffer: GPUBuffer) => {
      const poison = new Uint32Array(buffer.size / 4).fill(POISON);
      cache.device.queue.writeBuffer(buffer, 0, poison);
      return poison;
    };
    this.#words = { k: words(cache.source.k.buffer), v: words(cache.source.v.buffer) };
  }

  append({ k, v, M }: NewRows, counts: readonly number[] = this.lengths.map(() => M)): void {
    const {
      batch,
      kvHeads,
      headDim,
      vDim = headDim,
      window,
      ring = (window ?? 0) + 256,
      sinkTokens = 0,
    } = this.#options;
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < kvHeads; h++) {
        for (let i = 0; i < counts[b]; i++) {
          const row = ringRow(this.lengths[b] + i, sinkTokens, window === undefined ? 0 : ring);
          const at = (b * kvHeads + h) * M + i;
          this.#set(
            "k",
            b,
            h,
            row,
            rowWords(k.subarray(at * headDim, (at + 1) * headDim), this.#options, "k"),
          );
          this.#set(
            "v",
            b,
            h,
            row,
            rowWords(v.subarray(at * vDim, (at + 1) * vDim), this.#options, "v"),
          );
        }
      }
      this.lengths[b] += counts[b];
    }
  }

  #set(which: "k" | "v", b: number, h: number, row: number, words: Uint32Array): void {
    this.#words[which].set(
      words,
      ((b * this.#options.kvHeads + h) * this.#rows + row) * words.length,
    );
  }

  truncate(lengths: readonly number[]): void {
    for (const [b, length] of lengths.entries())
      this.lengths[b] = Math.min(this.lengths[b], length);
  }

  /**
   * Says where the memory of the cache, or its lengths on the GPU, differ from this; undefined if
   * nowhere.
   */
  async difference(cache: KvCache): Promise<string | undefined> {
    const { device, source, lengths } = cache;
    const words = ({ buffer }: { buffer: GPUBuffer }) =>
      tensor(device, [buffer.size / 4], { buffer, dtype: "u32" }).read();
    for (const which of ["k", "v"] as const) {
      const actual = await words(source[which]);
      const expected = this.#words[which];
      if (actual.length !== expected.length)
        return `${which} has ${actual.length} words, expected ${expected.length}`;
      const wrong = expected.findIndex((word, at) => actual[at] !== word);
      if (wrong < 0) continue;
      const row = Math.floor(
        wrong / (expected.length / (this.#options.batch * this.#options.kvHeads * this.#rows)),
      );
      return `word ${wrong} of ${which}, in row ${row % this.#rows} of head ${Math.floor(row / this.#rows)}, is ${actual[wrong].toString(16)}, expected ${expected[wrong].toString(16)}`;
    }
    const state = Array.from(await words(source.state)).slice(1, 1 + this.#options.batch);
    const same = (list: readonly number[]) => this.lengths.every((length, b) => list[b] === length);
    if (!same(state)) return `the GPU's lengths are ${state}, expected ${this.lengths}`;
    return same(lengths)
      ? undefined
      : `the mirrored lengths are ${lengths}, expected ${this.lengths}`;
  }
}
