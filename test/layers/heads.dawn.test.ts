// Views of rows that hold several heads, element by element.

import { expect, it } from "vitest";
import { splitHeads, tensor, unpackQkv } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const B = 2;
const M = 3;
/** Makes a tensor [B, M, width] whose elements say where they are: batch, row and column. */
const numbered = async (width: number) =>
  tensor(await testDevice(), [B, M, width], {
    data: Array.from({ length: B * M * width }, (_, i) => {
      const row = Math.floor(i / width);
      return 10_000 * Math.floor(row / M) + 100 * (row % M) + (i % width);
    }),
  });
/** Returns what a view [B, heads, M, dim] of the columns from `first` on holds. */
const expected = (heads: number, dim: number, first: number) =>
  Array.from({ length: B * heads * M * dim }, (_, i) => {
    const d = i % dim;
    const m = Math.floor(i / dim) % M;
    const h = Math.floor(i / (dim * M)) % heads;
    const b = Math.floor(i / (dim * M * heads));
    return 10_000 * b + 100 * m + first + h * dim + d;
  });

it("splitHeads finds the columns of each head", async () => {
  const rows = await numbered(15);
  const view = splitHeads(rows, 5);
  expect(view.shape).toEqual([B, 5, M, 3]);
  expect(Array.from(await view.read())).toEqual(expected(5, 3, 0));
  rows.destroy();
});

it("unpackQkv finds q, k and v, each with its own heads and width", async () => {
  const packed = await numbered(4 * 3 + 2 * 3 + 2 * 5);
  const { q, k, v } = unpackQkv(packed, { heads: 4, kvHeads: 2, headDim: 3, vDim: 5 });
  expect(Array.from(await q.read())).toEqual(expected(4, 3, 0));
  expect(Array.from(await k.read())).toEqual(expected(2, 3, 12));
  expect(Array.from(await v.read())).toEqual(expected(2, 5, 18));
  packed.destroy();
});
