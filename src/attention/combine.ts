// Masks made of masks. Every part keeps its own names, so that two windows in one mask do not meet.

import { check } from "../errors.ts";
import type { FunctionPart } from "../kernels/slots.ts";
import { declarations } from "../shader/link.ts";
import { blankComments } from "../shader/source.ts";
import { AttentionFunction, type Captures, type MaskFunction } from "./functions.ts";

/**
 * The keys that a query sees by every one of the masks: their intersection; all keys if there is no mask.
 *
 * What part i captures is called by its name and `_i`, counted from 1: `captures: { document_ids_2: others }` replaces
 * the ids of a documentMask() that is the second part. Errors of the GPU's compiler name the part and the line in it.
 *
 * Throws FoveaError("argument") for what is no mask function.
 *
 * @example
 * const packed = allOf(causalMask(), documentMask(ids));
 */
export const allOf = (...masks: readonly MaskFunction[]): MaskFunction => combined("allOf", "&&", "true", masks);

/**
 * The keys that a query sees by at least one of the masks: their union; none if there is no mask. See {@link allOf} for
 * the names of captures.
 *
 * @example
 * const strided = anyOf(slidingWindow(128, 0), dilatedWindow(4096, 128)); // arXiv 1904.10509, figure 3
 */
export const anyOf = (...masks: readonly MaskFunction[]): MaskFunction => combined("anyOf", "||", "false", masks);

function combined(name: string, operator: string, none: string, masks: readonly MaskFunction[]): MaskFunction {
  const captures: Record<string, Captures[string]> = {};
  const parts: FunctionPart[] = [];
  masks.forEach((mask, index) => {
    check(
      mask instanceof AttentionFunction && mask.kind === "mask",
      "argument",
      () => `${name}: part ${index + 1} must come from maskFunction(), got ${mask}.`,
    );
    const suffix = `_${index + 1}`;
    const texts = [{ label: mask.label, source: mask.source, written: mask.source }, ...mask.parts];
    const declared = texts.flatMap(({ source }) => declarations(blankComments(source)).map((found) => found.name));
    const names = new Set([...declared, ...Object.keys(mask.captures)]);
    for (const text of texts) parts.push({ ...text, source: renamed(text.source, names, suffix) });
    for (const [captured, value] of Object.entries(mask.captures)) captures[captured + suffix] = value;
  });
  const calls = masks.map((_, index) => `mask_${index + 1}(at)`).join(` ${operator} `) || none;
  const source = `fn mask(at: Position) -> bool {\n  return ${calls};\n}`;
  const label = `${name}(${masks.map((mask) => mask.label).join(", ")})`;
  return new AttentionFunction("mask", source, captures, label, parts);
}

/** A text with `suffix` behind these names, wherever they stand for something of the module. */
function renamed(source: string, names: ReadonlySet<string>, suffix: string): string {
  const code = blankComments(source);
  const structs = [...code.matchAll(/\bstruct\s+\w+\s*\{[^}]*\}/g)];
  const isMember = (at: number, end: number) =>
    /\.\s*$/.test(code.slice(0, at)) ||
    (structs.some(({ index, 0: text }) => index < at && at < index + text.length) && /^\s*:/.test(code.slice(end)));
  let text = "";
  let done = 0;
  for (const { index, 0: word } of code.matchAll(/(?<!\w)[A-Za-z_]\w*/g)) {
    const end = index + word.length;
    // What ends like that is a local name, which must not hide a renamed one.
    if (!(names.has(word) || word.endsWith(suffix)) || isMember(index, end)) continue;
    text += source.slice(done, end) + suffix;
    done = end;
  }
  return text + source.slice(done);
}
