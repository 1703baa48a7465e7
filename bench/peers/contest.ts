// Fovea beside other libraries. Each computes the same from the same inputs, on its own device, in
// turns, and is timed from the call until its GPU is done, because libraries keep their command
// encoders to themselves. What each gives is compared with float64 first.
//
// To add a contest: say what is computed (`Contest`), and for each library how, by
// `foveaContestant`, `tfjsContestant` (./tfjs.ts) and `jaxContestant` (./jax.ts), which take the
// inputs and a function of their tensors. A suite in ../suites.ts may list contests like cases.
// Libraries run in browsers only; on Dawn in Node Fovea is alone. A library may take part in
// several ways, which are named LIBRARY:WAY.

import { errorBound } from "../../src/reference/bounds.ts";
import { worstElement } from "../../src/reference/index.ts";
import type { Dims } from "../cost.ts";
import { type Measurement, type RatioRow, summarize } from "../harness.ts";
import type { Verdict } from "../verify.ts";
import { type BindGroups, type BoundBy, type Calls, callsOf, watchBindGroups } from "./calls.ts";
import { watchMemory } from "./memory.ts";

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
  /** What it computes if that is a part of the contest: its result, operations and bytes. */
  readonly part?: Pick<Contest, "expected" | "flops" | "bytes">;
  /** How many of what is timed a run computes: times are of one. Default 1. */
  readonly amount?: number;
  /**
   * Bytes that a run reads of what is kept from run to run, of the bytes that have to be read, by
   * how many dispatches of it had each buffer bound.
   */
  readShare?(boundBy: BoundBy): number;
  /** Comes before each run, and is not timed. */
  prepare?(): Promise<unknown>;
  /** Computes once, and resolves when the GPU is done. */
  run(): Promise<unknown>;
  /** The result, in row-major order. */
  read(): Promise<ArrayLike<number>>;
  destroy(): void;
}

/** Some elements of a result, with what they must be. */
export interface Expected {
  /** Places of the elements in the result. */
  readonly at: readonly number[];
  /** In float64, and in plain f32, whose error says how large an error may be. */
  readonly f64: ArrayLike<number>;
  readonly plain: ArrayLike<number>;
}

/** How many times as long one contestant takes as another one, turn by turn. */
export interface Ratio {
  readonly name: string;
  readonly of: string;
  readonly over: string;
  /** The contest of the latter, if it is another one that takes turns with this one. */
  readonly overCase?: string;
  /** Whose own ratio between the two contests this one is divided by. */
  readonly beside?: string;
  /** What is asked of the median. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface Contest {
  readonly name: string;
  /** Sizes, for tables. */
  readonly dims: Dims;
  /** Operations, for rates; and bytes of the inputs and the result. */
  readonly flops: number;
  readonly bytes: number;
  /** Contests of a suite that have the same word here take turns, so that they can be compared. */
  readonly together?: string;
  /** Ratios that are reported with the row of the contestant `of`. */
  readonly ratios?: readonly Ratio[];
  /**
   * Whether the shortest run of a turn counts, not the mean: for work so small that the time
   * depends on how often its end is polled.
   */
  readonly shortest?: boolean;
  /** Whether what a run asks of WebGPU is counted. */
  readonly counted?: boolean;
  /** Rounds that are enough. Default any number. */
  readonly mostRounds?: number;
  /** Makers of contestants, by name. The others are compared with the first. */
  readonly contestants: Readonly<Record<string, (device: GPUDevice) => Promise<Contestant>>>;
  /** What the result must be, or some of it. If it has several tensors, each has its own bound. */
  expected(): Expected | readonly Expected[];
}

/** Contestants that are not ours: if they are wrong, that is said, but does not fail the bench. */
export const LIBRARIES: readonly string[] = [
  "ort-webgpu",
  "ort-wasm",
  "jax-js",
  "jax-wasm",
  "tfjs",
];

/** The library that a contestant is of, if it is not ours. */
export const libraryOf = (contestant: string): string | undefined =>
  LIBRARIES.find((name) => contestant === name || contestant.startsWith(`${name}:`));

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

/** A first run of so many milliseconds is long, whatever of it was compiling. */
const CERTAINLY_LONG = 10_000;

/** The contest without the libraries that are not among `peers`. */
export const among = (contest: Contest, peers: readonly string[]): Contest => ({
  ...contest,
  contestants: Object.fromEntries(
    Object.entries(contest.contestants).filter(([name]) => {
      const library = libraryOf(name);
      return !library || peers.includes(library);
    }),
  ),
});

/** Steps that a contest takes, for progress bars. */
export const contestSteps = (
  { contestants, mostRounds = Number.POSITIVE_INFINITY }: Contest,
  rounds: number,
): number => Object.keys(contestants).length * (Math.min(rounds, mostRounds) + 1);

/** A contestant that has been checked and is being timed. */
interface Entrant {
  readonly contest: Contest;
  readonly name: string;
  readonly one: Contestant;
  readonly verdict: Verdict;
  /** Bytes of GPU buffers that its first run used, if they could be counted. */
  readonly used: number | undefined;
  readonly calls: Calls | undefined;
  /** Milliseconds of each turn. */
  readonly times: number[];
  /** Runs of a turn. */
  readonly repeats: number;
  readonly short: boolean;
}

interface RunOptions {
  readonly rounds: number;
  readonly onStep: () => void;
  readonly note: (text: string) => void;
}

/** Checks and times every contestant of a contest, or of several that take turns. */
export async function runContests(
  device: GPUDevice,
  suite: string,
  contests: readonly Contest[],
  { rounds: asked, ...options }: RunOptions,
): Promise<Measurement[]> {
  const rounds = Math.min(asked, ...contests.map(({ mostRounds = asked }) => mostRounds));
  const entrants: Entrant[] = [];
  try {
    for (const contest of contests) await enter(device, contest, entrants, options);
    for (let round = 0; round < rounds; round++) {
      for (const { contest, one, times, repeats, short } of inTurns(entrants)) {
        if (short) await timed(one, 1);
        times.push(await timed(one, repeats, contest.shortest));
        options.onStep();
      }
    }
    return entrants.map((entrant) => measurementOf(entrant, entrants, suite, rounds));
  } finally {
    for (const { one } of entrants) one.destroy();
  }
}

/** The order of turns: what several contests compare has its turns next to each other. */
function inTurns(entrants: readonly Entrant[]): Entrant[] {
  const names = [...new Set(entrants.map(({ name }) => name))];
  return names.flatMap((name) => entrants.filter((entrant) => entrant.name === name));
}

/**
 * Makes and checks the contestants of a contest. One that its library can't run is left out, and
 * `note` is told why.
 */
async function enter(
  device: GPUDevice,
  contest: Contest,
  entrants: Entrant[],
  { onStep, note }: Pick<RunOptions, "onStep" | "note">,
): Promise<void> {
  const expected = [contest.expected()].flat();
  const groups = contest.counted ? watchBindGroups() : undefined;
  const memory = watchMemory();
  try {
    for (const [name, make] of Object.entries(contest.contestants)) {
      try {
        const one = await make(device);
        await one.prepare?.();
        const started = performance.now();
        const used = await (memory?.mostOf(() => one.run()) ?? one.run().then(() => undefined));
        const first = performance.now() - started;
        const part = one.part ? [one.part.expected()].flat() : expected;
        const verdict = judge(one.yardstick ? [] : part, one.yardstick ? [] : await one.read());
        const once = first < CERTAINLY_LONG ? await timed(one, 1, contest.shortest) : first;
        const ofRun = once * (one.amount ?? 1);
        const repeats = contest.shortest
          ? SHORT_RUNS
          : Math.max(1, Math.ceil(SHORTEST / Math.max(ofRun, 0.05)));
        const short = ofRun < LONG;
        const calls = groups && (await callsOfOne(one, groups));
        entrants.push({ contest, name, one, verdict, used, calls, times: [], repeats, short });
      } catch (error) {
        note(
          `${contest.name}: ${name} can't run: ${error instanceof Error ? error.message : error}`,
        );
      }
      onStep();
    }
  } finally {
    memory?.stop();
    groups?.stop();
  }
}

/** Compares a result with what it must be. Of several tensors it tells the one that is worst. */
function judge(expected: readonly Expected[], result: ArrayLike<number>): Verdict {
  const rows = expected.reduce((count, { at }) => count + at.length, 0);
  const none = { correct: true, maxError: 0, bound: 0, worst: worstElement([], [], [0]) };
  const tensors = expected.map(({ at, f64, plain }) => {
    const chosen = Float64Array.from(at, (index) => result[index]);
    const worst = worstElement(chosen, f64, [f64.length]);
    const bound = errorBound(f64, plain, "f32");
    return { correct: worst.error <= bound, maxError: worst.error, bound, worst };
  });
  const worst = tensors.reduce(
    (a, b) => (a === none || b.maxError / b.bound > a.maxError / a.bound ? b : a),
    none,
  );
  const correct = tensors.every((one) => one.correct);
  return { ...worst, correct, rows, ofRows: rows };
}

/** A ratio of all turns; none if the contestant that it is over does not take part. */
function ratioRow(
  { name, over, overCase, beside, atMost, atLeast }: Ratio,
  { contest, times }: Entrant,
  entrants: readonly Entrant[],
): RatioRow[] {
  const timesOf = (impl: string, of: string) =>
    entrants.find((one) => one.contest.name === of && one.name === impl)?.times;
  const under = timesOf(over, overCase ?? contest.name);
  const others = beside === undefined ? undefined : [contest.name, overCase ?? contest.name];
  const [here, there] = others?.map((of) => timesOf(beside as string, of)) ?? [];
  if (!under || (others && !(here && there))) return [];
  const spread = summarize(
    times.map((time, turn) => {
      const own = here && there ? here[turn] / there[turn] : 1;
      return time / under[turn] / own;
    }),
  );
  const asked = {
    ...(atMost !== undefined && { atMost }),
    ...(atLeast !== undefined && { atLeast }),
  };
  return [{ name, ...spread, ...asked }];
}

function measurementOf(
  entrant: Entrant,
  entrants: readonly Entrant[],
  suite: string,
  rounds: number,
): Measurement {
  const { contest, name, one, verdict, used, calls, times } = entrant;
  const ms = summarize(times);
  const { flops, bytes } = one.part ?? contest;
  const ratios = (contest.ratios ?? [])
    .filter(({ of }) => of === name)
    .flatMap((ratio) => ratioRow(ratio, entrant, entrants));
  return {
    suite,
    case: contest.name,
    impl: name,
    kernel: one.kernel,
    ms,
    rounds,
    dims: contest.dims,
    verdict,
    gflops: flops / ms.median / 1e6,
    gbps: bytes / ms.median / 1e6,
    maxError: verdict.maxError,
    correct: verdict.correct,
    workspaceBytes: one.workspaceBytes,
    timing: "wall-clock",
    ...(one.dispatches !== undefined && { dispatches: one.dispatches }),
    ...(calls && { calls }),
    ...(used && { memoryBytes: Math.max(0, used - bytes) }),
    ...(ratios.length && { ratios }),
  };
}

/** What one of what a run computes asks of WebGPU. */
async function callsOfOne(one: Contestant, groups: BindGroups): Promise<Calls | undefined> {
  await one.prepare?.();
  const calls = await callsOf(() => one.run(), groups);
  const { amount = 1 } = one;
  return (
    calls && {
      submissions: calls.submissions / amount,
      dispatches: calls.dispatches / amount,
      buffers: calls.buffers / amount,
      ...(one.readShare && { readShare: one.readShare(calls.boundBy) }),
    }
  );
}

/** Milliseconds of one of what runs compute: the mean of several runs, or the shortest. */
async function timed(one: Contestant, repeats: number, shortest = false): Promise<number> {
  const { amount = 1 } = one;
  const times: number[] = [];
  if (!one.prepare && !shortest) {
    const started = performance.now();
    for (let run = 0; run < repeats; run++) await one.run();
    return (performance.now() - started) / repeats / amount;
  }
  for (let run = 0; run < repeats; run++) {
    await one.prepare?.();
    const begun = performance.now();
    await one.run();
    times.push((performance.now() - begun) / amount);
  }
  return shortest ? Math.min(...times) : times.reduce((sum, ms) => sum + ms, 0) / repeats;
}
