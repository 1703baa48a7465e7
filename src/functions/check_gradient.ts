// Compares the derivatives of a score function with difference quotients of it, on the GPU.

import { check, show } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { Tensor } from "../gpu/tensor.ts";
import { seeded } from "../seeded.ts";
import { AttentionFunction, type ScoreFunction } from "./attention_function.ts";
import { numberOf } from "./captures.ts";
import { gradientOf } from "./gradient.ts";
import { type Comparison, compare, excess, type Pair } from "./gradient_comparison.ts";
import { type Bound, type Sample, ScoreSamples } from "./score_samples.ts";

/** Where and how {@link checkGradient} looks. */
export interface CheckGradientOptions {
  /** Batch entries that places are drawn from. Default 1. */
  readonly batch?: number;
  /** Query heads that places are drawn from. Default 1. */
  readonly heads?: number;
  /**
   * Queries that places are drawn from. Default 16. A captured tensor has to have the elements that
   * scores of all these places read.
   */
  readonly seqQ?: number;
  /** Keys that places are drawn from. Default 16. */
  readonly seqKv?: number;
  /** Scores are drawn from -range to range. Default 8. */
  readonly range?: number;
  /** How many scores and places are drawn. Default 256. */
  readonly samples?: number;
  /** Default 1. */
  readonly seed?: number;
  /** The part of a derivative by which it may be off. Default 0.01. */
  readonly tolerance?: number;
}

const OPTIONS: OptionNames<CheckGradientOptions> = {
  batch: "number",
  heads: "number",
  seqQ: "number",
  seqKv: "number",
  range: "number",
  samples: "number",
  seed: "number",
  tolerance: "number",
};

/** What {@link checkGradient} found. */
export interface GradientCheck {
  /** Whether all derivatives are within their bounds. */
  readonly within: boolean;
  /** Derivatives that were compared. */
  readonly compared: number;
  /** The one that is off by most, as a part of what it may be off by. */
  readonly worst:
    | {
        /** `"s"`, or the name of a capture. */
        readonly by: string;
        readonly s: number;
        readonly at: {
          readonly batch: number;
          readonly head: number;
          readonly qIdx: number;
          readonly kvIdx: number;
          readonly position: number;
        };
        /**
         * What the derivative says and what the difference quotient says: of a captured tensor,
         * the sum over the elements that the score reads of derivative times direction.
         */
        readonly derivative: number;
        readonly quotient: number;
        readonly difference: number;
        readonly allowed: number;
      }
    | undefined;
}

/** Steps, as parts of what is moved: the smaller one for functions with bends. */
const STEPS = [2 ** -6, 2 ** -10] as const;
/**
 * Compares the derivatives that a score function was made with (the option `gradient`) with central
 * difference quotients of the function, on the GPU, at seeded scores and places: by s, by each
 * captured number with a derivative, and by the elements of each captured tensor, which all move
 * at once in a random direction, so that an element which the derivatives forget shows, too.
 *
 * A derivative may be off by `tolerance` times the quotient, or times a hundredth of the largest
 * quotient if that is more, and by what rounding to f32 makes of the quotient. Two steps are tried
 * and the better one counts. Scores at which the function hides the key are left out.
 *
 * Rejects with FoveaError: `"argument"`, also for a function without derivatives; `"shader"`, with a
 * place in the texts; `"out-of-memory"`.
 *
 * @example
 * const halved = scoreFunction("fn score(s: f32, at: Position) -> f32 { return 0.5 * s; }", {
 *   gradient: "fn gradient(s: f32, at: Position) -> f32 { return 0.5; }",
 * });
 * const { within, worst } = await checkGradient(device, halved, { heads: 8, seqQ: 64, seqKv: 64 });
 * if (!within) console.warn("wrong derivative by", worst);
 */
export async function checkGradient(
  device: GPUDevice,
  scoreFunction: ScoreFunction,
  options: CheckGradientOptions = {},
): Promise<GradientCheck> {
  const name = "checkGradient";
  checkDevice(device);
  const isScore = scoreFunction instanceof AttentionFunction && scoreFunction.kind === "score";
  check(
    isScore,
    "argument",
    () => `${name}: expected a function from scoreFunction(), got ${show(scoreFunction)}.`,
  );
  const { captures, label } = scoreFunction;
  check(
    scoreFunction.gradient !== undefined,
    "argument",
    () => `${name}: the ${label} was made without the option gradient; there is nothing to check.`,
  );
  const gradient = gradientOf(scoreFunction);
  const taken = resolveOptions(name, await readOptions(name, options, OPTIONS));
  const random = seeded(taken.seed);
  const samples = drawSamples(taken, random);
  const functionSamples = new ScoreSamples(device, scoreFunction);
  const made: Tensor[] = [];
  const keep = <One extends Tensor>(one: One) => {
    made.push(one);
    return one;
  };
  try {
    const base = await functionSamples.evaluate(samples);
    const compared: Comparison[] = [];
    const { tolerance } = taken;
    const add = (by: string, pairs: readonly Pair[], derivatives: readonly number[]) =>
      compared.push(...compare(by, { samples, base, pairs, derivatives, tolerance }));
    const moved = async (by: number): Promise<readonly number[]> => {
      const shifted = samples.map((one) => ({ ...one, s: Math.fround(one.s + by) }));
      return (await functionSamples.evaluate(shifted)).map(({ score }) => score);
    };
    add(
      "s",
      await pairsOf(1, moved),
      base.map(({ slope }) => slope),
    );
    for (const [index, captured] of [...gradient.reads.keys()].entries()) {
      const value = captures[captured];
      const array = value instanceof Tensor;
      const numbers = array
        ? Array.from((await value.read()) as Float32Array)
        : [numberOf(value).value];
      const size = Math.sqrt(numbers.reduce((sum, x) => sum + x * x, 0) / numbers.length) || 1;
      const direction = numbers.map(() =>
        array ? (random() < 0.5 ? -1 : 1) * (0.5 + random()) : 1,
      );
      const along = async (by: number) => {
        const bound = numbers.map((x, i) => x + by * direction[i]);
        const override: Bound = array
          ? keep(tensor(device, value.shape, { data: new Float32Array(bound) }))
          : bound[0];
        const found = await functionSamples.evaluate(samples, new Map([[captured, override]]));
        return found.map(({ score }) => score);
      };
      const derivatives = base.map(({ reads }) =>
        reads
          .filter((read) => read.capture === index)
          .reduce((sum, read) => sum + read.derivative * (direction[read.index] ?? 0), 0),
      );
      add(captured, await pairsOf(size, along), derivatives);
    }
    return verdict(compared);
  } finally {
    for (const one of made) one.destroy();
  }
}

type Settings = Required<CheckGradientOptions>;

function resolveOptions(name: string, given: CheckGradientOptions): Settings {
  const { batch = 1, heads = 1, seqQ = 16, seqKv = 16, samples = 256, seed = 1 } = given;
  const { range = 8, tolerance = 0.01 } = given;
  for (const [option, value] of Object.entries({ batch, heads, seqQ, seqKv, samples })) {
    check(
      Number.isInteger(value) && value >= 1 && value <= (option === "samples" ? 2 ** 16 : 2 ** 29),
      "argument",
      () => `${name}: ${option} must be a whole number from 1 up, got ${value}.`,
    );
  }
  for (const [option, value] of Object.entries({ range, tolerance })) {
    check(
      Number.isFinite(value) && value > 0,
      "argument",
      () => `${name}: ${option} must be a positive number, got ${value}.`,
    );
  }
  check(
    Number.isInteger(seed),
    "argument",
    () => `${name}: seed must be a whole number, got ${seed}.`,
  );
  return { batch, heads, seqQ, seqKv, samples, seed, range, tolerance };
}

function drawSamples(
  { batch, heads, seqQ, seqKv, samples, range }: Settings,
  random: () => number,
): Sample[] {
  const below = (count: number) => Math.floor(random() * count);
  return Array.from({ length: samples }, () => {
    const qIdx = below(seqQ);
    return {
      s: Math.fround((2 * random() - 1) * range),
      batch: below(batch),
      head: below(heads),
      qIdx,
      kvIdx: below(seqKv),
      position: qIdx + seqKv - seqQ,
    };
  });
}

/** Scores on both sides, for each step. `size` is the magnitude of what moves. */
async function pairsOf(
  size: number,
  scoresAt: (by: number) => Promise<readonly number[]>,
): Promise<Pair[]> {
  const pairs: Pair[] = [];
  for (const part of STEPS) {
    const step = part * size;
    pairs.push({ low: await scoresAt(-step), high: await scoresAt(step), step });
  }
  return pairs;
}

function verdict(compared: readonly Comparison[]): GradientCheck {
  if (!compared.length) return { within: false, compared: 0, worst: undefined };
  const worst = compared.reduce((a, b) => (excess(b) > excess(a) ? b : a));
  const { sample, ...rest } = worst;
  const { s, ...at } = sample;
  return { within: excess(worst) <= 1, compared: compared.length, worst: { ...rest, s, at } };
}
