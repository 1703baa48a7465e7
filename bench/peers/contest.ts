// Fovea beside other libraries. Each computes the same from the same inputs, on its own device, in
// turns, and is timed from the call until its GPU is done, because libraries keep their command
// encoders to themselves. What each gives is compared with float64 first.
//
// To add a contest: say what is computed (`Contest`), and for each library how, by
// `foveaContestant`, `tfjsContestant` (./tfjs.ts) and `jaxContestant` (./jax.ts), which take the
// inputs and a function of their tensors. A suite in ../suites.ts may list contests like cases.
// Libraries run in browsers only; on Dawn in Node Fovea is alone.

import { errorBound } from "../../src/reference/bounds.ts";
import { worstElement } from "../../src/reference/index.ts";
import type { Dims } from "../cost.ts";
import { type Measurement, summarize } from "../harness.ts";

/** Dense input of a contest. */
export interface Input {
  readonly data: Float32Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

/** An implementation that takes part, ready to run. */
export interface Contestant {
  /** What runs: a kernel, or a library's version. */
  readonly kernel: string;
  /** Bytes of scratch memory; NaN if a library does not tell. */
  readonly workspaceBytes: number;
  /** Dispatches of a run, if they are known. */
  readonly dispatches?: number;
  /** Whether it computes something else, for comparison, so that its values are not checked. */
  readonly yardstick?: boolean;
  /** Computes once, and resolves when the GPU is done. */
  run(): Promise<unknown>;
  /** The result, in row-major order. */
  read(): Promise<ArrayLike<number>>;
  destroy(): void;
}

export interface Contest {
  readonly name: string;
  /** Sizes, for tables. */
  readonly dims: Dims;
  /** Operations and bytes, for rates. */
  readonly flops: number;
  readonly bytes: number;
  /**
   * Whether the shortest run of a turn counts, not the mean: for work so small that the time
   * depends on how often its end is polled.
   */
  readonly shortest?: boolean;
  /** Rounds that are enough. Default any number. */
  readonly mostRounds?: number;
  /** Makers of contestants, by name. The others are compared with the first. */
  readonly contestants: Readonly<Record<string, (device: GPUDevice) => Promise<Contestant>>>;
  /**
   * What the result must be, or some of it: elements `at` of the result, in float64 and in plain
   * f32.
   */
  expected(): { at: readonly number[]; f64: ArrayLike<number>; plain: ArrayLike<number> };
}

/** Contestants that are not ours: if they are wrong, that is said, but does not fail the bench. */
export const LIBRARIES: readonly string[] = [
  "ort-webgpu",
  "ort-wasm",
  "jax-js",
  "jax-wasm",
  "tfjs",
];

/**
 * A measurement lasts at least so many milliseconds, because clocks of browsers tick in tenths of
 * one.
 */
const SHORTEST = 5;

/** Runs of a turn whose shortest run counts. */
const SHORT_RUNS = 20;

/**
 * A run of so many milliseconds or more needs no untimed run before it. Before shorter runs, each
 * turn has an untimed one, which waits for memory that the turn before has yet to give back, and
 * warms the caches.
 */
const LONG = 200;

/** The contest without the libraries that are not among `peers`. */
export const among = (contest: Contest, peers: readonly string[]): Contest => ({
  ...contest,
  contestants: Object.fromEntries(
    Object.entries(contest.contestants).filter(
      ([name]) => !LIBRARIES.includes(name) || peers.includes(name),
    ),
  ),
});

/** Steps that a contest takes, for progress bars. */
export const contestSteps = (
  { contestants, mostRounds = Number.POSITIVE_INFINITY }: Contest,
  rounds: number,
): number => Object.keys(contestants).length * (Math.min(rounds, mostRounds) + 1);

/**
 * Checks and times every contestant. A contestant that its library can't run is left out, and
 * `note` is told why.
 */
export async function runContest(
  device: GPUDevice,
  suite: string,
  contest: Contest,
  {
    onStep,
    note,
    ...options
  }: { rounds: number; onStep: () => void; note: (text: string) => void },
): Promise<Measurement[]> {
  const rounds = Math.min(options.rounds, contest.mostRounds ?? options.rounds);
  const { at, f64, plain } = contest.expected();
  const bound = errorBound(f64, plain, "f32");
  const entrants: {
    name: string;
    one: Contestant;
    times: number[];
    repeats: number;
    short: boolean;
    worst: Worst;
  }[] = [];
  try {
    for (const [name, make] of Object.entries(contest.contestants)) {
      try {
        const one = await make(device);
        const worst = one.yardstick
          ? { ...worstElement([], [], [0]), error: 0 }
          : await worstOf(one, at, f64);
        entrants.push({ name, one, times: [], repeats: 1, short: false, worst });
      } catch (error) {
        note(
          `${contest.name}: ${name} can't run: ${error instanceof Error ? error.message : error}`,
        );
      }
      onStep();
    }
    for (const entrant of entrants) {
      const once = await timed(entrant.one, 1, contest.shortest);
      entrant.short = once < LONG;
      entrant.repeats = contest.shortest
        ? SHORT_RUNS
        : Math.max(1, Math.ceil(SHORTEST / Math.max(once, 0.05)));
    }
    for (let round = 0; round < rounds; round++) {
      for (const { one, times, repeats, short } of entrants) {
        if (short) await one.run();
        times.push(await timed(one, repeats, contest.shortest));
        onStep();
      }
    }
    return entrants.map(({ name, one, times, worst }): Measurement => {
      const ms = summarize(times);
      const correct = worst.error <= bound;
      const verdict = {
        correct,
        maxError: worst.error,
        bound,
        worst,
        rows: at.length,
        ofRows: at.length,
      };
      return {
        suite,
        case: contest.name,
        impl: name,
        kernel: one.kernel,
        ms,
        rounds,
        dims: contest.dims,
        verdict,
        gflops: contest.flops / ms.median / 1e6,
        gbps: contest.bytes / ms.median / 1e6,
        maxError: worst.error,
        correct,
        workspaceBytes: one.workspaceBytes,
        timing: "wall-clock",
        ...(one.dispatches !== undefined && { dispatches: one.dispatches }),
      };
    });
  } finally {
    for (const { one } of entrants) one.destroy();
  }
}

type Worst = ReturnType<typeof worstElement>;

async function worstOf(
  one: Contestant,
  at: readonly number[],
  f64: ArrayLike<number>,
): Promise<Worst> {
  await one.run();
  const all = await one.read();
  const chosen = Float64Array.from(at, (index) => all[index]);
  return worstElement(chosen, f64, [f64.length]);
}

/** Milliseconds of a run: the mean of several, or the shortest. */
async function timed(one: Contestant, repeats: number, shortest = false): Promise<number> {
  const times: number[] = [];
  const started = performance.now();
  for (let run = 0; run < repeats; run++) {
    const begun = performance.now();
    await one.run();
    times.push(performance.now() - begun);
  }
  return shortest ? Math.min(...times) : (performance.now() - started) / repeats;
}
