// The state of linear attention and its normaliser: which of them a caller keeps, and in which
// operands the kernels find them.

import { check } from "../errors.ts";
import { denseStrides } from "../gpu/tensor.ts";
import { checkedSpec, expectShape, type ResolvedSpec } from "../plan/specs.ts";
import type { LinearAttentionProblem, LinearTensor } from "./options.ts";

/** Checks the state and the normaliser, which are given in place, or before and after. */
export function resolveStates(
  label: string,
  problem: LinearAttentionProblem,
  normalized: boolean,
  shapes: Readonly<Record<"state" | "normalizer", readonly number[]>>,
  specs: Map<LinearTensor, ResolvedSpec>,
) {
  const pairs = [
    ["state", "normalizer"],
    ["pastState", "pastNormalizer"],
    ["presentState", "presentNormalizer"],
  ] as const;
  for (const [state, normalizer] of pairs) {
    check(
      normalized
        ? (problem[state] === undefined) === (problem[normalizer] === undefined)
        : problem[normalizer] === undefined,
      "argument",
      () =>
        normalized
          ? `${label}: the attention is normalised: ${state} and ${normalizer} go together.`
          : `${label}: the attention is not normalised: there is no ${normalizer}.`,
    );
    for (const [name, shape] of [
      [state, shapes.state],
      [normalizer, shapes.normalizer],
    ] as const) {
      const given = problem[name];
      if (given === undefined) continue;
      const spec = checkedSpec(label, name, given);
      expectShape(
        label,
        name,
        spec,
        shape,
        name.endsWith("ormalizer") ? "[B, Hkv, D]" : "[B, Hkv, D, Dv]",
      );
      const strides = denseStrides(shape);
      check(
        shape.includes(0) ||
          shape.every((size, axis) => size === 1 || spec.strides[axis] === strides[axis]),
        "argument",
        () => `${label}: ${name} must be dense, strides [${strides}], got [${spec.strides}].`,
      );
      specs.set(name, spec);
    }
  }
  check(
    problem.state === undefined ||
      (problem.pastState === undefined && problem.presentState === undefined),
    "argument",
    () =>
      `${label}: state is read and written in place; it can't be combined with pastState or presentState.`,
  );
}

/** The operands that hold the state and the normaliser while the kernels run. */
export interface StatePlaces {
  readonly state: string;
  readonly normalizer: string;
}

/** The operands that are written: the caller's, or the plan's own if the caller keeps none. */
export function statePlaces(specs: ReadonlyMap<LinearTensor, ResolvedSpec>): StatePlaces {
  const place = (inPlace: LinearTensor, after: LinearTensor) =>
    [inPlace, after].find((name) => specs.has(name)) ?? `own ${inPlace}`;
  return {
    state: place("state", "presentState"),
    normalizer: place("normalizer", "presentNormalizer"),
  };
}
