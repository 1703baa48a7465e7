// What a plan of multi-head attention is built from: a plan for each part, and the memory between
// them.

import type { AttentionBindings } from "../attention/bindings.ts";
import { planMerge } from "../attention/merge.ts";
import { planAttention } from "../attention/plan_attention.ts";
import { planAttentionWeights } from "../attention/weights.ts";
import { tensor } from "../gpu/make_tensor.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { planProjection } from "../operations/projection.ts";
import type { Recording } from "../plan/target.ts";
import type { ScoreOptions } from "../scores/options.ts";
import type { Dtype } from "../types.ts";
import { isPlainMask, keyMaskView, prepareMasks } from "./boolean_masks.ts";
import type { ResolvedMultiHead } from "./multi_head_problem.ts";
import { type MultiHeadSizes, weightTensors } from "./multi_head_sizes.ts";
import type { LinearWeights, MultiHeadWeights } from "./multi_head_weights.ts";
import { bound, type Given, type Place, viewed } from "./places.ts";

/** The members of a layer that its plans need. */
export interface Layer {
  readonly device: GPUDevice;
  readonly label: string;
  readonly sizes: MultiHeadSizes;
  readonly weights: MultiHeadWeights;
  readonly zeroAttention: boolean;
}

/** A part of a plan: checks the tensors of a run, and gives what is left to record. */
export interface Part {
  /** @param options The bindings of attention's options. */
  prepare(given: Given, options: AttentionBindings): Recording | undefined;
  readonly plan: { destroy(): void; readonly workspaceBytes?: number };
}

/** The options of attention over some of the keys, and the bindings of a run for them. */
export interface Scores {
  readonly options: ScoreOptions;
  readonly mask: Place | undefined;
  readonly bindingsOf: (options: AttentionBindings) => AttentionBindings;
}

/** The places of the results of attention over some of the keys. */
export interface PartialPlaces {
  readonly output: Place;
  readonly lse: Place;
}

/** Collects the parts of a plan, in the order in which they run. */
export class Parts {
  readonly owned: Tensor[] = [];
  readonly #layer: Layer;
  readonly #problem: ResolvedMultiHead;
  readonly #parts: Promise<Part>[] = [];

  constructor(layer: Layer, problem: ResolvedMultiHead) {
    this.#layer = layer;
    this.#problem = problem;
  }

  /** Gives the parts once they are compiled and all memory that they use is there. */
  async done(): Promise<Part[]> {
    const parts = await Promise.all(this.#parts);
    const weights = weightTensors(this.#layer.weights).map(([, given]) => given);
    await Promise.all([...this.owned, ...weights].map((used) => used.allocated));
    return parts;
  }

  /** Waits for everything that was begun, and frees what was built. */
  async discard(): Promise<void> {
    for (const part of await Promise.allSettled(this.#parts)) {
      if (part.status === "fulfilled") part.value.plan.destroy();
    }
    for (const owned of this.owned) owned.destroy();
  }

  /** Allocates memory between the parts. */
  own(
    name: string,
    shape: readonly number[],
    dtype: Dtype = "f32",
  ): Place & { readonly tensor: Tensor } {
    const made = tensor(this.#layer.device, shape, {
      dtype,
      label: `${this.#layer.label} ${name}`,
    });
    this.owned.push(made);
    return { tensor: made, spec: made, of: () => made };
  }

  /** Adds a part: its plan, and what a run binds. */
  add<P extends Part["plan"]>(
    plan: Promise<P>,
    prepare: (plan: P, ...args: Parameters<Part["prepare"]>) => Recording | undefined,
  ) {
    this.#parts.push(
      plan.then((made) => ({ plan: made, prepare: (...args) => prepare(made, ...args) })),
    );
  }

  /** The members that the problems of all plans share. */
  get shared() {
    const { maxDispatchFlops } = this.#problem.run;
    return {
      label: this.#layer.label,
      ...(maxDispatchFlops !== undefined && { maxDispatchFlops }),
    };
  }

  project(x: Place, { weight, bias }: LinearWeights, output: Place): void {
    const problem = {
      x: x.spec,
      weight,
      ...(bias && { bias }),
      output: output.spec,
      ...this.shared,
    };
    this.add(planProjection(this.#layer.device, problem), (plan, given) =>
      plan.prepare({ x: x.of(given), output: output.of(given) }),
    );
  }

  attend(
    { options, mask, bindingsOf }: Scores,
    tensors: Record<"q" | "k" | "v", Tensor>,
    { output, lse }: { readonly output: Place; readonly lse: Place | undefined },
  ): void {
    const problem = {
      ...options,
      ...tensors,
      output: output.spec,
      ...(lse && { lse: lse.spec }),
      ...(mask && { mask: mask.spec }),
    };
    this.add(
      planAttention(this.#layer.device, { ...problem, ...this.#problem.run, ...this.shared }),
      (plan, given, bindings) =>
        plan.prepare({
          ...bindingsOf(bindings),
          output: output.of(given),
          ...(lse && { lse: lse.of(given) }),
          ...(mask && { mask: mask.of(given) }),
        }),
    );
  }

  merge(partials: readonly PartialPlaces[], to: PartialPlaces): void {
    const problem = {
      partials: partials.map(({ output, lse }) => ({ output: output.spec, lse: lse.spec })),
      output: to.output.spec,
      lse: to.lse.spec,
      label: this.#layer.label,
    };
    this.add(planMerge(this.#layer.device, problem), (plan, given) =>
      plan.prepare({
        partials: partials.map(({ output, lse }) => ({
          output: output.of(given),
          lse: lse.of(given),
        })),
        output: to.output.of(given),
        lse: to.lse.of(given),
      }),
    );
  }

  /**
   * Adds the part that writes the weights of some of the keys, from the log-sum-exp over all keys.
   */
  writeProbabilities(
    { options, mask, bindingsOf }: Scores,
    tensors: Record<"q" | "k", Tensor>,
    { output, lse }: PartialPlaces,
  ): void {
    const problem = {
      ...options,
      ...tensors,
      lse: lse.spec,
      output: output.spec,
      meanOverHeads: this.#problem.mean,
      ...this.shared,
    };
    this.add(
      planAttentionWeights(this.#layer.device, { ...problem, ...(mask && { mask: mask.spec }) }),
      (plan, given, bindings) =>
        plan.prepare({
          ...bindingsOf(bindings),
          lse: lse.of(given),
          output: output.of(given),
          ...(mask && { mask: mask.of(given) }),
        }),
    );
  }

  /**
   * The one mask that attention takes: the caller's own, or a mask into which several are joined.
   */
  async joinedMask(): Promise<Place | undefined> {
    const { device, label } = this.#layer;
    const { masks, rowsKv, batch, rowsQ } = this.#problem;
    if (!masks.length || !rowsKv || !batch || !rowsQ) return undefined;
    if (isPlainMask(masks)) {
      const [{ name, overScores }] = masks;
      return name === "mask"
        ? bound(name, overScores)
        : viewed(bound(name, overScores), keyMaskView, overScores);
    }
    const { plan, allocated, bits } = await prepareMasks(device, label, masks, rowsKv);
    this.add(
      allocated.then(() => plan),
      (made, given) =>
        made.prepare(Object.fromEntries(masks.map(({ name }) => [name, given.get(name)]))),
    );
    return { spec: bits, of: () => bits };
  }
}
