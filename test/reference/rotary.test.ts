// The reference rotary embedding, and the engine's frequencies, against numbers worked by hand.

import { describe, expect, it } from "vitest";
import {
  rotaryFrequencies as ours,
  type RotaryOptions,
} from "../../src/positions/rotary_options.ts";
import { rotary, rotaryFrequencies } from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

/** Expects these from both implementations. */
function frequencies(
  rotaryDim: number,
  options: RotaryOptions,
  expected: number[],
  factor = 1,
): void {
  for (const result of [ours(rotaryDim, options), rotaryFrequencies(rotaryDim, options)]) {
    close(result.frequencies, expected);
    expect(result.attentionFactor).toBeCloseTo(factor, 12);
  }
}

/** Returns the number of positions in which a pair of frequency 1 makes `count` turns. */
const turns = (count: number) => 2 * Math.PI * count;

describe("rotary frequencies", () => {
  it("fall from 1 by equal factors down to base^(2 / R - 1)", () => {
    frequencies(8, { base: 256 }, [1, 1 / 4, 1 / 16, 1 / 64]);
    frequencies(4, {}, [1, 0.01]);
    frequencies(2, { base: 5 }, [1]);
  });
  it("are divided by the factor of linear scaling", () => {
    frequencies(4, { base: 256, scaling: { type: "linear", factor: 4 } }, [1 / 4, 1 / 64]);
  });
  it("fall by the factor of NTK-aware scaling in the last pair, and not at all in the first", () => {
    // base 16 * 8^(4 / 2) = 1024, so 1 and 1 / 32: the 1 / 4 of base 16 divided by 8
    frequencies(4, { base: 16, scaling: { type: "ntk", factor: 8 } }, [1, 1 / 32]);
    frequencies(6, { base: 512, scaling: { type: "ntk", factor: 4 } }, [1, 1 / 16, 1 / 256]);
    frequencies(2, { scaling: { type: "ntk", factor: 8 } }, [1]);
  });
  it("of dynamic NTK are those of the factor that the length needs, and plain ones up to L", () => {
    const scaling = { type: "dynamic", factor: 4, originalMaxPositions: 100 } as const;
    // 4 * 275 / 100 - 3 = 8, so as above
    frequencies(4, { base: 16, scaling: { ...scaling, length: 275 } }, [1, 1 / 32]);
    for (const length of [1, 100])
      frequencies(4, { base: 16, scaling: { ...scaling, length } }, [1, 1 / 4]);
    frequencies(2, { scaling: { ...scaling, length: 275 } }, [1]);
  });
  it("of LongRoPE are divided by the model's factors for this length, with an attention factor", () => {
    const lists = { shortFactor: Float32Array.of(1, 2), longFactor: [4, 8] };
    const scaling = { type: "longrope", factor: 32, originalMaxPositions: 4096, ...lists } as const;
    const factor = Math.sqrt(1 + 5 / 12); // logarithms of 2^5 and 2^12: Phi-3's 1.1902
    frequencies(4, { base: 16, scaling: { ...scaling, length: 4096 } }, [1, 1 / 8], factor);
    frequencies(4, { base: 16, scaling: { ...scaling, length: 4097 } }, [1 / 4, 1 / 32], factor);
    frequencies(4, { base: 16, scaling: { ...scaling, factor: 1, length: 1 } }, [1, 1 / 8]);
    frequencies(
      4,
      { base: 16, scaling: { ...scaling, length: 1 }, attentionFactor: 1.5 },
      [1, 1 / 8],
      1.5,
    );
  });
  it("of Llama 3.1 are kept, mixed or divided by how often they turn", () => {
    // Of 10 turns, 2.5, 0.625 and 0.15625: the second is halfway from 1 to 4, and so half kept and
    // half divided.
    const scaling = { type: "llama3", factor: 8, originalMaxPositions: turns(10) } as const;
    frequencies(8, { base: 256, scaling }, [1, (1 / 4) * (1 / 2 + 1 / 16), 1 / 128, 1 / 512]);
    // A quarter of the way from 2 to 4
    const narrow = { ...scaling, lowFreqFactor: 2, highFreqFactor: 4 } as const;
    frequencies(8, { base: 256, scaling: narrow }, [
      1,
      (1 / 4) * (1 / 4 + 3 / 32),
      1 / 128,
      1 / 512,
    ]);
  });
  it("of YaRN are kept before the ramp, divided after it, and mixed on it", () => {
    // Turns 64, 16, 4, 1, 1/4 ...: 32 turns lie at pair 0.5, 1 turn at pair 3, so the ramp runs
    // from 0 to 3.
    const scaling = { type: "yarn", factor: 2, originalMaxPositions: turns(64) } as const;
    const base = 4 ** 6;
    const factor = 0.1 * Math.log(2) + 1;
    const ramp = [1, 5 / 6, 4 / 6, 1 / 2, 1 / 2, 1 / 2].map((share, k) => share / 4 ** k);
    // The last pair on the ramp is pair 3 up to rounding: the logarithm of its turns may come out
    // above 0.
    const exact = { ...scaling, originalMaxPositions: turns(64) * (1 - 1e-12) };
    frequencies(12, { base, scaling: exact }, ramp, factor);
    // Without truncation from 0.5 to 3: pair 1 is a fifth of the way, pair 2 three fifths.
    const free = [1, 9 / 10, 7 / 10, 1 / 2, 1 / 2, 1 / 2].map((share, k) => share / 4 ** k);
    frequencies(12, { base, scaling: { ...scaling, truncate: false } }, free, factor);
    // From 16 turns to 16 turns is a step behind pair 1.
    const step = [1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2].map((share, k) => share / 4 ** k);
    const both = { ...scaling, betaFast: 16, betaSlow: 16, truncate: false };
    const moved = { ...both, originalMaxPositions: turns(64) * (1 + 1e-9) };
    frequencies(12, { base, scaling: moved }, step, factor);
  });
  it("of YaRN come with an attention factor", () => {
    const scaling = { type: "yarn", factor: Math.exp(10), originalMaxPositions: 4096 } as const;
    const factor = (more: object) => ours(4, { scaling: { ...scaling, ...more } }).attentionFactor;
    expect(factor({})).toBeCloseTo(2, 12);
    expect(factor({ mscale: 3, mscaleAllDim: 1 })).toBeCloseTo(4 / 2, 12);
    expect(factor({ mscale: 0.5, mscaleAllDim: 0 })).toBeCloseTo(1.5, 12);
    expect(factor({ factor: 0.5 })).toBe(1);
    const reference = { ...scaling, mscale: 3, mscaleAllDim: 1 };
    expect(rotaryFrequencies(4, { scaling: reference }).attentionFactor).toBeCloseTo(2, 12);
    frequencies(2, { scaling: { ...scaling, factor: 1 }, attentionFactor: 0.75 }, [1], 0.75);
  });
  it("may be a caller's own", () => {
    frequencies(4, { frequencies: [0.5, -3] }, [0.5, -3]);
  });
});

describe("reference rotary", () => {
  const quarter = { frequencies: [Math.PI / 2, Math.PI] }; // a quarter and half a turn a position
  const x = (rows: number, D: number) =>
    tensor(
      [1, 1, rows, D],
      Array.from({ length: rows * D }, (_, i) => i + 1),
    );

  it("turns half pairs, or interleaved ones", () => {
    // Rows 1..4, 5..8 and 9..12. Pairs (1, 3), (2, 4); at position 1 (5, 7) -> (-7, 5) and (6, 8)
    // -> (-6, -8).
    close(rotary(x(3, 4), quarter), [1, 2, 3, 4, -7, -6, 5, -8, -9, 10, -11, 12]);
    // Pairs (5, 6) -> (-6, 5), (7, 8) -> (-7, -8)
    close(
      rotary(x(3, 4), { ...quarter, interleaved: true }),
      [1, 2, 3, 4, -6, 5, -7, -8, -9, -10, 11, 12],
    );
  });
  it("copies what is not rotated", () => {
    const options = { rotaryDim: 2, frequencies: [Math.PI / 2] };
    close(rotary(x(2, 3), options), [1, 2, 3, -5, 4, 6]);
  });
  it("takes any positions, and turns the other way", () => {
    const options = {
      frequencies: [Math.PI / 2],
      position: (_: number, batch: number, row: number) => batch + 3 * row,
    };
    const two = tensor([2, 1, 2, 2], [1, 2, 1, 2, 1, 2, 1, 2]);
    close(rotary(two, options), [1, 2, 2, -1, -2, 1, 1, 2]);
    close(rotary(two, { ...options, conjugate: true }), [1, 2, -2, 1, 2, -1, 1, 2]);
  });
  it("takes pairs by positions of time, height and width", () => {
    // Positions 0, 1 and 2: pairs of those stay, turn by a quarter, or by a half.
    const options = {
      interleaved: true,
      frequencies: new Array(6).fill(Math.PI / 2),
      position: (s: number) => s,
    };
    const one = tensor([1, 1, 1, 12], new Array(12).fill(1));
    const pairs = (streams: number[]) =>
      streams.flatMap(
        (stream) =>
          [
            [1, 1],
            [-1, 1],
            [-1, -1],
          ][stream],
      );
    close(rotary(one, { ...options, sections: [3, 1, 2] }), pairs([0, 0, 0, 1, 2, 2]));
    const mixed = { ...options, sections: [3, 1, 2], sectionLayout: "interleaved" } as const;
    close(rotary(one, mixed), pairs([0, 1, 2, 0, 0, 2]));
  });
  it("takes cos and sin from a caller, and no turn if there is none", () => {
    const cos = tensor([2, 1], [5, 0]);
    const sin = tensor([2, 1], [0, 3]);
    const position = (_: number, __: number, row: number) => row - 1;
    const rows = tensor([1, 1, 4, 2], [1, 2, 1, 2, 1, 2, 1, 2]);
    close(rotary(rows, { cos, sin, position }), [1, 2, 5, 10, -6, 3, 1, 2]);
  });
  it("multiplies by the attention factor", () => {
    const options = { rotaryDim: 2, frequencies: [Math.PI / 2], attentionFactor: 2 };
    close(rotary(x(2, 3), options), [2, 4, 3, -10, 8, 6]);
  });
  it("turns products of two rows by the distance of their positions only", () => {
    const q = [0.3, -1.2, 0.7, 2];
    const k = [1.1, 0.4, -0.6, 0.9];
    const product = (p: number, j: number) => {
      const [a, b] = [
        [q, p],
        [k, j],
      ].map(([row, at]) =>
        rotary(tensor([1, 1, 1, 4], row as number[]), { position: () => at as number }),
      );
      return a.reduce((sum, value, d) => sum + value * b[d], 0);
    };
    expect(product(7, 3)).toBeCloseTo(product(1004, 1000), 10);
    expect(product(7, 3)).not.toBeCloseTo(product(7, 4), 3);
  });
});
