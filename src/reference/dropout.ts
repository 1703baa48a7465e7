// The weights that dropout keeps, by a counter-based generator, so that each weight can be decided
// without the others.

import type { ReferenceOptions } from "./options.ts";

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];
const PARITY = 0x1bd11bda;

/**
 * Threefry-2x32 with 20 rounds: two random words from a key and a counter of two words each, all
 * unsigned 32-bit. Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011),
 * section 4.2; Random123.
 */
export function threefry2x32(
  key: readonly [number, number],
  counter: readonly [number, number],
): [first: number, second: number] {
  const keys = [key[0], key[1], PARITY ^ key[0] ^ key[1]];
  let x = (counter[0] + keys[0]) | 0;
  let y = (counter[1] + keys[1]) | 0;
  for (let round = 0; round < 20; round++) {
    const turn = ROTATIONS[round % 8];
    x = (x + y) | 0;
    y = ((y << turn) | (y >>> (32 - turn))) ^ x;
    if (round % 4 === 3) {
      const injection = (round + 1) / 4;
      x = (x + keys[injection % 3]) | 0;
      y = (y + keys[(injection + 1) % 3] + injection) | 0;
    }
  }
  return [x >>> 0, y >>> 0];
}

/**
 * Tells whether dropout with probability p keeps the weight of a row and a key: the first word of
 * threefry(key = seed + step 2^32, counter = [row, key]) is below floor((1 - p) * 2^32).
 *
 * @param seed a whole number, 0 <= seed < 2^53
 * @param step a whole number, 0 <= step < 2^32
 * @returns a function of the row's number in [B, H, M] (packed [1, H, totalQ]) and the key's index
 *   in its batch entry
 */
export function dropoutKeeps(
  seed: number,
  p: number,
  step = 0,
): (row: number, key: number) => boolean {
  const words: [number, number] = [seed % 2 ** 32, (Math.floor(seed / 2 ** 32) + step) % 2 ** 32];
  const threshold = Math.floor((1 - p) * 2 ** 32);
  return (row, key) => threefry2x32(words, [row, key])[0] < threshold;
}

/**
 * What dropout multiplies a weight by: 1 / (1 - p) if it is kept, otherwise 0; 1 without dropout.
 */
export function dropoutFactor(
  dropout: ReferenceOptions["dropout"],
  round: (x: number) => number = (x) => x,
): (row: number, key: number) => number {
  if (!dropout) return () => 1;
  const keeps = dropoutKeeps(dropout.seed, dropout.p, dropout.step);
  const factor = round(1 / round(1 - dropout.p));
  return (row, key) => (keeps(row, key) ? factor : 0);
}
