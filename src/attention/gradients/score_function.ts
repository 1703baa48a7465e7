// What gradients of attention ask of a score function.

import { check } from "../../errors.ts";
import type { ScoreFunction, ScoreGradient } from "../../functions/attention_function.ts";
import type { SlotChoice } from "../../kernels/slots.ts";

/** Throws FoveaError("argument") for a score function without derivatives. */
export function checkDifferentiable(
  label: string,
  { gradient, label: named }: ScoreFunction,
): ScoreGradient {
  check(
    gradient !== undefined,
    "argument",
    () =>
      `${label}: the ${named} has no derivative. Give scoreFunction() the option gradient, WGSL with \`fn gradient(s: f32, at: Position) -> f32\`, the derivative of the score by s; checkGradient() tells whether it is right.`,
  );
  return gradient;
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
