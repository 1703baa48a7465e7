// Measuring, on whatever WebGPU this runs on: implementations of one problem are checked first,
// then timed in turns, so that a slow moment of the machine hits all of them alike.

import { FoveaError } from "../src/errors.ts";
import {
  type AttentionProblem,
  createGpuTimer,
  type Tensor,
  type TimingSource,
  tensor,
} from "../src/index.ts";
import { bytesOf, type Dims, flopsOf, windowOf } from "./cost.ts";
import { toF16 } from "./half.ts";
import { inputs } from "./inputs.ts";
import type { Calls } from "./peers/calls.ts";
import { type Verdict, verify } from "./verify.ts";

/** What a plan of any implementation must be able to do. */
export interface Runnable {
  readonly kernel: string;
  readonly workspaceBytes: number;
  encode(pass: GPUComputePassEncoder, memory: Memory): void;
  /** Whether what was computed is right, if it is not attention. */
  verify?(memory: Memory): Promise<Verdict>;
  destroy(): void;
}

/** An implementation: its name in tables, and how it gets ready for a problem. */
export interface Implementation {
  readonly name: string;
  /** Bytes that it moves, and its operations. Default those of attention. */
  bytes?(dims: Dims): number;
  flops?(dims: Dims): number;
  /**
   * Whether some devices lack what the implementation needs. If it is refused with "limit", that is
   * noted, and the others go on.
   */
  readonly optional?: boolean;
  plan(device: GPUDevice, problem: AttentionProblem, dims: Dims): Promise<Runnable>;
}

export interface Memory {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly output: Tensor;
}

/** Milliseconds of one run, or what else was measured in turns. */
export interface Times {
  readonly min: number;
  readonly p10: number;
  readonly median: number;
  readonly p90: number;
}

/** The ratios of all turns: how many times as long one took as another, and what was asked. */
export interface RatioRow extends Times {
  readonly name: string;
  /** Of the median. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** A line of a result file. */
export interface Row {
  readonly suite: string;
  readonly case: string;
  readonly impl: string;
  readonly kernel: string;
  readonly ms: Times;
  readonly rounds: number;
  readonly gflops: number;
  readonly gbps: number;
  /** GB/s as a share of the copy kernel's, if the case has it. */
  readonly ofCopy?: number;
  /** GFLOP/s as a share of those of the kernel of multiply-adds, if the case has it. */
  readonly ofPeak?: number;
  readonly maxError: number;
  readonly correct: boolean;
  readonly workspaceBytes: number;
  /** Dispatches that a run is cut into. */
  readonly dispatches?: number;
  /** Bytes of GPU buffers that a run used beside its inputs and results, if they were counted. */
  readonly memoryBytes?: number;
  /** What one of what it computes asks of WebGPU, if that was counted. */
  readonly calls?: Calls;
  /** How its turns compare with those of others. */
  readonly ratios?: readonly RatioRow[];
  /** Median milliseconds of the parts of a start, in order. */
  readonly phases?: Readonly<Record<string, number>>;
}

export interface Measurement extends Row {
  readonly dims: Dims;
  readonly verdict: Verdict;
  readonly timing: TimingSource;
}

export interface MeasureOptions {
  readonly suite: string;
  readonly name: string;
  readonly dims: Dims;
  readonly implementations: readonly Implementation[];
  readonly rounds: number;
  /**
   * Memory to rotate through, so that a run does not find its inputs in a cache. Default 64 MiB, at
   * most 8 sets.
   */
  readonly rotate?: number;
  /** Operations that the check on the CPU may cost. */
  readonly verifyFlops?: number;
  /** Called when a step of `stepsOf` is done. */
  readonly onStep?: () => void;
  /** Called with a line about an implementation that the device can't run. */
  readonly note?: (text: string) => void;
  /** Called after every round with what is known so far. */
  readonly onRound?: (measurements: Measurement[]) => void;
}

/**
 * Steps that measuring takes, for progress bars: per implementation one for its check and one for
 * each round.
 */
export const stepsOf = ({
  implementations,
  rounds,
}: Pick<MeasureOptions, "implementations" | "rounds">): number =>
  implementations.length * (rounds + 1);

/** An implementation that has been checked and is being timed. */
interface Entrant {
  readonly name: string;
  readonly bytes: number;
  readonly flops: number;
  readonly runnable: Runnable;
  readonly verdict: Verdict;
  /** Runs of one measurement. */
  readonly repeats: number;
  readonly times: number[];
}

/** A case with its implementations checked, ready to be timed. */
interface Contest {
  readonly options: MeasureOptions;
  readonly entrants: readonly Entrant[];
  readonly sets: readonly Memory[];
}

/** Checks and times every implementation of a case. */
export const measure = (device: GPUDevice, options: MeasureOptions): Promise<Measurement[]> =>
  measureTogether(device, [options]);

/**
 * Checks every implementation of several cases, and times them in turns, so that the cases can be
 * compared too.
 */
export async function measureTogether(
  device: GPUDevice,
  cases: readonly MeasureOptions[],
): Promise<Measurement[]> {
  const timer = createGpuTimer(device);
  const used: { destroy(): void }[] = [timer];
  const contests: Contest[] = [];
  const results = () => contests.flatMap((contest) => resultsOf(contest, timer.source));
  try {
    for (const options of cases) contests.push(await enter(device, options, timer, used));
    const rounds = Math.max(...cases.map((options) => options.rounds));
    for (let round = 0; round < rounds; round++) {
      for (const { options, entrants, sets } of contests) {
        for (const { runnable, repeats, times } of entrants) {
          const total = await timer.time((pass) => {
            for (let run = 0; run < repeats; run++) runnable.encode(pass, sets[run % sets.length]);
          });
          times.push(total / repeats);
          options.onStep?.();
        }
        options.onRound?.(results());
      }
    }
    return results();
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Makes the inputs of a case, and checks its implementations. */
async function enter(
  device: GPUDevice,
  options: MeasureOptions,
  timer: ReturnType<typeof createGpuTimer>,
  used: { destroy(): void }[],
): Promise<Contest> {
  const {
    name,
    dims,
    implementations,
    rounds,
    verifyFlops,
    onStep = () => {},
    note = () => {},
  } = options;
  const given = inputs(dims, seedOf(name));
  // The tensors must hold these numbers exactly.
  const arrays = dims.dtype
    ? { q: given.q.map(toF16), k: given.k.map(toF16), v: given.v.map(toF16) }
    : given;
  const setCount = Math.min(8, Math.ceil((options.rotate ?? 2 ** 26) / Math.max(1, bytesOf(dims))));
  const sets = Array.from({ length: setCount }, () => upload(device, dims, arrays));
  used.push(...sets.flatMap((set) => Object.values(set)));
  const entrants: Entrant[] = [];
  for (const { name: impl, optional, plan, bytes = bytesOf, flops = flopsOf } of implementations) {
    let runnable: Runnable;
    try {
      runnable = await plan(device, problemOf(dims, sets[0]), dims);
    } catch (error) {
      if (!optional || !(error instanceof FoveaError) || error.code !== "limit") throw error;
      note(`${options.suite}, ${name}: ${impl} is not offered by this adapter: ${error.message}`);
      for (let step = 0; step <= rounds; step++) onStep();
      continue;
    }
    used.push(runnable);
    // The first run may have waited for a compiler.
    const first = await timer.time((pass) => runnable.encode(pass, sets[0]));
    const once = Math.min(first, await timer.time((pass) => runnable.encode(pass, sets[0])));
    const verdict =
      (await runnable.verify?.(sets[0])) ??
      verify(dims, arrays, await sets[0].output.read(), verifyFlops);
    poison(device, sets[0].output);
    // Clocks tick in tenths of a millisecond, so a measurement lasts 5 ms or longer.
    const repeats = Math.min(200, Math.max(1, Math.ceil(5 / Math.max(once, 0.01))));
    entrants.push({
      name: impl,
      bytes: bytes(dims),
      flops: flops(dims),
      runnable,
      verdict,
      repeats,
      times: [],
    });
    onStep();
  }
  return { options, entrants, sets };
}

function resultsOf({ options, entrants }: Contest, timing: TimingSource): Measurement[] {
  const found = entrants.map((entrant) => measurementOf(entrant, options, timing));
  const copy = found.find(({ impl }) => impl === "copy");
  const peak = found.find(({ impl }) => impl === "fma");
  return found.map((row) => ({
    ...row,
    ...(copy && { ofCopy: row.gbps / copy.gbps }),
    ...(peak && { ofPeak: row.gflops / peak.gflops }),
  }));
}

function measurementOf(
  { name, bytes, flops, runnable, verdict, times }: Entrant,
  { suite, name: case_, dims, rounds }: MeasureOptions,
  timing: TimingSource,
): Measurement {
  const ms = summarize(times);
  return {
    suite,
    case: case_,
    impl: name,
    kernel: runnable.kernel,
    ms,
    rounds,
    gflops: flops / ms.median / 1e6,
    gbps: bytes / ms.median / 1e6,
    maxError: verdict.maxError,
    correct: verdict.correct,
    workspaceBytes: runnable.workspaceBytes,
    dims,
    verdict,
    timing,
  };
}

/** Minimum, 10th percentile, median and 90th percentile, by the nearest rank. */
export function summarize(times: readonly number[]): Times {
  const sorted = [...times].sort((a, b) => a - b);
  const rank = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
  return { min: sorted[0], p10: rank(0.1), median: rank(0.5), p90: rank(0.9) };
}

const seedOf = (name: string) =>
  [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 1_000_003, 7);

function upload(
  device: GPUDevice,
  dims: Dims,
  { q, k, v }: Record<"q" | "k" | "v", Float32Array>,
): Memory {
  const { B, H, Hkv, M, N, D, Dv, dtype = "f32" } = dims;
  const output = new Float32Array(B * H * M * Dv).fill(Number.NaN);
  return {
    q: tensor(device, [B, H, M, D], { data: q, dtype, label: "q" }),
    k: tensor(device, [B, Hkv, N, D], { data: k, dtype, label: "k" }),
    v: tensor(device, [B, Hkv, N, Dv], { data: v, dtype, label: "v" }),
    output: tensor(device, [B, H, M, Dv], { data: output, dtype, label: "output" }),
  };
}

/** Makes sure that the next implementation can't pass with the output of the one before. */
function poison(device: GPUDevice, output: Tensor): void {
  device.queue.writeBuffer(
    output.buffer,
    0,
    new Uint32Array(output.buffer.size / 4).fill(0x7fff7fff),
  ); // NaN of any dtype
}

function problemOf(dims: Dims, memory: Memory): AttentionProblem {
  const { causal, kvLengths, similarity } = dims;
  return {
    ...memory,
    causal,
    ...windowOf(dims),
    ...(kvLengths && { kvLengths }),
    ...(similarity && { similarity }),
  };
}
