// How much memory of JavaScript is in use, in Node, once all garbage is gone.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Readings, of which the middle one counts. */
const READINGS = 5;

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/**
 * Lets functions be optimised, or has them stay as they are compiled first. What the optimising
 * compilers make, and drop again, is hundreds of KiB that come and go, in which a small leak would
 * drown; without them code is several times slower.
 */
export function optimise(whether: boolean): void {
  const no = whether ? "" : "no-";
  for (const flag of ["opt", "sparkplug", "maglev", "flush-bytecode"])
    setFlagsFromString(`--${no}${flag}`);
}

/**
 * Bytes in use: the middle one of several readings, each after everything that nobody holds was
 * collected.
 */
export async function heapBytes(): Promise<number> {
  const readings: number[] = [];
  for (let reading = 0; reading < READINGS; reading++) {
    // What belongs to collected objects of Dawn's is freed in a turn of its own.
    collect();
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    readings.push(process.memoryUsage().heapUsed);
  }
  return readings.sort((a, b) => a - b)[(READINGS - 1) / 2];
}
