// How a page answers the program that opened it.

import { FoveaError } from "../../src/index.ts";

/** Errors lose their class on the way out of a page, so they are answers. */
export async function answer<T>(work: () => Promise<T>): Promise<{ value: T } | { error: string }> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: error instanceof FoveaError ? error.message : String(error) };
  }
}
