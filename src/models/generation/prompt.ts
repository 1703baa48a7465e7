// Prompts: texts, or their ids.

import { FoveaError, show } from "../../errors.ts";
import { idsOf, type Tokenizer } from "./tokenizer.ts";

/** A prompt: a text, for which a tokenizer is needed, or ids. */
export type Prompt = string | readonly number[];

/**
 * The ids of prompts. Throws FoveaError("argument") for a text if there is no tokenizer.
 */
export function textsIn(
  label: string,
  prompts: readonly Prompt[],
  tokenizer: Tokenizer | undefined,
): readonly (readonly number[])[] {
  return prompts.map((one) => {
    if (typeof one !== "string") return one;
    if (tokenizer) return idsOf(label, tokenizer, one);
    throw new FoveaError(
      "argument",
      `${label}: the prompt is a text, ${show(one)}, which needs a tokenizer; or give its ids.`,
    );
  });
}

/** Prompts as a list: a text, and a list of ids, is one. */
export const promptsOf = (given: Prompt | readonly Prompt[]): readonly Prompt[] =>
  typeof given === "string" || typeof given[0] === "number" || given.length === 0
    ? [given as Prompt]
    : (given as readonly Prompt[]);
