// The logarithms of mel bands against the formula, sum by sum.

import { expect, it } from "vitest";
import { logMel } from "../../src/models/index.ts";
import { normal } from "../../src/reference/random.ts";

/** The Hertz of a mel of Slaney's scale, by going along it: 200 / 3 Hz a mel, then ever more. */
const hertzOf = (mel: number) => (mel <= 15 ? (mel * 200) / 3 : 1000 * 6.4 ** ((mel - 15) / 27));

/** Frames of 400 samples each 160, whose middle is at the frame's time; mirrored at the ends. */
function reference(samples: ArrayLike<number>, bands: number, frames: number) {
  const length = frames * 160;
  const sound = Array.from({ length }, (_, at) => samples[at] ?? 0);
  const mirrored = [
    ...sound.slice(1, 201).reverse(),
    ...sound,
    ...sound.slice(length - 201, length - 1).reverse(),
  ];
  const highest = 15 + (27 * Math.log(8)) / Math.log(6.4);
  const corners = Array.from({ length: bands + 2 }, (_, at) =>
    hertzOf((highest * at) / (bands + 1)),
  );
  const powers = Array.from({ length: frames }, (_, frame) =>
    Array.from({ length: 201 }, (_, k) => {
      let re = 0;
      let im = 0;
      for (let n = 0; n < 400; n++) {
        const windowed = Math.sin((Math.PI * n) / 400) ** 2 * mirrored[frame * 160 + n];
        re += windowed * Math.cos((2 * Math.PI * k * n) / 400);
        im -= windowed * Math.sin((2 * Math.PI * k * n) / 400);
      }
      return re * re + im * im;
    }),
  );
  const logs = Array.from({ length: bands }, (_, band) => {
    const [low, middle, high] = corners.slice(band, band + 3);
    return powers.map((of) => {
      const sum = of.reduce((total, power, k) => {
        const hertz = k * 40;
        const up = (hertz - low) / (middle - low);
        const down = (high - hertz) / (high - middle);
        return total + ((2 * Math.max(0, Math.min(up, down))) / (high - low)) * power;
      }, 0);
      return Math.log10(Math.max(sum, 1e-10));
    });
  });
  const loudest = Math.max(...logs.flat());
  return logs.flat().map((log) => (Math.max(log, loudest - 8) + 4) / 4);
}

it.each([
  [80, 5, 5 * 160],
  [128, 4, 4 * 160 - 77],
  [20, 7, 3 * 160],
])("%d bands of %d frames of %d samples are those of the formula", (bands, frames, count) => {
  const noise = normal(bands, count, 0.1);
  const samples = noise.map((x, at) => x * 0.01 + 0.3 * Math.sin(at * 0.37) + 0.1 * Math.sin(at));
  const found = logMel(samples, bands, frames);
  const expected = reference(samples, bands, frames);
  expect(found).toHaveLength(bands * frames);
  const largest = Math.max(...expected.map((value, at) => Math.abs(value - found[at])));
  expect(largest).toBeLessThan(1e-6);
  expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(0.5);
});

it("counts frames, knows silence, and refuses what does not fit", () => {
  expect(logMel(normal(1, 1000), 8)).toHaveLength(8 * 7);
  expect([...new Set(logMel(new Float32Array(480), 8))]).toEqual([(-10 + 4) / 4]);
  expect(() => logMel(normal(1, 900), 8, 5)).toThrow(/900 samples are more than 5 frames/);
  expect(() => logMel(normal(1, 100), 8)).toThrow(/whole numbers of bands and frames, got 8 and 1/);
  expect(() => logMel(Float32Array.of(1, Number.NaN, 1), 8, 5)).toThrow(/isn't finite/);
});
