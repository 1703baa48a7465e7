// Seeded random numbers, for checks that an app runs on its visitor's device.

/**
 * A generator of numbers from 0 up to 1, the same ones for the same seed. Source: Tommy Ettinger's
 * mulberry32 (public domain).
 */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
