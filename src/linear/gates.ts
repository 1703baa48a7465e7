// The gates of linear attention: decay and beta, checked.

import { check } from "../errors.ts";
import { AXES, type ResolvedSpec, reorder } from "../plan/specs.ts";
import type { Layout } from "../types.ts";
import type { LinearAttentionProblem, UpdateRule } from "./options.ts";

/** Checks decay and beta, which must be given if the rule has them, and only then. */
export function resolveGates(
  label: string,
  layout: Layout,
  problem: LinearAttentionProblem,
  {
    rule,
    gated,
    delta,
  }: { readonly rule: UpdateRule; readonly gated: boolean; readonly delta: boolean },
  {
    batch,
    states,
    seqKv,
    headDim,
  }: Readonly<Record<"batch" | "states" | "seqKv" | "headDim", number>>,
  add: (name: "decay" | "beta") => ResolvedSpec,
) {
  const gate = (name: "decay" | "beta", used: boolean, shapes: readonly (readonly number[])[]) => {
    check((problem[name] !== undefined) === used, "argument", () =>
      used
        ? `${label}: updateRule "${rule}" needs ${name}.`
        : `${label}: updateRule "${rule}" has no ${name}; ${name === "decay" ? '"gated" and "gated_delta" have' : '"delta" and "gated_delta" have'}.`,
    );
    if (!used) return undefined;
    const spec = add(name);
    const inLayout = (shape: readonly number[]) =>
      `[${reorder({ ...spec, shape }, layout).shape.join(", ")}]`;
    check(
      shapes.some((shape) => shape.every((size, axis) => size === spec.shape[axis])),
      "argument",
      () =>
        `${label}: ${name} must be ${[...new Set(shapes.map(inLayout))].join(" or ")} (axes ${AXES[layout]}), got ${inLayout(spec.shape)}.`,
    );
    return spec;
  };
  const decay = gate("decay", gated, [
    [batch, states, seqKv, 1],
    [batch, states, seqKv, headDim],
  ]);
  const beta = gate("beta", delta, [
    [batch, states, seqKv, 1],
    [batch, 1, seqKv, 1],
  ]);
  return { decayDim: decay?.shape[3] ?? 0, betaHeads: beta?.shape[1] ?? states };
}
