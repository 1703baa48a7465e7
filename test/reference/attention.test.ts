// The reference against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { attention, worstElement } from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

describe("reference attention", () => {
  // One head, D = 1: scores are products. q = ln 2 against k = 0, 1, 2 weighs the keys 1 : 2 : 4.
  const q = tensor([1, 1, 1, 1], [Math.LN2]);
  const k = tensor([1, 1, 3, 1], [0, 1, 2]);
  const v = tensor([1, 1, 3, 1], [70, 7, 21]);

  it("weighs values by exp(score)", () => {
    const { output, lse } = attention(q, k, v);
    close(output, [(70 + 2 * 7 + 4 * 21) / 7]);
    close(lse, [Math.log(7)]);
  });

  it("multiplies scores by scale, by default 1 / sqrt(D)", () => {
    close(attention(q, k, v, { scale: 2 }).output, [(70 + 4 * 7 + 16 * 21) / 21]);
    const wide = (rows: number[]) =>
      tensor(
        [1, 1, rows.length, 4],
        rows.flatMap((x) => [x, x, x, x]),
      );
    // D = 4: q.k is four times the product and the scale is 1/2, so ln 2 / 2 gives the same weights
    // 1 : 2 : 4.
    close(attention(wide([Math.LN2 / 2]), wide([0, 1, 2]), v).output, [24]);
  });

  it("does not mind scores of 10,000", () => {
    const { output, lse } = attention(q, k, v, { scale: 10_000 / Math.LN2 });
    close(output, [21]);
    close(lse, [20_000]);
  });

  it("aligns a causal mask at the end, at the start, or where it is told", () => {
    // M = 2, N = 3, and all scores are 0: an output is the mean of the values seen.
    const two = tensor([1, 1, 2, 1], [0, 0]);
    close(attention(two, k, v, { causal: true }).output, [(70 + 7) / 2, (70 + 7 + 21) / 3]);
    close(attention(two, k, v, { causal: "bottom-right" }).output, [
      (70 + 7) / 2,
      (70 + 7 + 21) / 3,
    ]);
    close(attention(two, k, v, { causal: "top-left" }).output, [70, (70 + 7) / 2]);
    close(attention(two, k, v, { causal: true, queryOffset: 7 }).output, [98 / 3, 98 / 3]);
    // without causal, positions do nothing
    close(attention(two, k, v, { queryOffset: -5 }).output, [98 / 3, 98 / 3]);
  });

  it("gives a row without keys output 0 and LSE -Infinity", () => {
    const two = tensor([1, 1, 2, 1], [0, 0]);
    const { output, lse } = attention(two, k, v, { causal: true, queryOffset: -1 });
    close(output, [0, 70]);
    close(lse, [Number.NEGATIVE_INFINITY, 0]);
    const empty = attention(two, tensor([1, 1, 0, 1], []), tensor([1, 1, 0, 1], []));
    close(empty.output, [0, 0]);
    close(empty.lse, [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]);
  });

  it("takes key lengths for each batch entry, and aligns causality to them", () => {
    const four = tensor([2, 1, 2, 1], [0, 0, 0, 0]);
    const keys = tensor([2, 1, 3, 1], [0, 0, 0, 0, 0, 0]);
    const values = tensor([2, 1, 3, 1], [1, 2, 6, 10, 20, 60]);
    close(attention(four, keys, values, { kvLengths: [2, 0] }).output, [1.5, 1.5, 0, 0]);
    close(
      attention(four, keys, values, { kvLengths: [2, 3], causal: true }).output,
      [1, 1.5, 15, 30],
    );
    close(
      attention(four, keys, values, { causal: true, queryOffset: [0, 1] }).output,
      [1, 1.5, 15, 30],
    );
  });

  it("never reads a key that is not seen", () => {
    const poisoned = tensor([1, 1, 3, 1], [0, Number.NaN, Number.POSITIVE_INFINITY]);
    close(attention(q, poisoned, poisoned, { kvLengths: [1] }).output, [0]);
  });

  it("shares key heads between groups of query heads", () => {
    const heads = tensor([1, 4, 1, 1], [0, 0, 0, 0]);
    const keys = tensor([1, 2, 1, 1], [0, 0]);
    close(
      attention(heads, keys, tensor([1, 2, 1, 2], [1, 2, 3, 4])).output,
      [1, 2, 1, 2, 3, 4, 3, 4],
    );
  });

  it("reads layouts, strides and offsets", () => {
    // Two heads, two positions. In BMHD the heads of a position stand side by side.
    const bhmd = attention(
      tensor([1, 2, 2, 1], [0, 0, 0, 0]),
      tensor([1, 2, 2, 1], [0, 0, 0, 0]),
      tensor([1, 2, 2, 1], [1, 3, 10, 30]),
      { causal: true },
    );
    close(bhmd.output, [1, 2, 10, 20]);
    const bmhd = attention(
      tensor([1, 2, 2, 1], [0, 0, 0, 0]),
      tensor([1, 2, 2, 1], [0, 0, 0, 0]),
      tensor([1, 2, 2, 1], [1, 10, 3, 30]),
      { causal: true, layout: "bmhd" },
    );
    close(bmhd.output, [1, 2, 10, 20]);
    const strided = {
      data: [9, 21, 9, 7, 9, 70],
      shape: [1, 1, 3, 1],
      strides: [0, 0, 2, 1],
      offset: 1,
    };
    close(attention(q, k, strided).output, [(21 + 2 * 7 + 4 * 70) / 7]);
  });

  it("computes chosen rows only", () => {
    const many = tensor([2, 1, 2, 1], [0, Math.LN2, 0, 0]);
    const keys = tensor([2, 1, 2, 1], [0, 1, 0, 0]);
    const values = tensor([2, 1, 2, 1], [3, 6, 1, 2]);
    close(attention(many, keys, values, { rows: [3, 1] }).output, [1.5, 5]);
  });

  it("rounds to f32 when asked", () => {
    const third = attention(
      tensor([1, 1, 1, 1], [0]),
      tensor([1, 1, 3, 1], [0, 0, 0]),
      tensor([1, 1, 3, 1], [1, 0, 0]),
      {
        precision: "f32",
      },
    );
    expect(third.output[0]).toBe(Math.fround(1 / 3));
    expect(third.lse[0]).toBe(Math.fround(Math.log(3)));
  });

  it("rounds scores, weights and output as they are stored when asked", () => {
    const tenths = (x: number) => Math.round(x * 10) / 10;
    // Scores 0.33 and -0.36 are stored as 0.3 and -0.4, and weights 1 and e^-0.7 = 0.497 as 1 and
    // 0.5.
    const [q, k, v] = [[1], [0.33, -0.36], [400, 100]].map((data) =>
      tensor([1, 1, data.length, 1], data),
    );
    expect(attention(q, k, v, { store: tenths }).output[0]).toBe(300.7); // 450 / 1.49659 = 300.684
    expect(attention(q, k, v).output[0]).toBeCloseTo(299.79, 3); // (400 + 50.158) / 1.50158
  });
});

describe("worstElement", () => {
  it("finds the element that is furthest off", () => {
    expect(worstElement([1, 2, 3, 4, 5, 9], [1, 2, 3, 4, 5, 6], [1, 2, 3])).toEqual({
      error: 3,
      index: [0, 1, 2],
      actual: 9,
      expected: 6,
    });
  });
  it("takes NaN and missing infinities for infinitely wrong, equal infinities for right", () => {
    expect(worstElement([Number.NaN], [1], [1]).error).toBe(Number.POSITIVE_INFINITY);
    expect(worstElement([1], [Number.NEGATIVE_INFINITY], [1]).error).toBe(Number.POSITIVE_INFINITY);
    expect(worstElement([Number.NEGATIVE_INFINITY], [Number.NEGATIVE_INFINITY], [1]).error).toBe(0);
  });
});
