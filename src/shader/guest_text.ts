// The text of a user's function: read once, when the function is made, and written anew from its
// tokens when it is linked. So a compiler sees only what was checked here: there are no comments,
// WGSL's seven line ends have become one, and every name is known.

import { FoveaError } from "../errors.ts";
import { type EntryHead, GuestReader } from "./guest_reader.ts";
import type { Line } from "./source.ts";
import { lineEnds, Tokens } from "./tokens.ts";
import { isPredeclared } from "./wgsl_names.ts";

/** UTF-16 code units of a text, comments included. */
export const MOST_TEXT = 2 ** 22;
/** Columns up to which the places of tokens are kept. */
const MOST_COLUMN = 512;

export interface GuestRules {
  /** The function that the kernel calls. */
  readonly entry: string;
  /** Names that the text may use beside its own and WGSL's. */
  readonly names: ReadonlySet<string>;
}

/** A checked text. */
export class GuestText {
  /** The beginning of error messages. */
  readonly label: string;
  readonly source: string;
  /** Names of the module scope, and where each is declared. */
  readonly declared: ReadonlyMap<string, number>;
  /** Names of parameters and variables. */
  readonly locals: ReadonlySet<string>;
  /**
   * The names that it uses from outside of functions: its own, those that it was given, and WGSL's.
   */
  readonly used: ReadonlySet<string>;
  /** The heads of its functions. */
  readonly heads: ReadonlyMap<string, EntryHead>;
  /** The head of the function that the kernel calls; undefined if there is none. */
  readonly head: EntryHead | undefined;
  /** The offsets, in order, of names that are not those of parameters, variables or members. */
  readonly #outer: Uint32Array;

  /**
   * Reads a text. Throws FoveaError("argument"), with line and column, for anything but
   * declarations of functions, structs, constants and aliases, and for a name that is neither the
   * text's, nor `names`, nor one of WGSL's that can do no harm in a kernel.
   */
  constructor(label: string, source: string, { entry, names }: GuestRules) {
    if (source.length > MOST_TEXT) {
      const message = `${label}: the text has ${source.length} characters; at most ${MOST_TEXT} are taken.`;
      throw new FoveaError("argument", message);
    }
    const reader = new GuestReader(new Tokens(label, source), names);
    reader.read();
    this.label = label;
    this.source = source;
    this.declared = reader.declared;
    this.locals = reader.locals;
    this.used = new Set(reader.used.keys());
    this.heads = reader.heads;
    this.head = reader.heads.get(entry);
    this.#outer = Uint32Array.from(reader.outer);
  }

  /** Whether WGSL has a name already. */
  isPredeclared(name: string): boolean {
    return isPredeclared(name);
  }

  /** Gives what tells one text from another. */
  toJSON(): string {
    return this.source;
  }

  /**
   * The text as lines to compile, with other names for those that are not local. Each token stays
   * in its column, on as many lines as that takes; columns beyond 512 are not kept.
   */
  lines(nameOf: (name: string) => string): Line[] {
    const lines: Line[] = [];
    const tokens = new Tokens(this.label, this.source);
    let text = "";
    let line = 1;
    let lineStart = 0;
    let exact = true;
    let end = 0;
    let outer = 0;
    // The most blanks that keeping columns may cost.
    let padding = 4 * this.source.length + 2 ** 16;
    const flush = () => {
      if (text)
        lines.push({ text, module: this.label, line, ...(exact ? {} : { rewritten: true }) });
      text = "";
      exact = true;
    };
    while (tokens.next().kind !== "end") {
      const { start } = tokens;
      const gap = this.source.slice(end, start);
      if (gap.length > 1 || (gap && gap !== " ")) {
        for (const { index, 0: lineEnd } of lineEnds(gap)) {
          flush();
          line++;
          lineStart = end + index + lineEnd.length;
        }
      }
      const column = start - lineStart;
      if (exact && column < text.length) flush();
      const missing = column - text.length;
      exact &&= column <= MOST_COLUMN && missing <= padding;
      if (exact) {
        padding -= missing;
        text = text.padEnd(column);
      } else if (gap) text += " ";
      const isOuter = this.#outer[outer] === start;
      if (isOuter) outer++;
      text += isOuter ? nameOf(tokens.text) : tokens.text;
      end = tokens.end;
    }
    flush();
    return lines;
  }
}
