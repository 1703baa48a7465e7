// Which kernel is the fastest here, by trying: the rows of the tile tables, and the splits of the keys.

import { check, FoveaError } from "../errors.ts";
import { checkDevice, guarded } from "../gpu/buffers.ts";
import { adapterName } from "../gpu/device.ts";
import { Tensor, tensor } from "../gpu/tensor.ts";
import { createGpuTimer, type GpuTimer } from "../gpu/timing.ts";
import { DECODE_SHAPES, MOST_QUERIES } from "../kernels/decode.ts";
import { FORWARD_TILES } from "../kernels/forward.ts";
import type { Dtype } from "../types.ts";
import type { AttentionBindings, OperandName, Operands } from "./operands.ts";
import type { AttentionPlan } from "./plan.ts";
import { kernelsOf, preparePlan } from "./plan_attention.ts";
import { type AttentionProblem, type Cached, type ResolvedProblem, resolveProblem } from "./problem.ts";
import { problemName, type TunedAttention, type TunedCandidate } from "./tuned.ts";

export interface TuneOptions {
  /**
   * Milliseconds of GPU time for the comparison, once all is compiled; slow candidates are dropped after one run, the
   * others have at least three turns. Default 100.
   */
  readonly budget?: number;
  /** Rows of the tile tables to try beside the default. Default: all that can run here. */
  readonly variants?: readonly string[];
}

/**
 * Finds the kernel that computes a problem fastest on this device: times the rows of the tile tables that can run here,
 * and where keys are split over workgroups, other numbers of splits. Each candidate's values are compared with the
 * default's first. The default stays unless another is faster by more than 5 % in two comparisons, turn by turn.
 *
 * The result is plain data, to be stored as JSON and given to plans of this problem on this adapter as `tuned`. Lengths and
 * batch sizes up to the same power of two share one. Compiling the candidates takes longer than timing them: do it once, and
 * when nothing else is to be computed.
 *
 * q, k and v may be tensors, which are read, or descriptions, for which random numbers are made. Results go to tensors of
 * tune's own, and all that it allocates is freed. A cache is timed with the keys that it holds.
 *
 * Rejects with FoveaError as {@link planAttention} does; `"argument"` for a problem with a variant, for other tensors
 * than q, k and v that are only described, and for options that make no sense.
 *
 * @example
 * const problem = { q: { shape: [1, 8, 512, 64] }, k: { shape: [1, 8, 512, 64] }, v: { shape: [1, 8, 512, 64] } };
 * const tuned = await tune(device, problem, { budget: 20, variants: ["8x32"] });
 * const stored = JSON.stringify(tuned);
 * const plan = await planAttention(device, { ...problem, tuned: JSON.parse(stored) });
 */
export async function tune(
  device: GPUDevice,
  problem: AttentionProblem | Cached<AttentionProblem>,
  options: TuneOptions = {},
): Promise<TunedAttention> {
  checkDevice(device);
  const budget = checkOptions(options);
  const resolved = resolveProblem(problem);
  const { label, variant, tuned } = resolved;
  check(
    variant === undefined && tuned === undefined,
    "argument",
    () => `tune: ${label}: leave variant and tuned out: that is what is to be found.`,
  );
  for (const name of ["mask", "bias"] as const) {
    check(
      problem[name] === undefined || problem[name] instanceof Tensor,
      "argument",
      () => `tune: ${name} is only described; give the tensor, since what it holds decides how long attention takes.`,
    );
  }
  const trial = new Trial(device, problem);
  try {
    const standard = await trial.enter(choiceOf(device, resolved));
    const others = runnable(device, resolved, options.variants).filter((name) => name !== standard.choice.variant);
    const choices = others.map((name) => choiceOf(device, { ...resolved, variant: name }));
    await Promise.all(choices.map((choice) => trial.enter(choice)));
    await trial.check();
    let best = await trial.fastest(budget / 3);
    if (best.choice.kvSplits !== undefined && resolved.kvSplits === undefined && trial.timed.length) {
      for (const kvSplits of splitsAround(best.choice.kvSplits, resolved.mostKeys)) {
        await trial.enter({ ...best.choice, kvSplits });
      }
      await trial.check();
      best = await trial.fastest(budget / 3);
    }
    if (best !== standard && !(await trial.duel(best, budget / 3))) best = standard;
    return {
      ...{ adapter: adapterName(device), problem: problemName(device, resolved) },
      ...{ ...best.choice, timing: trial.timing, candidates: trial.candidates() },
    };
  } finally {
    trial.destroy();
  }
}

function checkOptions({ budget = 100, variants }: TuneOptions): number {
  check(
    Number.isFinite(budget) && budget > 0,
    "argument",
    () => `tune: budget must be a positive number of milliseconds, got ${budget}.`,
  );
  for (const name of variants ?? []) {
    check(
      TABLES.includes(name),
      "argument",
      () => `tune: there is no variant ${name}; there are ${TABLES.join(", ")}.`,
    );
  }
  return budget;
}

const SHAPES = DECODE_SHAPES.map(({ name }) => name);
const TABLES = [...FORWARD_TILES.map(({ name }) => name), ...SHAPES];

type Choice = Pick<TunedCandidate, "variant" | "kvSplits">;

function choiceOf(device: GPUDevice, resolved: ResolvedProblem): Choice {
  const { variant, kvSplits } = kernelsOf(device, resolved);
  return { variant, ...(kvSplits !== undefined && { kvSplits }) };
}

/** The rows of the tables that can run this problem here, and may be worth it. */
function runnable(device: GPUDevice, resolved: ResolvedProblem, among = TABLES as readonly string[]): string[] {
  const { seqQ } = resolved;
  return TABLES.filter((variant) => {
    // Tiles of rows waste nearly all of their work on one query, and so does decoding if it takes rows a few at a time.
    if (!among.includes(variant) || (SHAPES.includes(variant) ? seqQ > MOST_QUERIES.tiles : seqQ === 1)) return false;
    try {
      kernelsOf(device, { ...resolved, variant });
      return true;
    } catch (error) {
      if (error instanceof FoveaError) return false; // the tables say why it can't
      throw error;
    }
  });
}

/** Other numbers of splits than the default. */
const splitsAround = (splits: number, keys: number): number[] => {
  const most = Math.min(4096, Math.max(1, Math.ceil(keys / 16)));
  const around = [1 / 4, 1 / 2, 2, 4].map((factor) => Math.round(splits * factor));
  return [...new Set(around)].filter((count) => count >= 1 && count <= most && count !== splits);
};

/** Turns that a comparison takes at least, and at most. */
const TURNS = { least: 3, most: 30 };
/** Milliseconds that a measurement should last: clocks of browsers tick in tenths of one. */
const MEASURED_MS = 2;
/** What is slower than the fastest by this factor in its first run is not run again. */
const HOPELESS = 2;
/** The share of the default's time that another candidate may take at most to replace it. */
const CLEARLY = 0.95;

/** Whether times, turn by turn beside those of the default, are clearly shorter: their median ratio, and most of them. */
export function clearlyFaster(times: readonly number[], standard: readonly number[]): boolean {
  const ratios = times.map((ms, turn) => ms / standard[turn]);
  return median(ratios) < CLEARLY && ratios.filter((ratio) => ratio < 1).length >= 0.75 * ratios.length;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** A choice on trial. */
interface Entrant {
  readonly choice: Choice;
  readonly plan?: AttentionPlan;
  failure?: unknown;
  /** Milliseconds of its first run. */
  first?: number;
  /** Of all turns, and of those of the last comparison. */
  readonly all: number[];
  times: number[];
}

/** Candidates, and the memory that they run on. */
class Trial {
  readonly #device: GPUDevice;
  readonly #problem: AttentionProblem | Cached<AttentionProblem>;
  readonly #entrants: Entrant[] = [];
  readonly #made: { destroy(): void }[] = [];
  readonly #timer: GpuTimer;
  #bindings: AttentionBindings & { readonly output?: Tensor } = {};
  #values: ArrayLike<number> | undefined;

  constructor(device: GPUDevice, problem: AttentionProblem | Cached<AttentionProblem>) {
    this.#device = device;
    this.#problem = problem;
    this.#timer = createGpuTimer(device);
  }

  get timing() {
    return this.#timer.source;
  }

  /** Those that are worth another turn. */
  get timed(): Entrant[] {
    const able = this.#entrants.filter(({ failure, first }) => !failure && first);
    const fastest = Math.min(...able.map(({ first = 0 }) => first));
    return able.filter((one) => one === this.#entrants[0] || (one.first ?? 0) <= HOPELESS * fastest);
  }

  /** Compiles a choice. The first one is the default, and brings the memory. */
  async enter(choice: Choice): Promise<Entrant> {
    const entrant: Entrant = { choice, all: [], times: [] };
    this.#entrants.push(entrant);
    try {
      const { plan, allocated, operands } = await preparePlan(this.#device, { ...this.#problem, ...choice });
      this.#made.push(plan);
      Object.assign(entrant, { plan });
      await allocated;
      if (entrant === this.#entrants[0]) this.#bindings = this.#memory(operands);
      await Promise.all(this.#tensors().map((one) => one.allocated));
    } catch (error) {
      this.#fail(entrant, error);
    }
    return entrant;
  }

  /** Runs those that have not run yet, and compares their values with the default's. */
  async check(): Promise<void> {
    for (const entrant of this.#entrants) {
      if (entrant.failure || entrant.first !== undefined) continue;
      const { output } = this.#bindings;
      if (!output?.size) return; // nothing to compute, and nothing to choose
      try {
        this.#clear(output);
        entrant.first = await this.#time(entrant, 1);
        const values = (await output.read()) as Float32Array;
        this.#values ??= values;
        const difference = differenceOf(values, this.#values);
        const allowed = AGREEMENT[output.dtype] ?? 0;
        if (difference <= allowed) continue;
        const off = Number.isFinite(difference) ? difference.toExponential(1) : "NaN";
        entrant.failure = `its values differ from the default's by ${off} of the largest; at most ${allowed} is rounding`;
      } catch (error) {
        this.#fail(entrant, error);
      }
    }
  }

  /** The fastest of all in turns, if it is clearly faster than the default. */
  async fastest(budget: number): Promise<Entrant> {
    const [standard] = this.#entrants;
    const field = this.timed;
    await this.#race(field, budget);
    const better = field.filter((one) => one !== standard && clearlyFaster(one.times, standard.times));
    return better.sort((a, b) => median(a.times) - median(b.times))[0] ?? standard;
  }

  /** Whether one is clearly faster than the default once more. */
  async duel(one: Entrant, budget: number): Promise<boolean> {
    const [standard] = this.#entrants;
    await this.#race([standard, one], budget);
    return clearlyFaster(one.times, standard.times);
  }

  candidates(): TunedCandidate[] {
    return this.#entrants.map(({ choice, all, first, failure }) => {
      const ms = all.length ? median(all) : first;
      const why = failure instanceof Error ? failure.message : failure;
      return { ...choice, ...(ms !== undefined && { ms }), ...(why !== undefined && { failure: `${why}` }) };
    });
  }

  destroy(): void {
    for (const one of [...this.#made, ...this.#tensors(), this.#timer]) one.destroy();
  }

  /** A candidate that fails is out; the default's failure, or the device's, is the caller's to know. */
  #fail(entrant: Entrant, error: unknown): void {
    if (entrant === this.#entrants[0] || !(error instanceof FoveaError) || error.code === "device-lost") throw error;
    entrant.failure = error;
  }

  /** Turns of all entrants until the budget is spent. */
  async #race(entrants: readonly Entrant[], budget: number): Promise<void> {
    for (const one of entrants) one.times = [];
    let spent = 0;
    for (let turn = 0; turn < TURNS.most && (turn < TURNS.least || spent < budget); turn++) {
      for (const one of entrants) {
        const runs = Math.min(50, Math.max(1, Math.ceil(MEASURED_MS / Math.max(one.first ?? 0, 0.02))));
        const ms = await this.#time(one, runs);
        spent += ms;
        one.times.push(ms / runs);
        one.all.push(ms / runs);
      }
    }
  }

  #time({ plan }: Entrant, runs: number): Promise<number> {
    return this.#timer.time((pass) => {
      for (let run = 0; run < runs; run++) plan?.encode(pass, this.#bindings);
    });
  }

  #clear({ buffer, label }: Tensor): void {
    guarded(this.#device, label, () => {
      const encoder = this.#device.createCommandEncoder({ label });
      encoder.clearBuffer(buffer);
      this.#device.queue.submit([encoder.finish()]);
    }).done.catch(() => {}); // the run that follows reports it
  }

  /** Outputs, and random numbers for what of q, k and v is only described. */
  #memory(operands: Operands): AttentionBindings {
    const made: Partial<Record<OperandName, Tensor>> = {};
    for (const [name, { spec, fallback }] of operands) {
      const isResult = RESULTS.includes(name);
      if (fallback && !isResult) continue;
      const count = spec.shape.reduce((product, size) => product * size, 1);
      const data = isResult ? {} : { data: randomNumbers(count, INPUTS.indexOf(name)) };
      made[name] = tensor(this.#device, spec.shape, { ...spec, ...data, label: `tune ${name}` });
      this.#made.push(made[name]);
    }
    return made as AttentionBindings;
  }

  #tensors(): Tensor[] {
    return Object.values(this.#bindings) as Tensor[];
  }
}

const INPUTS: readonly OperandName[] = ["q", "k", "v"];
const RESULTS: readonly OperandName[] = ["output", "lse", "rowMax"];

/** Differences that other orders of the same sums explain, as shares of the largest value. */
const AGREEMENT: Partial<Record<Dtype, number>> = { f32: 1e-4, f16: 2 ** -9, bf16: 2 ** -6 };

/** The largest difference, as a share of the largest value of `expected`. */
function differenceOf(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [largest, difference] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    if (Number.isNaN(values[i]) && Number.isNaN(expected[i])) continue; // the caller's own tensors hold NaN
    largest = Math.max(largest, Math.abs(expected[i]));
    const off = Math.abs(values[i] - expected[i]);
    difference = Number.isNaN(off) ? Number.POSITIVE_INFINITY : Math.max(difference, off);
    if (difference === Number.POSITIVE_INFINITY) return difference;
  }
  return difference === 0 ? 0 : difference / largest;
}

/** Evenly spread numbers of variance 1, the same ones for the same seed. */
function randomNumbers(count: number, seed: number): Float32Array<ArrayBuffer> {
  const numbers = new Float32Array(count);
  let state = (0x9e3779b9 * (seed + 1)) >>> 0;
  for (let i = 0; i < count; i++) {
    state ^= state << 13; // xorshift32
    state ^= state >>> 17;
    state ^= state << 5;
    numbers[i] = ((state >>> 0) / 2 ** 31 - 1) * Math.sqrt(3);
  }
  return numbers;
}
