// What the functions of a problem capture, for plans: numbers as uniforms hold them, and the functions themselves.

import type { CaptureType } from "../kernels/slots.ts";
import type { AttentionFunction, MaskFunction, ProbabilityFunction } from "./attention_function.ts";
import type { ScoreOptions } from "./options.ts";

/** A number is an f32. */
export type CapturedNumber = number | { readonly i32: number } | { readonly u32: number };

/** A captured number and its type. */
export function numberOf(value: CapturedNumber): { type: CaptureType; value: number } {
  if (typeof value === "number") return { type: "f32", value };
  return "i32" in value ? { type: "i32", value: value.i32 } : { type: "u32", value: value.u32 };
}

/** Writes a captured number where a uniform of its type reads it. */
export function writeNumber(bytes: ArrayBuffer, offset: number, given: CapturedNumber): void {
  const view = new DataView(bytes);
  const { type, value } = numberOf(given);
  if (type === "f32") view.setFloat32(offset, value, true);
  else if (type === "i32") view.setInt32(offset, value, true);
  else view.setUint32(offset, value, true);
}

/** The mask function of a problem: its own, or that of its block mask. */
export const maskFunctionOf = ({ maskFunction, blockMask }: ScoreOptions): MaskFunction | undefined =>
  maskFunction ?? blockMask?.maskFunction;

/** The functions of a problem. */
export function functionsOf(
  options: ScoreOptions & { readonly probabilityFunction?: ProbabilityFunction },
): readonly AttentionFunction[] {
  const { scoreFunction, probabilityFunction } = options;
  return [scoreFunction, maskFunctionOf(options), probabilityFunction].filter((given) => given !== undefined);
}
