// The gradients of what a score function captures: which are asked for.

import { check, reading, show } from "../../errors.ts";
import type { ScoreFunction } from "../../functions/attention_function.ts";
import type { FunctionGradient } from "../../functions/gradient.ts";
import { denseStrides, resolveSpec, Tensor } from "../../gpu/tensor.ts";
import { checkedSpec, expectShape, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import type { ResolvedScores } from "../resolved.ts";

/** Which gradients of captures are asked for: `true` for a dense tensor. */
export type CapturesAsked = Readonly<Record<string, boolean | TensorSpec>>;

/** A captured value whose gradient is asked for. */
export interface WantedCapture {
  readonly name: string;
  /** Dense, of the shape of the capture, and [1] for a number. */
  readonly spec: ResolvedSpec;
  readonly given: boolean | TensorSpec;
  readonly elements: number;
  /** Elements that a score reads. */
  readonly reads: number;
}

/** What is asked for, checked. Throws FoveaError("argument"). */
export function resolveCaptures(
  label: string,
  {
    scoreFunction,
    dCaptures: asked,
  }: { readonly scoreFunction?: ScoreFunction; readonly dCaptures?: CapturesAsked },
  gradient: FunctionGradient | undefined,
  { similarity }: Pick<ResolvedScores, "similarity">,
): readonly WantedCapture[] {
  if (asked === undefined) return [];
  const what = `${label}: dCaptures`;
  check(
    typeof asked === "object" && !(asked instanceof Tensor),
    "argument",
    () => `${what} must be { name: true or tensor }, got ${show(asked)}.`,
  );
  const entries = reading(what, () => Object.entries(asked));
  const wanted = entries.filter(([, given]) => given !== undefined && given !== false);
  check(
    !wanted.length || similarity?.kind !== "additive",
    "argument",
    () => `${what} can't be computed with additive similarity.`,
  );
  return wanted.map(([name, given]) => {
    const captures = scoreFunction?.captures ?? {};
    const all = Object.keys(captures).join(", ") || "nothing";
    check(
      scoreFunction !== undefined && Object.hasOwn(captures, name),
      "argument",
      () => `${what}: the score function captures ${all}, and no ${show(name)}.`,
    );
    const reads = gradient?.reads.get(name);
    check(
      reads !== undefined,
      "argument",
      () =>
        `${what}: the ${scoreFunction.label} has no derivative by ${name}. Its option gradient needs \`fn gradient_${name}(s: f32, at: Position) -> f32\`, and for a tensor \`fn index_${name}(at: Position) -> u32\`.`,
    );
    const value = captures[name];
    const shape = value instanceof Tensor ? value.shape : [1];
    if (value instanceof Tensor) expectDense(`${label}: capture ${name}`, value, "has a gradient");
    const spec =
      given === true
        ? resolveSpec(label, { shape })
        : checkedSpec(label, `dCaptures.${name}`, given as TensorSpec);
    expectShape(label, `dCaptures.${name}`, spec, shape, "the shape of the capture");
    expectDense(`${label}: dCaptures.${name}`, spec, "is written");
    const elements = shape.reduce((product, size) => product * size, 1);
    return { name, spec, given, elements, reads: reads === "one" ? 1 : reads };
  });
}

function expectDense(what: string, { shape, strides }: ResolvedSpec, why: string): void {
  const dense = denseStrides(shape);
  check(
    shape.every((size, axis) => size <= 1 || strides[axis] === dense[axis]),
    "argument",
    () => `${what} ${why}, and must be dense; it is [${shape}] with strides [${strides}].`,
  );
}
