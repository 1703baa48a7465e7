// Dropout's generator against Random123's known answers, and what attention makes of it.

import { describe, expect, it } from "vitest";
import { attention, dropoutKeeps, threefry2x32 } from "../../src/reference/index.ts";
import { close, tensor, zeros } from "./hand.ts";

describe("threefry2x32", () => {
  it("gives the known answers of Random123 for 20 rounds", () => {
    expect(threefry2x32([0, 0], [0, 0])).toEqual([0x6b200159, 0x99ba4efe]);
    const ones = 0xffffffff;
    expect(threefry2x32([ones, ones], [ones, ones])).toEqual([0x1cb996fc, 0xbb002be7]);
    expect(threefry2x32([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3])).toEqual([
      0xc4923a9c, 0x483df7a0,
    ]);
  });
});

describe("dropoutKeeps", () => {
  it("keeps what is below 1 - p of 2^32", () => {
    // Seed 0, row 0, key 0 draw 0x6b200159, which is 0.4185 of 2^32.
    expect(dropoutKeeps(0, 0.58)(0, 0)).toBe(true);
    expect(dropoutKeeps(0, 0.59)(0, 0)).toBe(false);
    const edge = 0x6b200159;
    const whole = 2 ** 32;
    expect(dropoutKeeps(0, 1 - edge / whole)(0, 0)).toBe(false);
    expect(dropoutKeeps(0, 1 - (edge + 1) / whole)(0, 0)).toBe(true);
  });

  it("has the low half of the seed for the first word of the key, row and key for the counter", () => {
    const seed = 5 * 2 ** 32 + 0xfffffff7;
    for (let row = 0; row < 20; row++) {
      for (let key = 0; key < 20; key++) {
        const draw = threefry2x32([0xfffffff7, 5], [row, key])[0];
        expect(dropoutKeeps(seed, 0.25)(row, key)).toBe(draw < 0.75 * 2 ** 32);
      }
    }
  });

  it("keeps everything at p = 0, nothing at p = 1, and a share of 1 - p between", () => {
    const kept = (p: number) => {
      const keeps = dropoutKeeps(7, p);
      let count = 0;
      for (let at = 0; at < 20_000; at++) if (keeps(Math.floor(at / 200), at % 200)) count++;
      return count / 20_000;
    };
    expect([kept(0), kept(1)]).toEqual([1, 0]);
    // Five standard deviations of the share are 0.018 at most.
    for (const p of [0.1, 0.5, 0.8]) expect(Math.abs(kept(p) - (1 - p))).toBeLessThan(0.018);
  });
});

describe("dropout in attention", () => {
  const M = 3;
  const N = 8;
  const values = Array.from({ length: N }, (_, j) => 2 ** j);
  const run = (options: Parameters<typeof attention>[3]) =>
    attention(zeros(1, 2, M, 1), zeros(1, 1, N, 1), tensor([1, 1, N, 1], values), options);
  const dropout = { p: 0.5, seed: 123 };
  /** Weights are 1/8, and the kept ones are doubled. */
  const expected = (row: number) =>
    values.reduce((sum, value, j) => sum + (dropoutKeeps(123, 0.5)(row, j) ? value / 4 : 0), 0);

  it("drops weights after the softmax and scales the others", () => {
    const { output, lse, rowMax } = run({ dropout });
    close(output, [0, 1, 2, 3, 4, 5].map(expected));
    expect(new Set(output).size).toBe(6);
    close(lse, new Array(6).fill(Math.log(8)));
    close(rowMax, new Array(6).fill(0));
  });

  it("numbers rows in [B, H, M] whichever are computed, and keys whichever are seen", () => {
    close(run({ dropout, rows: [4, 1] }).output, [expected(4), expected(1)]);
    const keeps = dropoutKeeps(123, 0.5);
    const last = values.reduce((sum, value, j) => sum + (j >= 6 && keeps(0, j) ? value : 0), 0);
    close(run({ dropout, rows: [0], window: [1, 0], queryOffset: 7 }).output, [last]);
  });

  it("numbers packed rows over all entries, and keys within theirs", () => {
    const keeps = dropoutKeeps(123, 0.5);
    const packed = run({ dropout, cuSeqlensQ: [0, 1, 3], cuSeqlensKv: [0, 3, 8] });
    for (const row of [1, 2, 4, 5]) {
      const sum = [0, 1, 2, 3, 4].reduce(
        (total, j) => total + (keeps(row, j) ? values[3 + j] / 2.5 : 0),
        0,
      );
      expect(packed.output[row]).toBeCloseTo(sum, 12);
    }
  });

  it("is nothing at p = 0 and gives 0 at p = 1", () => {
    expect(run({ dropout: { p: 0, seed: 1 } })).toEqual(run({}));
    const all = run({ dropout: { p: 1, seed: 1 } });
    close(all.output, new Array(6).fill(0));
    close(all.lse, new Array(6).fill(Math.log(8)));
    close(run({ dropout: { p: 1, seed: 1 }, precision: "f32" }).output, new Array(6).fill(0));
  });
});
