// Where the memories of a program lie: those whose times do not meet share a buffer.

import { BYTES } from "../gpu/shapes.ts";
import type { Memory, Node } from "./value.ts";

/** A memory's first and last operation, by their places in the program. */
interface Lifetime {
  readonly memory: Memory;
  readonly bytes: number;
  readonly first: number;
  last: number;
}

/** Buffers, by their sizes, and which one each memory has. */
export interface MemoryPlan {
  /** Bytes of each buffer. */
  readonly buffers: readonly number[];
  readonly placeOf: ReadonlyMap<Memory, number>;
}

/**
 * Finds a buffer for each computed memory of a program. No two memories share one at a time, nor do
 * what an operation reads and what it writes, because WebGPU lets a kernel write no part of a
 * buffer that it reads.
 *
 * The largest come first, each into the smallest buffer that is free all its time. Source: "greedy
 * by size for shared objects" (arXiv 2001.03288), section 4.2.
 *
 * @param kept What lives until the end of a run: nothing takes its buffer
 * @param apart What has memory elsewhere
 */
export function planMemory(
  nodes: readonly Node[],
  kept: ReadonlySet<Memory>,
  apart: ReadonlySet<Memory> = new Set(),
): MemoryPlan {
  const lifetimes = new Map<Memory, Lifetime>();
  for (const [index, { inputs, outputs }] of nodes.entries()) {
    for (const { memory } of [...outputs, ...inputs]) {
      if (memory.kind !== "computed" || apart.has(memory)) continue;
      const known = lifetimes.get(memory);
      const last = kept.has(memory) ? nodes.length : index;
      if (known) known.last = Math.max(known.last, last);
      else lifetimes.set(memory, { memory, bytes: bytesOf(memory), first: index, last });
    }
  }
  const placeOf = new Map<Memory, number>();
  const buffers: { bytes: number; taken: Lifetime[] }[] = [];
  for (const one of [...lifetimes.values()].sort((a, b) => b.bytes - a.bytes)) {
    const isFree = ({ taken }: (typeof buffers)[number]) =>
      taken.every(({ first, last }) => last < one.first || one.last < first);
    // Buffers were made for larger memories, the last of them for the least.
    const index = buffers.findLastIndex(isFree);
    if (index < 0) buffers.push({ bytes: one.bytes, taken: [one] });
    else buffers[index].taken.push(one);
    placeOf.set(one.memory, index < 0 ? buffers.length - 1 : index);
  }
  return { buffers: buffers.map(({ bytes }) => bytes), placeOf };
}

/** Bytes of a memory, in whole words. */
export const bytesOf = ({ elements, dtype }: Memory): number =>
  Math.ceil((elements * BYTES[dtype]) / 4) * 4;

/** The operations that what is kept depends on, in their order. */
export function neededNodes(nodes: readonly Node[], kept: Iterable<Memory>): Node[] {
  const wanted = new Set(kept);
  const needed: Node[] = [];
  for (const node of [...nodes].reverse()) {
    if (!node.outputs.some(({ memory }) => wanted.has(memory))) continue;
    needed.unshift(node);
    for (const { memory } of node.inputs) wanted.add(memory);
  }
  return needed;
}
