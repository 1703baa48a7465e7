// Tokens of WGSL, for texts that were not written here. Source: WGSL (W3C), section 3, "Textual
// structure".

import { FoveaError, show } from "../errors.ts";

const BLANK = /[\t\n\v\f\r \u0085\u200e\u200f\u2028\u2029]+/y;
const LINE_END = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/g;
/** Where a line comment may end. */
const COMMENT_END = new RegExp(LINE_END, "g");
const COMMENT_EDGE = /\/\*|\*\//g;
const NAME = /[_\p{XID_Start}]\p{XID_Continue}*/uy;
/** Takes a little more than WGSL's literals: the compiler says what is wrong with a number. */
const NUMBER =
  /(?:0[xX](?:[\da-fA-F]+\.?[\da-fA-F]*|\.[\da-fA-F]+)(?:[pP][+-]?\d+)?|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[fhiu]?/y;
const GLUED = /\p{XID_Continue}/uy;
const SLASH = 47;
const SIGNS = "&@/![]{}:,=><%-.+|();*~^";

/** The classes of ASCII's characters, by what a character may be part of. */
const CLASS = { blank: 1, nameStart: 2, name: 4, sign: 8 };
const CLASSES = Uint8Array.from({ length: 128 }, (_, code) => {
  const character = String.fromCharCode(code);
  const blank = /[\t\n\v\f\r ]/.test(character) ? CLASS.blank : 0;
  const letter = /[A-Za-z_]/.test(character) ? CLASS.nameStart : 0;
  return (
    blank |
    letter |
    (/\w/.test(character) ? CLASS.name : 0) |
    (SIGNS.includes(character) ? CLASS.sign : 0)
  );
});

/** A name, a number, one character of punctuation, or the end of the text. */
export type TokenKind = "name" | "number" | "sign" | "end";

/**
 * Reads a text token by token. Time is linear in the text, and comments of any depth need no stack.
 */
export class Tokens {
  readonly label: string;
  readonly source: string;
  kind: TokenKind = "end";
  text = "";
  /** Where the token starts and ends, in UTF-16 code units. */
  start = 0;
  end = 0;
  #at: number;

  /** @param label The beginning of error messages */
  constructor(label: string, source: string) {
    this.label = label;
    this.source = source;
    // Editors put a byte order mark before a text, which WGSL does not know.
    this.#at = source.startsWith("\ufeff") ? 1 : 0;
  }

  /** Goes to the next token. Throws FoveaError("argument") if what follows isn't a token. */
  next(): this {
    this.#skip();
    const { source } = this;
    const start = this.#at;
    this.start = start;
    this.kind = this.#takeToken(source.charCodeAt(start));
    this.end = this.#at;
    this.text = source.slice(start, this.#at);
    return this;
  }

  #takeToken(code: number): TokenKind {
    if (this.#at === this.source.length) return "end";
    if (code >= 128 || CLASSES[code] & CLASS.nameStart) {
      this.#skipClass(CLASS.name);
      // A name with letters beyond ASCII's is read again from its start.
      if (
        this.source.charCodeAt(this.#at) < 128 ||
        this.#at === this.source.length ||
        this.#takeName()
      )
        return "name";
    }
    if (this.#take(NUMBER)) {
      const start = this.start;
      if (this.#take(GLUED))
        throw this.error(start, `${show(this.source.slice(start, this.#at))} is no number`);
      return "number";
    }
    if (!(CLASSES[code] & CLASS.sign)) {
      const character = String.fromCodePoint(this.source.codePointAt(this.start) as number);
      throw this.error(this.start, `WGSL has no character ${characterName(character)}`);
    }
    this.#at++;
    return "sign";
  }

  #takeName(): boolean {
    this.#at = this.start;
    return this.#take(NAME);
  }

  /** The first character of what follows; "" at the end. */
  peek(): string {
    this.#skip();
    return this.source.charAt(this.#at);
  }

  /** An error at a place of the text. */
  error(offset: number, message: string): FoveaError {
    const { line, column } = placeOf(this.source, offset);
    return new FoveaError("argument", `${this.label}:${line}:${column}: ${message}.`);
  }

  /** Goes past characters of ASCII. */
  #skipClass(wanted: number): void {
    const { source } = this;
    while (CLASSES[source.charCodeAt(this.#at)] & wanted) this.#at++;
  }

  #take(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.source)) return false;
    this.#at = pattern.lastIndex;
    return true;
  }

  /** Goes past blanks and comments. */
  #skip(): void {
    const { source } = this;
    for (;;) {
      this.#skipClass(CLASS.blank);
      const code = source.charCodeAt(this.#at);
      if (code >= 128 && this.#take(BLANK)) continue;
      const after = code === SLASH ? source[this.#at + 1] : "";
      if (after === "/") {
        COMMENT_END.lastIndex = this.#at;
        this.#at = COMMENT_END.exec(source)?.index ?? source.length;
      } else if (after === "*") this.#skipBlockComment();
      else return;
    }
  }

  #skipBlockComment(): void {
    const start = this.#at;
    COMMENT_EDGE.lastIndex = start;
    for (let depth = 0; ; ) {
      const edge = COMMENT_EDGE.exec(this.source);
      if (!edge) throw this.error(start, "the comment is not closed");
      depth += edge[0] === "/*" ? 1 : -1;
      if (depth > 0) continue;
      this.#at = COMMENT_EDGE.lastIndex;
      return;
    }
  }
}

const characterName = (character: string) =>
  /^[!-~]$/.test(character)
    ? `\`${character}\``
    : `U+${(character.codePointAt(0) as number).toString(16).toUpperCase().padStart(4, "0")}`;

/** The line ends of a stretch of text. */
export const lineEnds = (text: string): IterableIterator<RegExpExecArray> =>
  text.matchAll(LINE_END);

/** Line and column of a place, both from 1, as WGSL counts lines. */
function placeOf(source: string, offset: number): { line: number; column: number } {
  let line = 1;
  let start = 0;
  for (const { index, 0: end } of lineEnds(source)) {
    if (index + end.length > offset) break;
    line++;
    start = index + end.length;
  }
  return { line, column: offset - start + 1 };
}
