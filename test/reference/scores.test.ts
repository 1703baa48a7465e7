// What options make of the scores of the reference, in numbers worked by hand.

import { describe, expect, it } from "vitest";
import {
  attention,
  attentionScores,
  type ReferencePosition,
  relativeBucket,
} from "../../src/reference/index.ts";
import { close, tensor, zeros } from "./hand.ts";

const { LN2 } = Math;
const EMPTY = Number.NEGATIVE_INFINITY;
// One head, D = 1: scores are products. q = ln 2 against k = 0, 1, 2 weighs the keys 1 : 2 : 4.
const q = tensor([1, 1, 1, 1], [LN2]);
const k = tensor([1, 1, 3, 1], [0, 1, 2]);
const v = tensor([1, 1, 3, 1], [70, 7, 21]);
const nothing = zeros(1, 1, 1, 1);

describe("row maximum", () => {
  it("is the largest score, biases included, of the keys that the row sees", () => {
    close(attention(q, k, v).rowMax, [2 * LN2]);
    close(attention(q, k, v, { kvLengths: [2] }).rowMax, [LN2]);
    close(attention(q, k, v, { bias: tensor([1, 1, 1, 3], [5, 0, EMPTY]) }).rowMax, [5]);
    close(
      attention(tensor([1, 1, 1, 1], [-1]), k, v, {
        kvLengths: [1],
        bias: tensor([1, 1, 1, 1], [-7]),
      }).rowMax,
      [-7],
    );
  });
});

describe("softcap", () => {
  it("bounds the scores after the scale", () => {
    // 2 tanh(s / 2) = ln 2
    const s = 2 * Math.atanh(LN2 / 2);
    const keys = tensor([1, 1, 2, 1], [0, s]);
    const values = tensor([1, 1, 2, 1], [3, 6]);
    const one = tensor([1, 1, 1, 1], [1]);
    close(attention(one, keys, values, { softcap: 2 }).output, [5]);
    close(
      attention(one, tensor([1, 1, 2, 1], [0, s / 10]), values, { softcap: 2, scale: 10 }).output,
      [5],
    );
    close(
      attention(one, tensor([1, 1, 1, 1], [1e9]), zeros(1, 1, 1, 1), { softcap: 30 }).rowMax,
      [30],
    );
  });
});

describe("score function", () => {
  it("takes the capped score and its place, before the biases", () => {
    const s = 2 * Math.atanh(LN2 / 2);
    const calls: [number, ReferencePosition][] = [];
    const scoreFunction = (score: number, at: ReferencePosition) => {
      calls.push([score, at]);
      return score * 2;
    };
    const bias = tensor([1, 1, 1, 1], [LN2]);
    const keys = tensor([1, 1, 1, 1], [s / LN2]);
    close(attention(q, keys, nothing, { softcap: 2, scoreFunction, bias, queryOffset: 4 }).rowMax, [
      3 * LN2,
    ]);
    expect(calls).toHaveLength(1);
    close([calls[0][0]], [LN2]);
    expect(calls[0][1]).toEqual({ batch: 0, head: 0, qIdx: 0, kvIdx: 0, position: 4 });
  });
});

describe("bias", () => {
  it("adds to the scores, broadcast along axes of size 1", () => {
    // 1 : 2 : 4 times 4 : 2 : 1
    close(attention(q, k, v, { bias: tensor([1, 1, 1, 3], [2 * LN2, LN2, 0]) }).output, [98 / 3]);
    close(attention(q, k, v, { bias: tensor([1, 1, 1, 1], [9]) }).output, [24]);
    const heads = attention(zeros(1, 2, 1, 1), zeros(1, 1, 2, 1), tensor([1, 1, 2, 1], [3, 6]), {
      bias: tensor([1, 2, 1, 2], [0, LN2, LN2, 0]),
    });
    close(heads.output, [5, 4]);
    const entries = attention(
      zeros(2, 1, 1, 1),
      zeros(2, 1, 2, 1),
      tensor([2, 1, 2, 1], [3, 6, 30, 60]),
      {
        bias: tensor([2, 1, 1, 2], [0, LN2, LN2, 0]),
      },
    );
    close(entries.output, [5, 40]);
  });

  it("masks with -Infinity, and with nothing else", () => {
    close(attention(q, k, v, { bias: tensor([1, 1, 1, 3], [0, 0, EMPTY]) }).output, [
      (70 + 14) / 3,
    ]);
    const low = -3.4e38;
    // The lowest numbers absorb the scores: all keys weigh the same, or none if one key has no such
    // bias.
    for (const precision of ["f64", "f32"] as const) {
      const all = attention(q, k, v, { bias: tensor([1, 1, 1, 1], [low]), precision });
      expect(all.output[0]).toBeCloseTo(98 / 3, 5);
      expect(all.rowMax[0] / low).toBeCloseTo(1, 6);
      close(
        attention(q, k, v, { bias: tensor([1, 1, 1, 3], [low, 0, EMPTY]), precision }).output,
        [7],
      );
    }
  });

  it("stays finite in f32 if a sum would overflow", () => {
    const lowest = -3.4028234663852886e38;
    const low = tensor([1, 1, 1, 1], [-3e38]);
    const one = tensor([1, 1, 1, 1], [1]);
    const { output, rowMax } = attention(one, low, tensor([1, 1, 1, 1], [4]), {
      bias: low,
      precision: "f32",
    });
    expect([output[0], rowMax[0]]).toEqual([4, lowest]);
    const scoreFunction = () => -1e39;
    expect(attention(one, one, one, { scoreFunction, precision: "f32" }).rowMax[0]).toBe(lowest);
  });
});

describe("ALiBi", () => {
  it("takes slope times distance off the scores, in both directions", () => {
    close(attention(nothing, k, v, { alibiSlopes: [LN2] }).output, [24]);
    close(attention(nothing, k, v, { alibiSlopes: [LN2], queryOffset: 1 }).output, [
      (70 + 2 * 7 + 21) / 4,
    ]);
    close(attention(nothing, k, v, { alibiSlopes: [LN2], queryOffset: 0 }).output, [
      (4 * 70 + 2 * 7 + 21) / 7,
    ]);
    close(attention(nothing, k, v, { alibiSlopes: [LN2], kvLengths: [2] }).output, [
      (70 + 2 * 7) / 3,
    ]);
  });

  it("takes slopes for each query head, or each entry and query head, of grouped heads too", () => {
    const queries = zeros(2, 2, 1, 1);
    const keys = zeros(2, 1, 3, 1);
    const values = tensor([2, 1, 3, 1], [70, 7, 21, 70, 7, 21]);
    const run = (alibiSlopes: NonNullable<Parameters<typeof attention>[3]>["alibiSlopes"]) =>
      attention(queries, keys, values, { ...(alibiSlopes && { alibiSlopes }) }).output;
    const mean = 98 / 3;
    const half = 24;
    const quarter = (70 + 4 * 7 + 16 * 21) / 21;
    close(run([0, LN2]), [mean, half, mean, half]);
    close(run(Float64Array.of(0, LN2, 2 * LN2, LN2)), [mean, half, quarter, half]);
    close(run(tensor([2, 2], [0, LN2, 2 * LN2, LN2])), [mean, half, quarter, half]);
    close(run(tensor([2, 1], [0, LN2])), [mean, mean, half, half]);
    close(run({ data: [9, 0, 9, LN2], shape: [2], strides: [2], offset: 1 }), [
      mean,
      half,
      mean,
      half,
    ]);
  });
});

describe("relative bias", () => {
  const buckets = (
    distances: number[],
    count: number,
    bidirectional: boolean,
    maxDistance: number,
  ) => distances.map((distance) => relativeBucket(distance, count, bidirectional, maxDistance));

  it("has a bucket for each small distance, and buckets of growing width up to the last", () => {
    // 8 buckets up to distance 64: 0 1 2 3 | 4..7 | 8..15 | 16..31 | 32..
    const past = [0, -1, -2, -3, -4, -7, -8, -15, -16, -31, -32, -64, -1000];
    expect(buckets(past, 8, false, 64)).toEqual([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]);
    expect(buckets([1, 5, 1000], 8, false, 64)).toEqual([0, 0, 0]);
    // With 16 in both directions, the keys after the query have the upper half.
    expect(buckets(past, 16, true, 64)).toEqual([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]);
    expect(buckets([1, 3, 4, 7, 8, 31, 32, 1000], 16, true, 64)).toEqual([
      9, 11, 12, 12, 13, 14, 15, 15,
    ]);
  });

  it("has the buckets of T5: 32 up to distance 128", () => {
    const starts = [8, 12, 16, 23, 32, 46, 64, 91];
    starts.forEach((start, index) => {
      expect(buckets([-start, start], 32, true, 128)).toEqual([8 + index, 24 + index]);
      expect(buckets([1 - start, start - 1], 32, true, 128)).toEqual([7 + index, 23 + index]);
    });
  });

  it("starts a bucket at its very first distance, and minds neither 2 buckets nor 1", () => {
    // The widths grow by 9^(1/4): distance 4 * 9^(2/4) = 12 opens bucket 4 + 2.
    expect(buckets([-11, -12], 8, false, 36)).toEqual([5, 6]);
    expect(buckets([-9, -1, 0, 1, 9], 2, true, 128)).toEqual([0, 0, 0, 1, 1]);
    expect(buckets([-9, 0, 9], 1, false, 128)).toEqual([0, 0, 0]);
  });

  it("adds a learned number for each bucket and head, unscaled", () => {
    // Of 4 buckets one is for the query's own place, one for all before it, one for none, one for
    // all after it. There are two queries and keys.
    const table = tensor([4, 2], [0, 0, LN2, 3 * LN2, Number.NaN, Number.NaN, 2 * LN2, 0]);
    const run = (bidirectional?: false) =>
      attention(zeros(1, 2, 2, 1), zeros(1, 1, 2, 1), tensor([1, 1, 2, 1], [0, 360]), {
        relativeBias: { table, ...(bidirectional === false && { bidirectional }) },
        scale: 100,
      }).output;
    close(run(), [(4 * 360) / 5, 360 / 3, 360 / 2, 360 / 9]);
    // In one direction bucket 0 is for the keys after the query, too, and bucket 1 for the key
    // before it.
    close(run(false), [360 / 2, 360 / 3, 360 / 2, 360 / 9]);
  });

  it("reaches 128 positions by default", () => {
    const table = tensor([32, 1], [...new Array(31).fill(0), LN2]);
    const score = (queryOffset: number, maxDistance?: number) => {
      const relativeBias = { table, bidirectional: false, ...(maxDistance && { maxDistance }) };
      return attention(nothing, nothing, nothing, { queryOffset, relativeBias }).rowMax[0];
    };
    expect([score(112), score(113)]).toEqual([0, LN2]);
    expect(score(113, 256)).toBe(0);
  });
});

describe("sinks", () => {
  it("join the denominator and the LSE, and nothing else", () => {
    // weights of 1 : 2 : 4 and a sink of 1
    const { output, lse, rowMax } = attention(q, k, v, { sinks: [0] });
    close(output, [(70 + 14 + 84) / 8]);
    close(lse, [Math.log(8)]);
    close(rowMax, [2 * LN2]);
    close(attention(q, k, v, { sinks: [EMPTY] }).lse, [Math.log(7)]);
  });

  it("are one per query head, neither scaled nor capped", () => {
    const heads = attention(zeros(1, 2, 1, 1), zeros(1, 1, 1, 1), tensor([1, 1, 1, 1], [12]), {
      sinks: [Math.log(2), Math.log(11)],
      scale: 50,
      softcap: 0.5,
    });
    close(heads.output, [4, 1]);
    close(heads.lse, [Math.log(3), Math.log(12)]);
  });

  it("may be far above all scores, or far below", () => {
    const above = attention(q, k, v, { sinks: [1000] });
    close([...above.output, ...above.lse], [0, 1000]);
    const below = attention(q, k, v, { sinks: [-1000] });
    close([...below.output, ...below.lse], [24, Math.log(7)]);
  });
});

describe("f32 precision", () => {
  const f = Math.fround;
  it("rounds within the softcap", () => {
    const keys = Array.from({ length: 50 }, (_, i) => f(i / 29));
    const options = { softcap: 0.3, precision: "f32", stage: "capped" } as const;
    const capped = attentionScores(tensor([1, 1, 1, 1], [1]), tensor([1, 1, 50, 1], keys), options);
    expect(Array.from(capped)).toEqual(keys.map((s) => f(f(0.3) * f(Math.tanh(f(s / f(0.3)))))));
  });

  it("rounds every step", () => {
    const x = f(0.7);
    const cap = 0.3;
    const slope = 0.1;
    const bias = f(1.1);
    const capped = f(f(cap) * f(Math.tanh(f(x / f(cap)))));
    const one = tensor([1, 1, 1, 1], [1]);
    const { rowMax, lse } = attention(one, tensor([1, 1, 1, 1], [x]), one, {
      precision: "f32",
      softcap: cap,
      scoreFunction: (s) => s / 3,
      bias: tensor([1, 1, 1, 1], [bias]),
      relativeBias: { table: tensor([1, 1], [f(0.4)]), bidirectional: false },
      alibiSlopes: [slope],
      queryOffset: 3,
      sinks: [0.2],
    });
    const s = f(f(f(f(capped / 3) + bias) + f(0.4)) - f(f(slope) * 3));
    expect(rowMax[0]).toBe(s);
    const top = s;
    const sink = f(0.2);
    expect(lse[0]).toBe(f(top + f(Math.log(f(1 + f(Math.exp(f(sink - top))))))));
  });
});
