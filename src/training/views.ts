// Shapes and strides of views.

import { countOf } from "../gpu/shapes.ts";

/**
 * The strides of a tensor under another shape of as many elements, in row-major order, or undefined
 * if no strides give them.
 */
export function viewStrides(
  from: readonly number[],
  strides: readonly number[],
  to: readonly number[],
): number[] | undefined {
  const axes = from.flatMap((size, axis) => (size === 1 ? [] : [axis]));
  const result: number[] = new Array(to.length).fill(1);
  let at = 0; // the next axis of `from`
  let axis = 0;
  while (axis < to.length) {
    if (to[axis] === 1) {
      axis++;
      continue;
    }
    // The fewest axes of both shapes that hold the same elements.
    const first = axis;
    const begin = at;
    let wanted = to[axis++];
    let there = from[axes[at++]];
    while (wanted !== there) {
      if (wanted < there) wanted *= to[axis++];
      else there *= from[axes[at++]];
      if (axis > to.length || at > axes.length) return undefined;
    }
    for (let joined = begin; joined + 1 < at; joined++) {
      const next = axes[joined + 1];
      if (strides[axes[joined]] !== strides[next] * from[next]) return undefined;
    }
    let stride = strides[axes[at - 1]];
    for (let back = axis - 1; back >= first; back--) {
      result[back] = stride;
      stride *= to[back];
    }
  }
  return result;
}

/** The places in memory of all elements of a view, in row-major order. */
export function* placesOf(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
  axis = 0,
): Generator<number> {
  if (axis === shape.length) {
    yield offset;
    return;
  }
  for (let index = 0; index < shape[axis]; index++)
    yield* placesOf(shape, strides, offset + index * strides[axis], axis + 1);
}

/** Whether views have each element of a memory once, all together. */
export function areTiles(
  elements: number,
  views: readonly {
    readonly shape: readonly number[];
    readonly strides: readonly number[];
    readonly offset: number;
  }[],
): boolean {
  if (views.reduce((count, { shape }) => count + countOf(shape), 0) !== elements) return false;
  const seen = new Uint8Array(elements);
  for (const { shape, strides, offset } of views) {
    for (const place of placesOf(shape, strides, offset)) {
      if (seen[place]) return false;
      seen[place] = 1;
    }
  }
  return true;
}
