// The order in which examples are learned from.

import { seeded } from "../../src/training/index.ts";

/** Numbers from 0 up to a count, shuffled: Fisher and Yates' method. */
export function shuffled(count: number, seed: number): number[] {
  const random = seeded(seed);
  const order = Array.from({ length: count }, (_, at) => at);
  for (let end = count - 1; end > 0; end--) {
    const other = Math.floor(random() * (end + 1));
    [order[end], order[other]] = [order[other], order[end]];
  }
  return order;
}

/**
 * The examples of a step's batch, by their numbers. Each epoch has an order of its own, and leaves
 * out what does not fill a batch.
 */
export function batchOf(step: number, count: number, size: number, seed: number): number[] {
  const perEpoch = Math.floor(count / size);
  const epoch = Math.floor(step / perEpoch);
  const at = step % perEpoch;
  return shuffled(count, seed * 1000 + epoch).slice(at * size, (at + 1) * size);
}
