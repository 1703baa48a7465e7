// A training run that outlives its device: it keeps checkpoints, and goes on from the last one.

import { check, FoveaError, show } from "../errors.ts";
import { withoutFunction } from "./arguments.ts";
import { loadCheckpoint, saveCheckpoint, stepOf } from "./checkpoint.ts";
import type { Graph } from "./graph.ts";
import type { ProgramOptimizer } from "./optimizers/by_name.ts";
import type { Batch, Program } from "./program.ts";
import { type ProgramOptions, type Results, recordProgram } from "./record.ts";
import type { RunSettings } from "./run_settings.ts";

/** Options of {@link Training.start}. */
export interface TrainingOptions extends Omit<ProgramOptions, "gradients" | "parameters"> {
  /** Changes the parameters at the end of each run. */
  readonly optimizer: ProgramOptimizer;
  /** Runs between two checkpoints, from 1 up. Default 100. */
  readonly checkpointEvery?: number;
  /** What the run goes on from. Default: the first elements that the definition gives. */
  readonly checkpoint?: Uint8Array | undefined;
  /** Is told of each checkpoint, to keep it elsewhere: `(bytes) => writeOpfs("run", bytes)`. */
  readonly onCheckpoint?: (checkpoint: Uint8Array<ArrayBuffer>, step: number) => unknown;
}

/**
 * A program that trains, with checkpoints. If its device is lost, `run` rejects with
 * FoveaError("device-lost"), the last checkpoint is in `checkpoint`, and {@link Training.resume}
 * goes on with it on another device.
 */
export class Training {
  readonly program: Program;
  readonly #define: (graph: Graph) => Results;
  readonly #options: TrainingOptions;
  #checkpoint: { readonly bytes: Uint8Array; readonly step: number };
  #isSaving = false;

  private constructor(
    program: Program,
    define: (graph: Graph) => Results,
    options: TrainingOptions,
    checkpoint: Uint8Array,
  ) {
    this.program = program;
    this.#define = define;
    this.#options = options;
    this.#checkpoint = { bytes: checkpoint, step: program.step };
  }

  /**
   * Records the program and, with a checkpoint, loads that. Rejects with FoveaError as
   * `recordProgram` and `loadCheckpoint` do.
   *
   * @example
   * const training = await Training.start(device, define, { optimizer: { kind: "AdamW" } });
   * const loss = await training.run(batch);
   */
  static async start(
    device: GPUDevice,
    define: (graph: Graph) => Results,
    options: TrainingOptions,
  ): Promise<Training> {
    const [onCheckpoint, given] = withoutFunction("training", options, "onCheckpoint");
    const { checkpointEvery = 100, checkpoint, ...others } = given;
    check(
      Number.isInteger(checkpointEvery) && checkpointEvery > 0,
      "argument",
      () =>
        `training: checkpointEvery must be a whole number from 1 up, got ${show(checkpointEvery)}.`,
    );
    const program = await recordProgram(device, define, others);
    try {
      if (checkpoint) await loadCheckpoint(program, checkpoint);
      const first = checkpoint ?? (await saveCheckpoint(program));
      const settings = { ...given, checkpointEvery, ...(onCheckpoint && { onCheckpoint }) };
      return new Training(program, define, settings, first);
    } catch (error) {
      program.destroy();
      throw error;
    }
  }

  /** Runs so far that changed the parameters. */
  get step(): number {
    return this.program.step;
  }

  /** The last checkpoint, and the step that it was made after. */
  get checkpoint(): { readonly bytes: Uint8Array; readonly step: number } {
    return this.#checkpoint;
  }

  /**
   * Runs the program once, as {@link Program.run}, and saves a checkpoint after every
   * `checkpointEvery` runs.
   */
  async run(batch: Batch, settings?: RunSettings): Promise<number> {
    try {
      const loss = (await this.program.run(batch, settings)) as number;
      const { checkpointEvery = 1 } = this.#options;
      const isDue = this.step - this.#checkpoint.step >= checkpointEvery;
      if (isDue && !this.#isSaving) await this.save();
      return loss;
    } catch (cause) {
      throw this.#told(cause);
    }
  }

  /** Saves a checkpoint now. */
  async save(): Promise<Uint8Array<ArrayBuffer>> {
    this.#isSaving = true;
    try {
      const bytes = await saveCheckpoint(this.program);
      const step = stepOf(bytes);
      this.#checkpoint = { bytes, step };
      await this.#options.onCheckpoint?.(bytes, step);
      return bytes;
    } finally {
      this.#isSaving = false;
    }
  }

  /**
   * The same run on another device, from the last checkpoint: give it the batches from that step
   * on. This one is of no use afterwards.
   */
  async resume(device: GPUDevice): Promise<Training> {
    const resumed = await Training.start(device, this.#define, {
      ...this.#options,
      checkpoint: this.#checkpoint.bytes,
    });
    this.destroy();
    return resumed;
  }

  destroy(): void {
    this.program.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #told(cause: unknown): unknown {
    if (!(cause instanceof FoveaError) || cause.code !== "device-lost") return cause;
    return new FoveaError(
      "device-lost",
      `${cause.message} The checkpoint of step ${this.#checkpoint.step} is kept: resume(device) goes on from it.`,
      { cause },
    );
  }
}
