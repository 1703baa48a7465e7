// Sound as models of speech take it: powers of mel bands, by logarithm.

import { check, show } from "../errors.ts";

/** Samples a second. */
export const SAMPLE_RATE = 16_000;

/** Samples from one frame to the next. */
export const HOP = 160;

/** Samples of a frame: ROOT squared, so that its transform is two short ones. */
const FRAME = 400;
const ROOT = 20;

/** Frequencies of a real frame. */
const BINS = FRAME / 2 + 1;

/** The least power that a logarithm is taken of. */
const FLOOR = 1e-10;

/** How far below the loudest band others may be, in powers of ten. */
const RANGE = 8;

/** cos and -sin of 2 pi k / FRAME. */
const COS = Float64Array.from({ length: FRAME }, (_, k) => Math.cos((2 * Math.PI * k) / FRAME));
const SIN = Float64Array.from({ length: FRAME }, (_, k) => -Math.sin((2 * Math.PI * k) / FRAME));

/** Hann's window, periodic. */
const WINDOW = Float64Array.from(COS, (cos) => 0.5 - 0.5 * cos);

/**
 * The logarithms of the powers of mel bands, as Whisper takes them: frames of 25 ms every 10 ms,
 * each under Hann's window and centred on its time; powers of their Fourier transforms; `bands`
 * triangles on Slaney's mel scale from 0 to 8000 Hz, each of area 1; log10 of what is at least
 * 1e-10, cut 8 below the loudest; (x + 4) / 4. All in float64. Source: Robust Speech Recognition
 * via Large-Scale Weak Supervision (arXiv 2212.04356), section 2.2, and its code.
 *
 * @param samples At 16 kHz, from -1 to 1
 * @param bands 80 for most models, 128 for the third large one
 * @param frames Frames of the result, 10 ms each: samples that are missing are 0. Default: as many
 *   as it takes
 * @returns [bands, frames], row by row
 * @throws FoveaError("argument") for more samples than the frames have, for less than 25 ms of
 *   frames, and for samples that are not finite
 *
 * @example
 * const features = logMel(samples, 80, 3000);
 */
export function logMel(
  samples: ArrayLike<number>,
  bands: number,
  frames = Math.ceil(samples.length / HOP),
): Float32Array<ArrayBuffer> {
  check(
    [bands, frames].every((size) => Number.isSafeInteger(size) && size > 0) &&
      frames * HOP > FRAME / 2,
    "argument",
    () =>
      `logMel: takes whole numbers of bands and frames, got ${show(bands)} and ${show(frames)}.`,
  );
  check(
    samples.length <= frames * HOP,
    "argument",
    () =>
      `logMel: ${samples.length} samples are more than ${frames} frames of 10 ms at 16 kHz have; cut them into parts.`,
  );
  const powers = powersOf(samples, frames);
  const triangles = trianglesOf(bands);
  const logs = new Float64Array(bands * frames);
  let loudest = Number.NEGATIVE_INFINITY;
  for (const [band, { first, weights }] of triangles.entries()) {
    for (let frame = 0; frame < frames; frame++) {
      let sum = 0;
      for (let at = 0; at < weights.length; at++)
        sum += weights[at] * powers[frame * BINS + first + at];
      const log = Math.log10(Math.max(sum, FLOOR));
      logs[band * frames + frame] = log;
      loudest = Math.max(loudest, log);
    }
  }
  check(Number.isFinite(loudest), "argument", () => "logMel: there is a sample that isn't finite.");
  return Float32Array.from(logs, (log) => (Math.max(log, loudest - RANGE) + 4) / 4);
}

/** The powers of all frequencies of each frame, [frames, BINS]. */
function powersOf(samples: ArrayLike<number>, frames: number): Float64Array {
  const powers = new Float64Array(frames * BINS);
  const length = frames * HOP;
  const last = length - 1;
  /** A sample of the sound, which is mirrored at both ends. */
  const heard = (at: number) => {
    const place = at < 0 ? -at : at > last ? 2 * last - at : at;
    return place < samples.length ? samples[place] : 0;
  };
  const re = new Float64Array(FRAME);
  const im = new Float64Array(FRAME);
  // The transform is of complex numbers, and takes two frames at a time.
  for (let frame = 0; frame < frames; frame += 2) {
    const hasSecond = frame + 1 < frames;
    const begin = frame * HOP - FRAME / 2;
    for (let n = 0; n < FRAME; n++) {
      re[n] = WINDOW[n] * heard(begin + n);
      im[n] = hasSecond ? WINDOW[n] * heard(begin + HOP + n) : 0;
    }
    transform(re, im);
    for (let k = 0; k < BINS; k++) {
      const mirror = (FRAME - k) % FRAME;
      const first = (re[k] + re[mirror]) ** 2 + (im[k] - im[mirror]) ** 2;
      const second = (im[k] + im[mirror]) ** 2 + (re[k] - re[mirror]) ** 2;
      powers[frame * BINS + k] = first / 4;
      if (hasSecond) powers[(frame + 1) * BINS + k] = second / 4;
    }
  }
  return powers;
}

const innerRe = new Float64Array(FRAME);
const innerIm = new Float64Array(FRAME);

/**
 * The Fourier transform in place, by two of ROOT each: with n = ROOT n1 + n2 and k = k1 + ROOT k2,
 * sums over n1 first, then turns by n2 k1, then sums over n2.
 */
function transform(re: Float64Array, im: Float64Array): void {
  for (let n2 = 0; n2 < ROOT; n2++) {
    for (let k1 = 0; k1 < ROOT; k1++) {
      let sumRe = 0;
      let sumIm = 0;
      for (let n1 = 0; n1 < ROOT; n1++) {
        const turn = ((n1 * k1) % ROOT) * ROOT;
        const at = n1 * ROOT + n2;
        sumRe += COS[turn] * re[at] - SIN[turn] * im[at];
        sumIm += COS[turn] * im[at] + SIN[turn] * re[at];
      }
      const turn = n2 * k1;
      innerRe[k1 * ROOT + n2] = COS[turn] * sumRe - SIN[turn] * sumIm;
      innerIm[k1 * ROOT + n2] = COS[turn] * sumIm + SIN[turn] * sumRe;
    }
  }
  for (let k1 = 0; k1 < ROOT; k1++) {
    for (let k2 = 0; k2 < ROOT; k2++) {
      let sumRe = 0;
      let sumIm = 0;
      for (let n2 = 0; n2 < ROOT; n2++) {
        const turn = ((n2 * k2) % ROOT) * ROOT;
        const at = k1 * ROOT + n2;
        sumRe += COS[turn] * innerRe[at] - SIN[turn] * innerIm[at];
        sumIm += COS[turn] * innerIm[at] + SIN[turn] * innerRe[at];
      }
      re[k1 + ROOT * k2] = sumRe;
      im[k1 + ROOT * k2] = sumIm;
    }
  }
}

/** The bins of a band that count, and their weights. */
interface Triangle {
  readonly first: number;
  readonly weights: readonly number[];
}

function trianglesOf(bands: number): readonly Triangle[] {
  const highest = melsOf(SAMPLE_RATE / 2);
  const corners = Array.from({ length: bands + 2 }, (_, at) =>
    hertzOf((highest * at) / (bands + 1)),
  );
  return Array.from({ length: bands }, (_, band) => {
    const [low, middle, high] = corners.slice(band, band + 3);
    const all = Array.from({ length: BINS }, (_, bin) => {
      const hertz = (bin * SAMPLE_RATE) / FRAME;
      const share = Math.min((hertz - low) / (middle - low), (high - hertz) / (high - middle));
      return (Math.max(0, share) * 2) / (high - low);
    });
    const first = Math.max(
      0,
      all.findIndex((weight) => weight > 0),
    );
    const end = all.findLastIndex((weight) => weight > 0) + 1;
    return { first, weights: all.slice(first, Math.max(first, end)) };
  });
}

// Slaney's scale: linear up to 1000 Hz, which is 15 mels, and then 27 mels for a factor of 6.4.
const LINEAR_END = 1000;
const MELS_AT_END = 15;
const MELS_A_FACTOR = 27 / Math.log(6.4);

const melsOf = (hertz: number) =>
  hertz < LINEAR_END
    ? (hertz * MELS_AT_END) / LINEAR_END
    : MELS_AT_END + Math.log(hertz / LINEAR_END) * MELS_A_FACTOR;

const hertzOf = (mels: number) =>
  mels < MELS_AT_END
    ? (mels * LINEAR_END) / MELS_AT_END
    : LINEAR_END * Math.exp((mels - MELS_AT_END) / MELS_A_FACTOR);
