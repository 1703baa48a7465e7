// Seeded draws for small problems.

import { integers, normal } from "../../src/reference/random.ts";

export interface Draw {
  /** A whole number from low to high. */
  whole(low: number, high: number): number;
  /** Tells whether to do what is done in so many percent of the problems. */
  chance(percent: number): boolean;
  pick<T>(choices: readonly T[]): T;
  /** Normal numbers. */
  normal(count: number, deviation?: number): Float64Array;
  /** Numbers of either sign that are 0.5 to 1.5 apart from 0, where norms are smooth. */
  apart(count: number): Float64Array;
}

/** The same draws for the same seed. */
export function drawOf(seed: number): Draw {
  let calls = 0;
  const next = () => seed * 1009 + ++calls;
  const whole = (low: number, high: number) => integers(next(), 1, low, high)[0];
  return {
    whole,
    chance: (percent) => whole(1, 100) <= percent,
    pick: (choices) => choices[whole(0, choices.length - 1)],
    normal: (count, deviation = 1) => Float64Array.from(normal(next(), count, deviation)),
    apart: (count) =>
      Float64Array.from(integers(next(), count, -1000, 999), (x) =>
        x < 0 ? x / 1000 - 0.5 : x / 1000 + 0.5,
      ),
  };
}
