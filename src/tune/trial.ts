// A comparison of kernels on one problem: values first, then times, turn by turn.

import type { AttentionBindings, AttentionPlan } from "../attention/bindings.ts";
import { preparePlan } from "../attention/plan_attention.ts";
import type { TakenProblem, TunedCandidate } from "../attention/problem.ts";
import { FoveaError } from "../errors.ts";
import { guarded } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { createGpuTimer, type GpuTimer } from "../gpu/timing.ts";
import type { Operands } from "../plan/operand.ts";
import type { Dtype } from "../types.ts";

/**
 * What the kernels of a problem are chosen by: a variant, and into how many parts keys are split.
 */
export type Choice = Pick<TunedCandidate, "variant" | "kvSplits">;

/** Turns that a comparison takes at least, and at most. */
const TURNS = { least: 3, most: 30 };
/**
 * Milliseconds between ticks of a browser's clock, and milliseconds that a measurement should last.
 */
const TICK_MS = 0.1;
const MEASURED_MS = 2;
/** A candidate that is slower than the fastest by this factor in its first run is not run again. */
const HOPELESS = 2;
/** The share of the default's time that another candidate may take at most to replace it. */
const CLEARLY = 0.95;

/**
 * Whether times are clearly shorter than those of the default, compared turn by turn: the median of
 * the ratios is small enough, and most of the times are shorter.
 */
export function clearlyFaster(times: readonly number[], standard: readonly number[]): boolean {
  const ratios = times.map((ms, turn) => ms / standard[turn]);
  return (
    median(ratios) < CLEARLY && ratios.filter((ratio) => ratio < 1).length >= 0.75 * ratios.length
  );
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** A choice on trial. */
export interface Entrant {
  readonly choice: Choice;
  readonly plan?: AttentionPlan;
  failure?: unknown;
  /** Milliseconds of its first run. */
  first?: number;
  /** Milliseconds of all turns; `times` has those of the last comparison. */
  readonly all: number[];
  times: number[];
}

/** Candidates, and the memory that they run on. */
export class Trial {
  readonly #device: GPUDevice;
  readonly #problem: TakenProblem;
  readonly #entrants: Entrant[] = [];
  readonly #made: { destroy(): void }[] = [];
  readonly #timer: GpuTimer;
  #bindings: AttentionBindings & { readonly output?: Tensor } = {};
  #values: ArrayLike<number> | undefined;

  constructor(device: GPUDevice, problem: TakenProblem) {
    this.#device = device;
    this.#problem = problem;
    this.#timer = createGpuTimer(device);
  }

  get timing() {
    return this.#timer.source;
  }

  /** The entrants that are worth another turn. */
  get timed(): Entrant[] {
    const able = this.#entrants.filter(({ failure, first }) => !failure && first !== undefined);
    const fastest = Math.max(TICK_MS, Math.min(...able.map(({ first = 0 }) => first)));
    return able.filter(
      (one) => one === this.#entrants[0] || (one.first ?? 0) <= HOPELESS * fastest,
    );
  }

  /** Compiles a choice. The first one is the default, and brings the memory. */
  async enter(choice: Choice): Promise<Entrant> {
    const entrant: Entrant = { choice, all: [], times: [] };
    this.#entrants.push(entrant);
    try {
      const { plan, allocated, operands } = await preparePlan(this.#device, {
        ...this.#problem,
        ...choice,
      });
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

  /** Runs the entrants that have not run yet, and compares their values with the default's. */
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

  /**
   * The fastest entrant, timed in turns with the others, if it is clearly faster than the default;
   * else the default.
   */
  async fastest(budget: number): Promise<Entrant> {
    const [standard] = this.#entrants;
    const field = this.timed;
    await this.#race(field, budget);
    const better = field.filter(
      (one) => one !== standard && clearlyFaster(one.times, standard.times),
    );
    return better.sort((a, b) => median(a.times) - median(b.times))[0] ?? standard;
  }

  /** Whether an entrant is clearly faster than the default in another comparison. */
  async duel(one: Entrant, budget: number): Promise<boolean> {
    const [standard] = this.#entrants;
    await this.#race([standard, one], budget);
    return clearlyFaster(one.times, standard.times);
  }

  candidates(): TunedCandidate[] {
    return this.#entrants.map(({ choice, all, first, failure }) => {
      const ms = all.length ? median(all) : first;
      const why = failure instanceof Error ? failure.message : failure;
      return {
        ...choice,
        ...(ms !== undefined && { ms }),
        ...(why !== undefined && { failure: `${why}` }),
      };
    });
  }

  destroy(): void {
    for (const one of [...this.#made, ...this.#tensors(), this.#timer]) one.destroy();
  }

  /**
   * A candidate that fails is out; the default's failure, or the device's, is the caller's to know.
   */
  #fail(entrant: Entrant, error: unknown): void {
    if (
      entrant === this.#entrants[0] ||
      !(error instanceof FoveaError) ||
      error.code === "device-lost"
    )
      throw error;
    entrant.failure = error;
  }

  /** Times all entrants in turns until the budget is spent. */
  async #race(entrants: readonly Entrant[], budget: number): Promise<void> {
    for (const one of entrants) one.times = [];
    let spent = 0;
    for (let turn = 0; turn < TURNS.most && (turn < TURNS.least || spent < budget); turn++) {
      for (const one of entrants) {
        const runs = Math.ceil(
          MEASURED_MS / Math.min(MEASURED_MS, Math.max(one.first ?? 0, TICK_MS / 10)),
        );
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

  /**
   * Allocates outputs, and tensors of random numbers for those of q, k and v that are only
   * described.
   */
  #memory(operands: Operands): AttentionBindings {
    const made: Partial<Record<string, Tensor>> = {};
    for (const [name, { spec, fallback }] of operands) {
      const isResult = RESULTS.includes(name);
      if (fallback && !isResult) continue;
      const count = spec.shape.reduce((product, size) => product * size, 1);
      const data = isResult ? {} : { data: randomNumbers(count, INPUTS.indexOf(name)) };
      const { shape, ...looks } = spec;
      made[name] = tensor(this.#device, shape, { ...looks, ...data, label: `tune ${name}` });
      this.#made.push(made[name]);
    }
    return made as AttentionBindings;
  }

  #tensors(): Tensor[] {
    return Object.values(this.#bindings) as Tensor[];
  }
}

const INPUTS: readonly string[] = ["q", "k", "v"];
const RESULTS: readonly string[] = ["output", "lse", "rowMax"];

/** Differences that another order of the same sums explains, as shares of the largest value. */
const AGREEMENT: Partial<Record<Dtype, number>> = { f32: 1e-4, f16: 2 ** -9, bf16: 2 ** -6 };

/** The largest difference, as a share of the largest value of `expected`. */
function differenceOf(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    // Here the caller's own tensors hold NaN.
    if (Number.isNaN(values[i]) && Number.isNaN(expected[i])) continue;
    largest = Math.max(largest, Math.abs(expected[i]));
    const off = Math.abs(values[i] - expected[i]);
    difference = Number.isNaN(off) ? Number.POSITIVE_INFINITY : Math.max(difference, off);
    if (difference === Number.POSITIVE_INFINITY) return difference;
  }
  return difference === 0 ? 0 : difference / largest;
}

/** Uniform random numbers of variance 1, the same ones for the same seed. */
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
