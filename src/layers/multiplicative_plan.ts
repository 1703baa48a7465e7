// The plan of multiplicative attention: projections of the queries, then attention.

import type { AttentionBindings, AttentionPlan } from "../attention/bindings.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ProjectionPlan } from "../operations/projection.ts";
import { checkTensors } from "../plan/run.ts";
import { checkTarget, type EncodeTarget, recordInto } from "../plan/target.ts";

/**
 * Memory for one run: the tensors of attention, and the weights. Tensors that the plan was made
 * with are the default.
 */
export interface MultiplicativeBindings extends AttentionBindings {
  readonly weight?: Tensor;
}

interface Parts {
  readonly label: string;
  readonly attention: AttentionPlan;
  /** One projection for all heads together, or one for each head. */
  readonly projections: readonly ProjectionPlan[];
  /** [B, H, M, Dk] in the layout of the problem, f32. */
  readonly projected: Tensor;
  readonly headAxis: number;
  readonly perHead: boolean;
  /** Tensors that the plan was made with. */
  readonly given: { readonly q: Tensor | undefined; readonly weight: Tensor | undefined };
}

/** The tensors that a projection reads and writes. */
type Views = Readonly<Record<"x" | "weight" | "output", Tensor>>;

/**
 * Compiled multiplicative attention. Make one with {@link planMultiplicativeAttention}. It is not a
 * `Plan` but owns several, and keeps the views that they bound in the last run.
 */
export class MultiplicativePlan {
  /** Kernels of the projection and of attention: `matmul 64x64, forward 64x32`. */
  readonly kernel: string;
  /**
   * Bytes of scratch memory that the plan owns for its runs: the projected queries, and that of
   * attention.
   */
  readonly workspaceBytes: number;
  readonly #parts: Parts;
  #views: { q: Tensor; weight: Tensor; views: readonly Views[] } | undefined;

  private constructor(parts: Parts) {
    const { attention, projections, projected } = parts;
    this.kernel = [projections[0]?.kernel, attention.kernel].filter(Boolean).join(", ");
    this.workspaceBytes = 4 * projected.size + attention.workspaceBytes;
    this.#parts = parts;
  }

  /** @internal Use {@link planMultiplicativeAttention}. */
  static make(parts: Parts): MultiplicativePlan {
    return new MultiplicativePlan(parts);
  }

  /**
   * Records projection and attention, as `AttentionPlan.encode` does: synchronously, allocating no
   * GPU memory. Throws FoveaError, with nothing recorded, if a tensor does not fit.
   *
   * @example
   * const plan = await planMultiplicativeAttention(device, { q, k, v, weight });
   * plan.encode(encoder, { q, output });
   */
  encode(target: EncodeTarget, bindings: MultiplicativeBindings = {}): void {
    const { label, attention, projections, given } = this.#parts;
    checkTarget(label, target);
    const { q = given.q, weight = given.weight, ...rest } = bindings;
    checkTensors(label, { q, weight });
    const views = this.#viewsOf(q as Tensor, weight as Tensor);
    const project = projections.map((plan, index) => plan.prepare(views[index]));
    const attend = attention.prepare(rest);
    if (!attend) return; // there is no output element
    recordInto(target, label, (pass) => {
      for (const record of project) record?.(pass);
      attend(pass);
    });
  }

  /** Frees the plan's own buffers. Work that was submitted before still runs. */
  destroy(): void {
    const { attention, projections, projected } = this.#parts;
    for (const one of [attention, ...projections, projected]) one.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /**
   * The views that the projections read and write: one for all heads together, or one for each
   * head.
   */
  #viewsOf(q: Tensor, weight: Tensor): readonly Views[] {
    if (this.#views?.q === q && this.#views.weight === weight) return this.#views.views;
    const { projected, headAxis, perHead, projections } = this.#parts;
    const views = projections.map((_, head): Views => {
      if (!perHead) return { x: q, weight: weight.permute(1, 0), output: projected };
      const [x, output] = [q, projected].map((all) => all.slice(headAxis, head, head + 1));
      const [, inner, columns] = weight.shape;
      const own = weight.slice(0, head, head + 1).view({
        shape: [inner, columns],
        strides: weight.strides.slice(1),
      });
      return { x, weight: own.permute(1, 0), output };
    });
    this.#views = { q, weight, views };
    return views;
  }
}
