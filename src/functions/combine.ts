// Masks made of masks. The names of every part are kept apart, so that one mask may hold two
// windows.

import { check, show } from "../errors.ts";
import type { GuestPart } from "../shader/guests.ts";
import { AttentionFunction, type Captures, type MaskFunction } from "./attention_function.ts";
import { makeFunction } from "./functions.ts";

/** The most masks that a mask is made of, directly or through others. */
const MOST_PARTS = 256;

/**
 * The keys that a query sees by every one of the masks: their intersection; all keys if there is no
 * mask.
 *
 * The captures of part i have its names with `_i` added, counted from 1:
 * `captures: { document_ids_2: others }` replaces the ids of a documentMask() that is the second
 * part. Errors of the GPU's compiler name the part and the line in it.
 *
 * Throws FoveaError("argument") if an argument isn't a mask function, for more than 64 captures and
 * for more than 256 parts.
 *
 * @example
 * const packed = allOf(causalMask(), documentMask(ids));
 */
export const allOf = (...masks: readonly MaskFunction[]): MaskFunction =>
  combined("allOf", "&&", "true", masks);

/**
 * The keys that a query sees by at least one of the masks: their union; none if there is no mask.
 * See {@link allOf} for the names of captures.
 *
 * @example
 * // arXiv 1904.10509, figure 3
 * const strided = anyOf(slidingWindow(128, 0), dilatedWindow(4096, 128));
 */
export const anyOf = (...masks: readonly MaskFunction[]): MaskFunction =>
  combined("anyOf", "||", "false", masks);

function combined(
  name: string,
  operator: string,
  none: string,
  masks: readonly MaskFunction[],
): MaskFunction {
  const captures: Record<string, Captures[string]> = {};
  const parts: GuestPart[] = [];
  masks.forEach((mask, index) => {
    check(
      mask instanceof AttentionFunction && mask.kind === "mask",
      "argument",
      () => `${name}: part ${index + 1} must come from maskFunction(), got ${show(mask)}.`,
    );
    const behind = `_${index + 1}`;
    for (const { text, suffix } of mask.parts) parts.push({ text, suffix: suffix + behind });
    for (const [captured, value] of Object.entries(mask.captures))
      captures[captured + behind] = value;
  });
  check(
    parts.length <= MOST_PARTS,
    "argument",
    () => `${name}: the masks have ${parts.length} parts; at most ${MOST_PARTS} are taken.`,
  );
  const calls = masks.map((_, index) => `mask_${index + 1}(at)`).join(` ${operator} `) || none;
  const source = `fn mask(at: Position) -> bool {\n  return ${calls};\n}`;
  const label = `${name}(${masks.map((mask) => mask.label).join(", ")})`;
  return makeFunction("mask", source, { captures, label }, { parts });
}
