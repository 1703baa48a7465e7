// The plan of multiplicative attention's gradients: projection, attention's gradients, and those of
// the projection.

import type {
  AttentionBackwardBindings,
  AttentionBackwardPlan,
} from "../attention/gradients/bindings.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ProjectionPlan } from "../operations/projection.ts";
import type { ProjectionBackwardPlan } from "../operations/projection_backward.ts";
import { checkTensors } from "../plan/run.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../plan/target.ts";
import type { Layout } from "../types.ts";
import { turnedTensor } from "./multiplicative_views.ts";

/**
 * Memory for one run: the tensors of attention's gradients, the weights and their gradient. Tensors
 * that the plan was made with are the default.
 */
export interface MultiplicativeBackwardBindings extends AttentionBackwardBindings {
  readonly weight?: Tensor;
  readonly dWeight?: Tensor;
}

type Own = "q" | "weight" | "dQ" | "dWeight";

interface Parts {
  readonly label: string;
  readonly layout: Layout;
  readonly projection: ProjectionPlan;
  readonly attention: AttentionBackwardPlan;
  readonly backward: ProjectionBackwardPlan;
  /** [B, H, M, Dk] in the layout of the problem, f32: q W and its gradient. */
  readonly projected: Tensor;
  readonly dProjected: Tensor;
  /** Tensors that the plan was made with. */
  readonly given: Readonly<Record<Own, Tensor | undefined>>;
}

/** The tensors of a run, and what the projections bind of them. */
interface Views {
  readonly tensors: Readonly<Record<Own, Tensor>>;
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly dX: Tensor;
  readonly dWeight: Tensor;
}

/**
 * Compiled gradients of multiplicative attention. Make one with
 * {@link planMultiplicativeAttentionBackward}. It is not a `Plan` but owns several, and keeps the
 * views that they bound in the last run.
 */
export class MultiplicativeBackwardPlan {
  /** Kernels of the projection, of attention's gradients, and of the projection's. */
  readonly kernel: string;
  /** Bytes of scratch memory that the plan owns for its runs: q W, its gradient, and their plans'. */
  readonly workspaceBytes: number;
  readonly #parts: Parts;
  readonly #rows: { readonly projected: Tensor; readonly dProjected: Tensor };
  #views: Views | undefined;

  private constructor(parts: Parts) {
    const { projection, attention, backward, projected, dProjected } = parts;
    const plans = [projection, attention, backward];
    this.kernel = plans.map(({ kernel }) => kernel).join(", ");
    this.workspaceBytes = plans.reduce(
      (bytes, { workspaceBytes }) => bytes + workspaceBytes,
      4 * (projected.size + dProjected.size),
    );
    this.#parts = parts;
    this.#rows = { projected: this.#byHeads(projected), dProjected: this.#byHeads(dProjected) };
  }

  /** @internal Use {@link planMultiplicativeAttentionBackward}. */
  static make(parts: Parts): MultiplicativeBackwardPlan {
    return new MultiplicativeBackwardPlan(parts);
  }

  /**
   * Records projection and gradients, as the plan of attention's gradients does: synchronously,
   * allocating no GPU memory. Throws FoveaError, with nothing recorded, if a tensor does not fit.
   *
   * @example
   * const plan = await planMultiplicativeAttentionBackward(device, { q, k, v, weight });
   * plan.encode(encoder, { output, lse, dOutput, dQ, dK, dV, dWeight });
   */
  encode(target: EncodeTarget, bindings: MultiplicativeBackwardBindings = {}): void {
    const { label, projection, attention, backward, given } = this.#parts;
    checkTarget(label, target);
    const {
      q = given.q,
      weight = given.weight,
      dQ = given.dQ,
      dWeight = given.dWeight,
      ...rest
    } = bindings;
    checkTensors(label, { q, weight, dQ, dWeight });
    const tensors = { q, weight, dQ, dWeight } as Views["tensors"];
    const views = this.#viewsOf(tensors);
    const { projected, dProjected } = this.#rows;
    const { x, weight: turned, dX } = views;
    const recordings: (Recording | undefined)[] = [
      projection.prepare({ x, weight: turned, output: projected }),
      attention.prepare(rest),
      backward.prepare({ x, weight: turned, dOutput: dProjected, dX, dWeight: views.dWeight }),
    ];
    recordInto(target, label, (pass) => {
      for (const record of recordings) record?.(pass);
    });
  }

  /** Frees the plan's own buffers. Work that was submitted before still runs. */
  destroy(): void {
    const { attention, projection, backward, projected, dProjected } = this.#parts;
    for (const one of [attention, projection, backward, projected, dProjected]) one.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #viewsOf(tensors: Views["tensors"]): Views {
    const known = this.#views;
    const names = Object.keys(tensors) as Own[];
    if (known && names.every((name) => known.tensors[name] === tensors[name])) return known;
    this.#views = {
      tensors,
      x: this.#byHeads(tensors.q),
      weight: turnedTensor(tensors.weight),
      dX: this.#byHeads(tensors.dQ),
      dWeight: turnedTensor(tensors.dWeight),
    };
    return this.#views;
  }

  /** Rows with their heads in front, as weights for each head meet them. */
  #byHeads(rows: Tensor): Tensor {
    return this.#parts.layout === "bhmd" ? rows : rows.permute(0, 2, 1, 3);
  }
}
