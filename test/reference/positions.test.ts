// The reference position encodings, and the encodings on the CPU, against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { alibiSlopes, sinusoidalPositions, t5Buckets } from "../../src/index.ts";
import {
  positionBias,
  positionEncoding,
  relativeBucket,
  sinusoidalEncoding,
} from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

const { sin, cos } = Math;

describe("sinusoidal encodings", () => {
  it("are sine and cosine of falling frequencies in turn", () => {
    // 10000^(-2 / 4) = 1 / 100
    close(sinusoidalEncoding(3, 4), [sin(3), cos(3), sin(0.03), cos(0.03)]);
    close(sinusoidalEncoding(-2, 4, { maxWavelength: 256 }), [
      sin(-2),
      cos(-2),
      sin(-1 / 8),
      cos(-1 / 8),
    ]);
    close(sinusoidalEncoding(0, 6), [0, 1, 0, 1, 0, 1]);
  });
  it("end with a sine in rows of an odd number", () => {
    // 8^(-2 / 3) = 1 / 4
    close(sinusoidalEncoding(2, 3, { maxWavelength: 8 }), [sin(2), cos(2), sin(0.5)]);
    close(sinusoidalEncoding(2, 1), [sin(2)]);
  });
  it("may be all sines before all cosines, and of other frequencies", () => {
    close(sinusoidalEncoding(3, 4, { order: "halves" }), [sin(3), sin(0.03), cos(3), cos(0.03)]);
    close(sinusoidalEncoding(3, 4, { frequencies: [2, 5] }), [sin(6), cos(6), sin(15), cos(15)]);
  });
  it("come from sinusoidalPositions, rounded to f32", () => {
    const cases = [
      { width: 4, options: {} },
      { width: 7, options: { maxWavelength: 100 } },
      { width: 6, options: { order: "halves" } },
      { width: 5, options: { frequencies: [3, 2, 1] } },
    ] as const;
    for (const { width, options } of cases) {
      const positions = [0, 1, 7, 100_000, -3];
      const expected = positions
        .flatMap((position) => sinusoidalEncoding(position, width, options))
        .map(Math.fround);
      expect([...sinusoidalPositions(positions, width, options)]).toEqual(expected);
    }
    expect(sinusoidalPositions(3, 4)).toEqual(sinusoidalPositions([0, 1, 2], 4));
    expect(sinusoidalPositions(0, 4)).toEqual(new Float32Array(0));
  });
});

describe("reference positionBias", () => {
  it("looks buckets up by distance", () => {
    // 4 buckets serve both sides: 0 is for the query's own key, 1 for keys before it, 2 and 3 for
    // keys after it.
    const table = tensor([4, 2], [10, 20, 11, 21, 12, 22, 13, 23]);
    const found = positionBias([1, 2, 2, 2], { table, maxDistance: 8, queryOffset: 1 });
    const bucket = (distance: number) => relativeBucket(distance, 4, true, 8);
    const of = (h: number) => [-1, 0, -2, -1].map((distance) => 10 + 10 * h + bucket(distance));
    close(found, [...of(0), ...of(1)]);
  });
  it("is gated", () => {
    // sigmoid(ln 3) = 3 / 4, sigmoid(0) = 1 / 2: 3 / 4 (1 / 2 * 6 - 1) + 2 = 7 / 2
    const gates = {
      update: tensor([1, 1, 1, 1], [Math.log(3)]),
      reset: tensor([1], [0]),
      scale: tensor([1], [6]),
    };
    close(positionBias([1, 1, 1, 2], { bias: tensor([2], [2, 4]), gates }), [7, 14]);
  });
});

describe("reference positionEncoding", () => {
  const x = tensor([2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8]);
  const table = tensor([3, 2], [10, 20, 30, 40, 50, 60]);
  it("adds rows of a table", () => {
    close(positionEncoding(x, { table }), [11, 22, 33, 44, 15, 26, 37, 48]);
  });
  it("adds them to a multiple of x, and nothing if there is no row", () => {
    const position = (batch: number, row: number) =>
      [
        [2, 3],
        [-1, 0],
      ][batch][row];
    close(positionEncoding(x, { table, position, scale: 2 }), [52, 64, 6, 8, 10, 12, 24, 36]);
  });
  it("adds sinusoidal encodings", () => {
    const options = { position: (batch: number, row: number) => batch + row };
    close(positionEncoding(x, options), [
      1,
      3,
      3 + sin(1),
      4 + cos(1),
      5 + sin(1),
      6 + cos(1),
      7 + sin(2),
      8 + cos(2),
    ]);
  });
});

describe("ALiBi's slopes", () => {
  it("halve from head to head, if the heads are a power of two", () => {
    close(alibiSlopes(8), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]);
    close(alibiSlopes(2), [1 / 16, 1 / 256]);
    close(alibiSlopes(1, 3), [1 / 8]);
  });
  it("are filled up from those of twice as many heads, every second one", () => {
    close(alibiSlopes(6, 4), [1 / 2, 1 / 4, 1 / 8, 1 / 16, 2 ** -0.5, 2 ** -1.5]);
    close(alibiSlopes(3, 6), [1 / 8, 1 / 64, 2 ** -1.5]);
  });
});

describe("T5's buckets", () => {
  it("are one a distance up to half of them, then wider", () => {
    // 8 buckets of one side: 0 1 2 3 alone, then bounds 4 * 2^(k / 4 * log2(64 / 4)) = 4, 8, 16,
    // 32.
    const options = { buckets: 8, bidirectional: false, maxDistance: 64 } as const;
    const behind = t5Buckets(70, 1, options);
    expect(
      [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 69].map((distance) => behind[distance]),
    ).toEqual([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]);
    expect([...t5Buckets(1, 3, options)]).toEqual([0, 0, 0]); // keys after the query
  });
  it("are others for keys after the query, if there are two sides", () => {
    expect([...t5Buckets(2, 3, { buckets: 8, queryOffset: 1 })]).toEqual([1, 0, 5, 2, 1, 0]);
  });
  it("are those of the reference", () => {
    for (const [buckets, bidirectional, maxDistance] of [
      [32, true, 128],
      [32, false, 128],
      [6, true, 20],
      [7, false, 36],
    ] as const) {
      const found = t5Buckets(1, 401, { buckets, bidirectional, maxDistance, queryOffset: 200 });
      const expected = Array.from({ length: 401 }, (_, j) =>
        relativeBucket(j - 200, buckets, bidirectional, maxDistance),
      );
      expect([...found]).toEqual(expected);
    }
  });
});
