// The parts of a plan of a multi-head layer's gradients, beside those of the forward run.

import { planAttentionBackward } from "../../attention/gradients/backward.ts";
import { planMergeBackward } from "../../attention/gradients/merge_backward.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { Tensor } from "../../gpu/tensor.ts";
import { POINTWISE } from "../../operations/pointwise.ts";
import { planProjectionBackward } from "../../operations/projection_backward.ts";
import { type Layer, type PartialPlaces, Parts, type Scores } from "../multi_head_parts.ts";
import type { Given, Place } from "../places.ts";
import type { ResolvedMultiHeadBackward } from "./resolve.ts";

/** What attention gave, and the gradients of it. */
export interface AttendedPlaces {
  readonly output: Place;
  readonly lse: Place;
  readonly dOutput: Place;
  readonly dLse?: Place | undefined;
}

/** Places by the names of operands. */
export type Places = Readonly<Record<string, Place | undefined>>;

const CAPTURED = "dCaptures.";

/** The places that there are. */
const present = (places: Places): [name: string, place: Place][] =>
  Object.entries(places).filter((entry): entry is [string, Place] => entry[1] !== undefined);

const specsOf = (places: readonly [string, Place][]) =>
  Object.fromEntries(places.map(([name, { spec }]) => [name, spec]));

const tensorsOf = (places: readonly [string, Place][], given: Given) =>
  Object.fromEntries(places.map(([name, place]) => [name, place.of(given)]));

/** Collects the parts of a plan of gradients, in the order in which they run. */
export class BackwardParts extends Parts {
  readonly #device: GPUDevice;
  readonly #variant: string | undefined;

  constructor(layer: Layer, { forward, variant }: ResolvedMultiHeadBackward) {
    super(layer, forward);
    this.#device = layer.device;
    this.#variant = variant;
  }

  /**
   * Adds the gradients of attention over some of the keys.
   *
   * @param results dQ, dK and dV, and what is asked for of options
   */
  attendBackward(
    { options, mask, bindingsOf }: Scores,
    tensors: Record<"q" | "k" | "v", Tensor>,
    places: AttendedPlaces,
    results: Places,
  ): void {
    const { output, lse, dOutput, dLse } = places;
    const all = present({ output, lse, dOutput, dLse, mask, ...results });
    const plain = all.filter(([name]) => !name.startsWith(CAPTURED));
    const captured = all
      .filter(([name]) => name.startsWith(CAPTURED))
      .map(([name, place]): [string, Place] => [name.slice(CAPTURED.length), place]);
    const problem = {
      ...options,
      ...tensors,
      ...specsOf(plain),
      ...(captured.length > 0 && { dCaptures: specsOf(captured) }),
      ...(this.#variant !== undefined && { variant: this.#variant }),
      ...this.shared,
    };
    this.add(planAttentionBackward(this.#device, problem), (plan, given, bindings) =>
      plan.prepare({
        ...bindingsOf(bindings),
        ...tensorsOf(plain, given),
        ...(captured.length > 0 && { dCaptures: tensorsOf(captured, given) }),
      }),
    );
  }

  /** Adds the gradients of a merge by two partial results, and gives their places. */
  mergeBackward(
    partials: readonly PartialPlaces[],
    { output, dOutput, dLse }: Omit<AttendedPlaces, "lse">,
  ): { readonly dOutput: Place; readonly dLse: Place }[] {
    const made = partials.map((partial) => ({
      dOutput: this.own("partial dOutput", partial.output.spec.shape),
      dLse: this.own("partial dLse", partial.lse.spec.shape),
    }));
    const all = present({ output, dOutput, dLse });
    const problem = {
      partials: partials.map(({ output, lse }) => ({ output: output.spec, lse: lse.spec })),
      ...specsOf(all),
      dPartials: made.map(({ dOutput, dLse }) => ({ dOutput: dOutput.spec, dLse: dLse.spec })),
      label: this.shared.label,
    };
    this.add(planMergeBackward(this.#device, problem), (plan, given) =>
      plan.prepare({
        partials: partials.map(({ output, lse }) => ({
          output: output.of(given),
          lse: lse.of(given),
        })),
        ...tensorsOf(all, given),
        dPartials: made.map(({ dOutput, dLse }) => ({
          dOutput: dOutput.tensor,
          dLse: dLse.tensor,
        })),
      }),
    );
    return made;
  }

  /** Adds the gradients of y = x W^T + b that have a place. */
  projectBackward(
    x: Place,
    weight: Tensor | Place["spec"],
    dOutput: Place,
    results: Readonly<Record<"dX" | "dWeight" | "dBias", Place | undefined>>,
  ): void {
    const wanted = present(results);
    if (wanted.length === 0) return;
    const problem = {
      x: x.spec,
      weight,
      dOutput: dOutput.spec,
      gradients: wanted.map(([name]) => name as keyof typeof results),
      ...specsOf(wanted),
      ...this.shared,
    };
    this.add(planProjectionBackward(this.#device, problem), (plan, given) =>
      plan.prepare({
        dOutput: dOutput.of(given),
        ...(results.dWeight && { x: x.of(given) }),
        ...tensorsOf(wanted, given),
      }),
    );
  }

  /** Adds the sum over all rows [B, rows, width] of a place, which goes into [width]. */
  sumRows(rows: Place, output: Place | undefined): void {
    const [batch, count, width] = rows.spec.shape;
    const like = (shape: readonly number[]) => ({
      ...rows.spec,
      shape,
      strides: shape.map(() => 0),
    });
    const x = { ...rows, spec: like([batch, count, 1]) };
    const results = { dX: undefined, dWeight: undefined, dBias: output };
    this.projectBackward(x, like([width, 1]), rows, results);
  }

  /** Adds the sum of places of one shape, times factors that broadcast to it. */
  sum(places: readonly Place[], output: Place, factor?: Tensor | Place): void {
    const [x, bias, residual, ...more] = places;
    if (more.length > 0) {
      const first = this.own("sum", x.spec.shape);
      this.sum([x, bias, residual], first);
      this.sum([first, ...more], output, factor);
      return;
    }
    const constant = factor instanceof Tensor ? factor : undefined;
    const all = present({
      x,
      bias,
      residual,
      factor: constant ? undefined : (factor as Place),
      output,
    });
    const problem = {
      ...(specsOf(all) as Record<"x", Place["spec"]>),
      ...(constant && { factor: constant }),
      label: this.shared.label,
    };
    this.add(POINTWISE.plan(this.#device, problem), (plan, given) =>
      plan.prepare(tensorsOf(all, given)),
    );
  }

  /** Allocates a tensor of numbers. */
  constant(name: string, shape: readonly number[], data: ArrayLike<number>): Tensor {
    const label = `${this.shared.label} ${name}`;
    const made = tensor(this.#device, shape, { data: Float32Array.from(data), label });
    this.owned.push(made);
    return made;
  }
}
