// The plan of an optimiser: what it tells, and how it is recorded.

import { check } from "../../errors.ts";
import { checkDevice } from "../../gpu/buffers.ts";
import { Tensor } from "../../gpu/tensor.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../../plan/target.ts";
import type { Placed } from "./resolve.ts";
import type { Recorded } from "./sequence.ts";

/**
 * The state that an algorithm keeps for a parameter, each f32 and of the parameter's shape:
 * `momentum` (SGD with momentum, Lion, Muon), `first_moment` and `second_moment` (Adam, AdamW;
 * uncorrected), `max_second_moment` (AMSGrad), and `accumulated_gradient`.
 */
export type OptimizerState = Readonly<Record<string, Tensor>>;

/** The parts of an optimiser that do not change. */
interface OptimizerParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly kernel: string;
  readonly placed: readonly Placed[];
  readonly owned: readonly Tensor[];
  readonly params: GPUBuffer;
  readonly update: Recorded;
  /** Undefined if an update has one batch. */
  readonly accumulate: Recorded | undefined;
  readonly destroyPlans: () => void;
}

type OptimizerTensors = Pick<OptimizerPlan, "step" | "lr" | "rates" | "norm" | "finite" | "state">;

/** An optimiser that is ready to run. `planOptimizer` makes it. */
export class OptimizerPlan {
  /** u32 [1]: updates so far. The GPU counts them; write it to go on from a checkpoint. */
  readonly step: Tensor<"u32">;
  /**
   * f32 [groups]: the learning rates before the schedule, which may be written between updates.
   * First that of parameters without a group, then those of the groups, then those of AdamW for
   * the parameters of Muon without two axes.
   */
  readonly lr: Tensor<"f32">;
  /** f32 [groups]: the learning rates of the last update, in the same order. */
  readonly rates: Tensor<"f32">;
  /** f32 [1]: the norm of all gradients before clipping, with `clip` or `skipNotFinite`. */
  readonly norm: Tensor<"f32"> | undefined;
  /**
   * f32 [1], if there is a norm: 1 if it is finite, else 0. It is not if a gradient isn't, or if
   * the sum of squares exceeds f32 (a norm of 1.8e19). The update is done all the same without
   * `skipNotFinite`.
   */
  readonly finite: Tensor<"f32"> | undefined;
  /** The state of each parameter. A tensor of it may be read, and written between updates. */
  readonly state: readonly OptimizerState[];
  /** The algorithms of its groups, in alphabetical order: `AdamW, Muon`. */
  readonly kernel: string;
  /** Bytes of the state and of scratch memory, which the optimiser owns. */
  readonly workspaceBytes: number;
  /** Dispatches of an update. */
  readonly dispatchCount: number;
  readonly #parts: OptimizerParts;
  #destroyed = false;

  private constructor(parts: OptimizerParts, tensors: OptimizerTensors) {
    this.step = tensors.step;
    this.lr = tensors.lr;
    this.rates = tensors.rates;
    this.norm = tensors.norm;
    this.finite = tensors.finite;
    this.state = tensors.state;
    this.kernel = parts.kernel;
    this.dispatchCount = parts.update.dispatchCount;
    this.workspaceBytes = parts.owned.reduce((sum, { size }) => sum + 4 * size, 0);
    this.#parts = parts;
  }

  /** @internal Use `planOptimizer`. */
  static make(parts: OptimizerParts, tensors: OptimizerTensors): OptimizerPlan {
    return new OptimizerPlan(parts, tensors);
  }

  /**
   * Records an update into a compute pass, or into a pass of its own on a command encoder: clips
   * the gradients, counts the update, finds the learning rates, and updates the parameters and the
   * state. Allocates nothing and submits nothing; it may be recorded several times in one
   * submission.
   *
   * With `accumulationSteps` the gradients are those of the last batch of the update, and are added
   * to what was accumulated, which then begins at 0 again.
   *
   * Throws FoveaError, with nothing recorded, if a tensor was destroyed or the device is lost.
   *
   * @example
   * const optimizer = await planOptimizer(device, { kind: "SGD", parameters: [weight], gradients: [dWeight] });
   * optimizer.encode(pass);
   */
  encode(target: EncodeTarget): void {
    this.#record(target, this.#parts.update);
  }

  /**
   * Records the accumulation of the gradients of a batch, all but the last one of an update:
   * accumulated_gradient += gradient / accumulationSteps. Otherwise as {@link encode}.
   */
  accumulate(target: EncodeTarget): void {
    const { label, accumulate } = this.#parts;
    check(
      accumulate !== undefined,
      "argument",
      () => `${label}: there is nothing to accumulate, for accumulationSteps is 1.`,
    );
    this.#record(target, accumulate);
  }

  /** Frees the state. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const { params, owned, destroyPlans } = this.#parts;
    params.destroy();
    destroyPlans();
    for (const one of owned) one.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /**
   * @internal Does all of an encode that can fail, and gives what is left to record: for programs,
   * whose last step an optimiser is.
   */
  prepare(): Recording {
    return this.#ready(this.#parts.update);
  }

  /** @internal The same of {@link accumulate}; undefined if an update has one batch. */
  prepareAccumulation(): Recording | undefined {
    const { accumulate } = this.#parts;
    return accumulate && this.#ready(accumulate);
  }

  #record(target: EncodeTarget, recorded: Recorded): void {
    const { label } = this.#parts;
    checkTarget(label, target);
    recordInto(target, label, this.#ready(recorded));
  }

  /** Checks that all memory is there, and notes what is computed from what. */
  #ready({ record }: Recorded): Recording {
    const { device, label, placed, owned } = this.#parts;
    check(
      !this.#destroyed && !owned.some(({ destroyed }) => destroyed),
      "destroyed",
      () => `${label}: the optimiser, or a tensor of its state, was destroyed.`,
    );
    checkDevice(device);
    for (const [index, { parameter, gradient }] of placed.entries()) {
      const gone = parameter.destroyed ? "parameters" : "gradients";
      check(
        !parameter.destroyed && !gradient.destroyed,
        "destroyed",
        () => `${label}: ${gone}[${index}]: the tensor was destroyed.`,
      );
    }
    const parameters = placed.map(({ parameter }) => parameter);
    Tensor.tie(parameters, [...parameters, ...placed.map(({ gradient }) => gradient)]);
    return record;
  }
}
