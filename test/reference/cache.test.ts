// The reference of caches against numbers worked by hand, and what integers cost attention, as
// shaders/README.md says.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  attention,
  dequantiseRow,
  quantisedWords,
  quantiseRow,
  type ReferenceQuantisation,
  ringRow,
  rmsNorm,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";

describe("quantiseRow", () => {
  it("gives the largest magnitude 127, and rounds ties to even", () => {
    // The scale is 2: 254 / 127.
    const row = [254, -254, 1, 3, 5, -1, -3, 2.0001];
    const { scales, integers } = quantiseRow(row, { bits: 8, group: 8 });
    expect(Array.from(scales)).toEqual([2]);
    expect(Array.from(integers)).toEqual([127, -127, 0, 2, 2, -0, -2, 1].map((q) => q + 0));
    // biome-ignore format: one line
    expect(Array.from(dequantiseRow({ scales, integers }, { bits: 8, group: 8 }))).toEqual([254, -254, 0, 4, 4, 0, -4, 2]);
  });
  it("gives each group its own scale, and 0 to groups of zeros", () => {
    const { scales, integers } = quantiseRow([7, 1, 0, 0, 14, -3.1, 1e-40, 0], {
      bits: 4,
      group: 2,
    });
    expect(Array.from(scales)).toEqual([1, 0, 2, 0]);
    expect(Array.from(integers)).toEqual([7, 1, 0, 0, 7, -2, 0, 0]);
  });
  it("packs scales first, then integers from the lowest bits on", () => {
    const words = quantisedWords([7, -7, 1, -1, 2, -2, 3, -3, 4, 0], { bits: 4, group: 10 });
    expect(Array.from(words, (word) => word.toString(16))).toEqual(["3f800000", "d3e2f197", "4"]);
    const bytes = quantisedWords([127, -127, 1, -1, 2], { bits: 8, group: 5 });
    expect(Array.from(bytes, (word) => word.toString(16))).toEqual(["3f800000", "ff01817f", "2"]);
  });
  it("has no scale for NaN and infinities", () => {
    const words = quantisedWords([1, Number.NaN, 2, 254], { bits: 8, group: 2 });
    expect(Array.from(words, (word) => word.toString(16))).toEqual([
      "7fc00000",
      "40000000",
      "7f010000",
    ]);
  });
});

describe("rmsNorm", () => {
  it("divides by the root of the mean square, and weighs", () => {
    // mean (9 + 16) / 2 = 12.5; with epsilon 3.5 the root is 4
    expect(Array.from(rmsNorm([3, 4, 0, 0], 2, { epsilon: 3.5, weight: [1, 2] }))).toEqual([
      0.75, 2, 0, 0,
    ]);
  });
});

describe("ringRow", () => {
  it("uses rows again, but for sinks", () => {
    expect([0, 1, 2, 3, 4, 5, 6].map((token) => ringRow(token, 2, 3))).toEqual([
      0, 1, 2, 3, 4, 2, 3,
    ]);
    expect(ringRow(9, 0, 0)).toBe(9);
  });
});

describe("what integers cost", () => {
  const H = 2;
  const M = 16;
  const N = 512;
  const D = 64;
  const rms = (x: Float64Array) => Math.sqrt(x.reduce((sum, y) => sum + y * y, 0) / x.length);
  const stored = (x: Float32Array, options: ReferenceQuantisation) => {
    const values = new Float64Array(x.length);
    for (let at = 0; at < x.length; at += D) {
      values.set(dequantiseRow(quantiseRow(x.subarray(at, at + D), options), options), at);
    }
    return values;
  };
  /**
   * Returns the relative error of the output, as a percentage of two digits. One channel of k may
   * be larger, and q smaller.
   */
  function cost(options: ReferenceQuantisation, outlier: number): string {
    const scaled = (seed: number, rows: number, factor: number) =>
      normal(seed, H * rows * D).map((x, i) => (i % D === 5 ? factor * x : x));
    const q = scaled(1, M, 1 / outlier);
    const k = scaled(2, N, outlier);
    const v = scaled(3, N, 1);
    const run = (keys: ArrayLike<number>, values: ArrayLike<number>) =>
      // biome-ignore format: one line
      attention({ data: q, shape: [1, H, M, D] }, { data: keys, shape: [1, H, N, D] }, { data: values, shape: [1, H, N, D] }).output;
    const exact = run(k, v);
    const output = run(stored(k, options), stored(v, options));
    return `${Number(((100 * rms(output.map((x, i) => x - exact[i]))) / rms(exact)).toPrecision(2))} %`;
  }
  it("attention is in the table of shaders/README.md", () => {
    const rows = ([8, 4] as const).flatMap((bits) =>
      [64, 32, 16, 8].map((group) => {
        const options = { bits, group };
        return `| int${bits} | ${group} | ${bits + 32 / group} | ${cost(options, 1)} | ${cost(options, 10)} |`;
      }),
    );
    const readme = readFileSync(join(import.meta.dirname, "../../shaders/README.md"), "utf8");
    expect(readme).toContain(rows.join("\n"));
  });
});
