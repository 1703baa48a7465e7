// Seeded random numbers for benches and tests, which must not run on zeros. This file isn't part of
// the package.

import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/** `count` normal numbers of the given standard deviation. */
export function normal(seed: number, count: number, deviation = 1): Float32Array<ArrayBuffer> {
  const generator = xoroshiro128plus(seed);
  const uniform = () => ((generator.next() >>> 8) + 0.5) / 2 ** 24;
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    values[i] = deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  return values;
}

/** Whole numbers from `low` up to and including `high`. */
export function integers(seed: number, count: number, low: number, high: number): number[] {
  const generator = xoroshiro128plus(seed);
  return Array.from({ length: count }, () => low + ((generator.next() >>> 0) % (high - low + 1)));
}
