// Texts as lists of ids, as sessions take them.

import { check, FoveaError, reading, show } from "../../errors.ts";
import { elementsOfList } from "../../given.ts";

/** Ids of one text, or a list of them for each of several texts. */
export type Texts = readonly number[] | readonly (readonly number[])[];

/** The texts of so many entries, copied. Throws FoveaError("argument") for anything else. */
export function textsOf(label: string, given: Texts, entries: number): readonly number[][] {
  const lists = reading(`${label}: a text`, () => listsOf(given));
  if (lists?.length === entries) return lists;
  throw new FoveaError(
    "argument",
    `${label}: expected ${entries === 1 ? "a list of ids" : `${entries} lists of ids, one for each text`}, got ${show(given)}.`,
  );
}

/** Lists of ids: a flat list is one text. Undefined for what is neither. */
function listsOf(given: Texts): number[][] | undefined {
  const outer = elementsOfList<number | readonly number[]>(given);
  if (!outer) return undefined;
  if (outer.every((one) => typeof one === "number")) return [[...outer]];
  const inner = outer.map((one) => elementsOfList<number>(one as readonly number[]));
  return inner.every((one) => one !== undefined) ? inner.map((one) => [...one]) : undefined;
}

/** Throws FoveaError("argument") for ids that a vocabulary does not have. */
export function checkIds(
  label: string,
  texts: readonly (readonly number[])[],
  vocab: number = Number.MAX_SAFE_INTEGER,
): void {
  const wrong = texts.flat().find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
  check(
    wrong === undefined,
    "argument",
    () => `${label}: ids are whole numbers below ${vocab}, got ${show(wrong)}.`,
  );
}
