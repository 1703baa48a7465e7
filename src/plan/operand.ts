// The tensors of a plan: how each must look, and what is bound for it.

import type { Tensor } from "../gpu/tensor.ts";
import type { ResolvedSpec } from "./specs.ts";

/** A tensor of the plan. */
export interface Operand {
  /** The layout as the caller sees it, with the axes in the caller's order. */
  readonly spec: ResolvedSpec;
  /** Elements from the start of the binding, which is aligned, to the first element. */
  readonly base: number;
  /**
   * Bound if the caller gives no tensor: one that the plan was made with, or one of the plan's own.
   */
  readonly fallback: Tensor | undefined;
  readonly written: boolean;
}

/**
 * The tensors of a plan by name: what a caller binds, and those that are the plan's own or were
 * given with it.
 */
export type Operands = ReadonlyMap<string, Operand>;

/** The names of tensors that a plan owns and that a caller may not bind. */
export const OWN: readonly string[] = [
  "workspace",
  "tables",
  "blocks",
  "positions",
  "angles",
  "kvState",
];
