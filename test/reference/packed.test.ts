// In packed sequences every entry gives what it would give alone.

import { describe, expect, it } from "vitest";
import {
  attention,
  attentionScores,
  type ReferenceOptions,
  type ReferencePosition,
  type ReferenceTensor,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { close, tensor, zeros } from "./hand.ts";

const EMPTY = Number.NEGATIVE_INFINITY;
const H = 4;
const Hkv = 2;
const D = 3;
const Dv = 2;
const packed = { cuSeqlensQ: [0, 2, 2, 5, 6], cuSeqlensKv: [0, 3, 4, 4, 9] };

const random = (seed: number, shape: number[]): ReferenceTensor => {
  const data = normal(
    seed,
    shape.reduce((a, b) => a * b, 1),
  );
  return { data, shape };
};
const q = random(1, [1, H, 6, D]);
const k = random(2, [1, Hkv, 9, D]);
const v = random(3, [1, Hkv, 9, Dv]);

/** Returns rows start .. end of [1, heads, total, size]. */
function slice(
  { data, shape, offset = 0 }: ReferenceTensor,
  start: number,
  end: number,
): ReferenceTensor {
  const [, heads, total, size] = shape;
  return {
    data,
    shape: [1, heads, end - start, size],
    strides: [0, total * size, size, 1],
    offset: offset + start * size,
  };
}

/** Returns which of the numbers 0 1 2 .. of [1, H, 6] belong to an entry. */
const rowsOf = (b: number) =>
  Array.from({ length: H * 6 }, (_, row) => row).filter(
    (row) => row % 6 >= packed.cuSeqlensQ[b] && row % 6 < packed.cuSeqlensQ[b + 1],
  );

/** Options of all entries, and the same options for one entry alone. */
const cases: Record<string, [ReferenceOptions, (b: number) => ReferenceOptions]> = {
  plain: [{}, () => ({})],
  causal: [{ causal: true }, () => ({ causal: true })],
  "causal, top-left": [{ causal: "top-left" }, () => ({ causal: "top-left" })],
  lengths: [
    { causal: true, kvLengths: [2, 1, 0, 4], qLengths: [1, 0, 2, 9] },
    (b) => ({ causal: true, kvLengths: [[2, 1, 0, 4][b]], qLengths: [[1, 0, 2, 9][b]] }),
  ],
  "window and offsets": [
    { window: [1, 1], queryOffset: [0, 1, 2, 3] },
    (b) => ({ window: [1, 1], queryOffset: b }),
  ],
  chunk: [{ attentionChunk: 2 }, () => ({ attentionChunk: 2 })],
  slopes: [
    { alibiSlopes: Array.from({ length: 16 }, (_, i) => i / 8) },
    (b) => ({ alibiSlopes: Array.from({ length: 4 }, (_, h) => (4 * b + h) / 8) }),
  ],
  bias: [
    { bias: random(4, [4, H, 3, 5]) },
    (b) => ({
      bias: {
        ...random(4, [4, H, 3, 5]),
        shape: [1, H, 3, 5],
        strides: [0, 15, 5, 1],
        offset: b * 60,
      },
    }),
  ],
  mask: [
    { mask: tensor([4, 1, 1, 5], [1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1]) },
    (b) => ({
      mask: tensor(
        [1, 1, 1, 5],
        [
          [1, 0, 1, 0, 0],
          [0, 1, 1, 1, 1],
          [1, 1, 1, 1, 1],
          [0, 1, 1, 0, 1],
        ][b],
      ),
    }),
  ],
  functions: [
    {
      scoreFunction: (s, { batch, qIdx, kvIdx, position }) => s + batch + qIdx * kvIdx + position,
      maskFunction: ({ batch, kvIdx }) => (batch + kvIdx) % 3 > 0,
    },
    (b) => ({
      scoreFunction: (s, { qIdx, kvIdx, position }) => s + b + qIdx * kvIdx + position,
      maskFunction: ({ kvIdx }) => (b + kvIdx) % 3 > 0,
    }),
  ],
  "sinks and relative bias": [
    { sinks: [1, 2, 3, 4], relativeBias: { table: random(5, [8, H]) } },
    () => ({ sinks: [1, 2, 3, 4], relativeBias: { table: random(5, [8, H]) } }),
  ],
};

describe("packed sequences", () => {
  it.each(Object.entries(cases))("are as their entries alone: %s", (_, [all, alone]) => {
    const together = attention(q, k, v, { ...all, ...packed });
    for (let b = 0; b < 4; b++) {
      const keyStart = packed.cuSeqlensKv[b];
      const keyEnd = packed.cuSeqlensKv[b + 1];
      const entry = attention(
        slice(q, packed.cuSeqlensQ[b], packed.cuSeqlensQ[b + 1]),
        slice(k, keyStart, keyEnd),
        slice(v, keyStart, keyEnd),
        alone(b),
      );
      const rows = rowsOf(b);
      close(
        rows.flatMap((row) => Array.from(together.output.slice(row * Dv, (row + 1) * Dv))),
        entry.output,
      );
      close(
        rows.map((row) => together.lse[row]),
        entry.lse,
      );
      close(
        rows.map((row) => together.rowMax[row]),
        entry.rowMax,
      );
      const chosen = attention(q, k, v, { ...all, ...packed, rows });
      expect(chosen).toEqual(entry);
    }
  });

  it("number batch, query and key within the entry", () => {
    const at: ReferencePosition[] = [];
    const maskFunction = (place: ReferencePosition) => at.push(place) > 0;
    attention(q, k, v, { ...packed, maskFunction, rows: [6 + 5] });
    expect(at).toHaveLength(5);
    expect(at[4]).toEqual({ batch: 3, head: 1, qIdx: 0, kvIdx: 4, position: 4 });
  });

  it("leave rows of no entry empty, without a sink too", () => {
    const values = tensor([1, 1, 2, 1], [3, 5]);
    const options = { cuSeqlensQ: [1, 2], cuSeqlensKv: [0, 2], sinks: [0] };
    const { output, lse, rowMax } = attention(
      zeros(1, 1, 3, 1),
      zeros(1, 1, 2, 1),
      values,
      options,
    );
    close(output, [0, 8 / 3, 0]);
    close(lse, [EMPTY, Math.log(3), EMPTY]);
    close(rowMax, [EMPTY, 0, EMPTY]);
  });

  it("stand side by side in bmhd as well", () => {
    const values = tensor([1, 3, 2, 1], [1, 10, 3, 30, 5, 50]);
    const options = { cuSeqlensQ: [0, 1, 2], cuSeqlensKv: [0, 2, 3], layout: "bmhd" } as const;
    close(attention(zeros(1, 2, 2, 1), zeros(1, 3, 2, 1), values, options).output, [2, 5, 20, 50]);
  });

  it("have scores as wide as the longest entry", () => {
    const keys = tensor([1, 1, 3, 1], [1, 2, 3]);
    const options = { cuSeqlensQ: [0, 1, 2], cuSeqlensKv: [0, 1, 3] };
    const run = (stage: "raw" | "scores" | "probabilities") =>
      attentionScores(tensor([1, 1, 2, 1], [1, 10]), keys, { ...options, stage });
    close(run("raw"), [1, 0, 20, 30]);
    close(run("scores"), [1, EMPTY, 20, 30]);
    close(run("probabilities"), [1, 0, 1 / (1 + Math.exp(10)), 1 / (1 + Math.exp(-10))]);
  });
});
