// What gradients of attention ask of a score function.

import { check } from "../../errors.ts";
import { AttentionFunction, type ScoreFunction } from "../../functions/attention_function.ts";
import type { FunctionGradient } from "../../functions/gradient.ts";
import type { SlotChoice } from "../../kernels/slots.ts";

/**
 * The derivatives of a problem's score function, if there is one. Rejects with
 * FoveaError("argument") if it was made without them, or if their text is wrong.
 */
export async function loadGradient({
  label = "attentionBackward",
  scoreFunction,
}: {
  readonly label?: string;
  readonly scoreFunction?: ScoreFunction;
}): Promise<FunctionGradient | undefined> {
  // What is no score function is refused with the other options.
  if (!(scoreFunction instanceof AttentionFunction) || scoreFunction.kind !== "score")
    return undefined;
  check(
    scoreFunction.gradient !== undefined,
    "argument",
    () =>
      `${label}: the ${scoreFunction.label} has no derivative. Give scoreFunction() the option gradient, WGSL with \`fn gradient(s: f32, at: Position) -> f32\`, the derivative of the score by s; checkGradient() tells whether it is right.`,
  );
  const { gradientOf } = await import("../../functions/gradient.ts");
  return gradientOf(scoreFunction);
}

/**
 * The slot of a score function with its derivatives, by the score and by the wanted captures; none
 * without a score function.
 */
export async function differentiableSlots(
  given: ScoreFunction | undefined,
  wanted: readonly string[] = [],
): Promise<Pick<SlotChoice, "score">> {
  if (!given) return {};
  const { differentiable } = await import("../../functions/differentiable.ts");
  return { score: differentiable(given, wanted) };
}
