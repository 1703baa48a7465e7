// Texts of tokens: what tokenizers do, and how a text comes out while its tokens come one by one.

import { FoveaError, show } from "../../errors.ts";

/**
 * What turns texts into ids and back: a tokenizer of `@huggingface/tokenizers`, of transformers.js,
 * or anything like them.
 */
export interface Tokenizer {
  /** Ids, or an object that has them as `ids`. */
  encode(text: string): ArrayLike<number> | { readonly ids: ArrayLike<number> };
  decode(ids: number[], options?: { readonly skip_special_tokens?: boolean }): string;
}

/** The ids of a text. Throws FoveaError("argument") for a tokenizer that gives none. */
export function idsOf(label: string, tokenizer: Tokenizer, text: string): number[] {
  const given = tokenizer.encode(text);
  const ids = "ids" in given ? given.ids : given;
  const list = Array.from(ids, Number);
  if (list.every(Number.isSafeInteger)) return list;
  throw new FoveaError("argument", `${label}: the tokenizer gives ${show(given)} in place of ids.`);
}

/** What stands for bytes that are no character yet. */
const INCOMPLETE = "\uFFFD";

/**
 * The text of tokens that come one by one. A character whose bytes lie in several tokens comes with
 * the last of them, and what may begin a stop text waits until that is known.
 */
export class TextStream {
  readonly #decode: ((ids: number[]) => string) | undefined;
  readonly #stops: readonly string[];
  readonly #ids: number[];
  /** Tokens before this one are told; those from here on are decoded together with what follows. */
  #from = 0;
  /** The text of the tokens from `#from` on that are told. */
  #told: string;
  /** Text that may be the beginning of a stop text. */
  #held = "";

  /**
   * @param tokenizer Undefined: then there is no text
   * @param before The token before the first one, which tells whether a text begins here
   */
  constructor(tokenizer: Tokenizer | undefined, stops: readonly string[], before: number) {
    this.#decode = tokenizer && ((ids) => tokenizer.decode(ids, { skip_special_tokens: true }));
    this.#stops = stops;
    this.#ids = [before];
    this.#told = this.#decode?.(this.#ids) ?? "";
  }

  /** Takes a token: the text that it completes, and whether a stop text has come. */
  push(id: number): { readonly text: string; readonly stopped: boolean } {
    if (!this.#decode) return { text: "", stopped: false };
    this.#ids.push(id);
    const all = this.#decode(this.#ids.slice(this.#from));
    if (all.endsWith(INCOMPLETE)) return { text: "", stopped: false };
    const more = all.slice(this.#told.length);
    // Some decoders leave a space out at the start, so the last token that was told stays.
    this.#from = this.#ids.length - 1;
    this.#told = this.#decode(this.#ids.slice(this.#from));
    return this.#release(more);
  }

  /** What is left at the end: text that was held, and characters that were never completed. */
  end(): string {
    const all = this.#decode?.(this.#ids.slice(this.#from)) ?? "";
    const rest = this.#held + all.slice(this.#told.length);
    this.#held = "";
    this.#told = all;
    return rest;
  }

  #release(more: string) {
    const text = this.#held + more;
    const at = Math.min(...this.#stops.map((stop) => indexOf(text, stop)));
    if (at < text.length) {
      this.#held = "";
      return { text: text.slice(0, at), stopped: true };
    }
    const begun = Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - begun);
    return { text: text.slice(0, text.length - begun), stopped: false };
  }
}

const indexOf = (text: string, stop: string) => {
  const at = text.indexOf(stop);
  return at < 0 ? Number.POSITIVE_INFINITY : at;
};

/** The length of the longest end of a text that a stop text begins with. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--)
    if (text.endsWith(stop.slice(0, length))) return length;
  return 0;
}
