// The bindings of one run of attention's gradients.

import type { Tensor } from "../../gpu/tensor.ts";
import type { Plan } from "../../plan/plan.ts";
import type { AttentionBindings } from "../bindings.ts";
import type { SimilarityGradients } from "./similarity_problem.ts";

/** Memory for one run of a plan of gradients: see {@link AttentionBindings} for the rules. */
export interface AttentionBackwardBindings
  extends Omit<AttentionBindings, "cache" | "rowMax">,
    SimilarityGradients<Tensor> {
  readonly dOutput?: Tensor;
  /** Needed if the plan was made with it. */
  readonly dLse?: Tensor;
  readonly dQ?: Tensor;
  readonly dK?: Tensor;
  readonly dV?: Tensor;
  /** Needed if the plan was made with it, as are the five below. */
  readonly dBias?: Tensor;
  readonly dAlibiSlopes?: Tensor;
  readonly dRelativeBias?: Tensor;
  readonly dSinks?: Tensor;
  readonly dTemperature?: Tensor;
  readonly dLogTemperature?: Tensor;
  /** Those that the plan was made with, by the names of the captures. */
  readonly dCaptures?: Readonly<Record<string, Tensor>>;
}

/** A compiled problem of attention's gradients. */
export type AttentionBackwardPlan = Plan<AttentionBackwardBindings>;
