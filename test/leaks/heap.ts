// Measures how much memory of JavaScript is in use, in Node, once all garbage is gone.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** The number of readings, of which the middle one counts. */
const READINGS = 5;

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/**
 * Lets functions be optimised, or has them stay as they are compiled first. Optimising compilers
 * make and drop hundreds of KiB, in which a small leak would drown; without these compilers code is
 * several times slower.
 */
export function optimise(whether: boolean): void {
  const no = whether ? "" : "no-";
  for (const flag of ["opt", "sparkplug", "maglev", "flush-bytecode"])
    setFlagsFromString(`--${no}${flag}`);
}

/**
 * Returns the bytes in use: the middle one of several readings, each taken once everything that
 * nobody holds is collected.
 */
export async function heapBytes(): Promise<number> {
  const readings: number[] = [];
  for (let reading = 0; reading < READINGS; reading++) {
    // Dawn frees what belongs to collected objects in a later turn.
    collect();
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    readings.push(process.memoryUsage().heapUsed);
  }
  return readings.sort((a, b) => a - b)[(READINGS - 1) / 2];
}
