// The plan of linear attention: the tensors that a caller binds, and the operands that they are
// bound for.

import type { Tensor } from "../gpu/tensor.ts";
import { Plan, type PlanHooks } from "../plan/plan.ts";
import type { LinearTensor } from "./options.ts";
import type { ResolvedLinear } from "./problem.ts";

/**
 * Memory for one run of a plan of linear attention: tensors that look as the plan was told. Those
 * that it was made with are the default.
 */
export type LinearAttentionBindings = { readonly [Name in LinearTensor | "kvLengths"]?: Tensor };

/**
 * Compiled linear attention. Make one with {@link planLinearAttention}; encode it as often as you
 * like. Its kernel is `"linear chunked"`, which runs all tokens at once, or `"linear recurrent"`,
 * which runs one after the other; its scratch memory includes states that the caller does not keep.
 * A state in place is one tensor, read and written.
 *
 * @example
 * const decode = await planLinearAttention(device, {
 *   q,
 *   k,
 *   v,
 *   updateRule: "linear",
 *   state: { shape: [1, 8, 64, 64] },
 * });
 * decode.encode(encoder, { output, state: tensor(device, [1, 8, 64, 64]) });
 */
export type LinearAttentionPlan = Plan<LinearAttentionBindings>;
export const LinearAttentionPlan = Plan;

/** What linear attention does with its bindings: no tensor of the plan's own is one of them. */
export function linearHooks(
  { specs, lengths, chunked }: ResolvedLinear,
  owned: readonly Tensor[],
): PlanHooks<LinearAttentionBindings> {
  const bindable = new Set<string>(specs.keys());
  if (lengths === "bound") bindable.add("kvLengths");
  return {
    kernel: chunked ? "linear chunked" : "linear recurrent",
    workspaceBytes: owned.reduce((bytes, { size }) => bytes + 4 * size, 0),
    bindable,
    boundBy: (bindings, name) =>
      (bindable.has(name) && bindings[name as LinearTensor]) || undefined,
  };
}
