// What the linker and the loop expander share: lines that know where they were written.

import { FoveaError } from "../errors.ts";

/** One line of linked text and where it was written; `line` counts from 1. */
export interface Line {
  readonly text: string;
  readonly module: string;
  readonly line: number;
  /** The expander changed the text, so columns are no longer those that were written. */
  readonly rewritten?: boolean;
}

export const located = (module: string, line: number, message: string) =>
  new FoveaError("shader", `${module}:${line}: ${message}`);

/**
 * Replaces every comment by as many spaces, so that positions stay and patterns can't match inside
 * one.
 */
export function blankComments(text: string): string {
  let depth = 0;
  let inLine = false;
  return text.replace(/\/\/|\/\*|\*\/|\n|[^/*\n]+|./g, (token) => {
    if (token === "\n") inLine = false;
    if (token === "\n" || (!inLine && depth === 0 && token !== "//" && token !== "/*"))
      return token;
    if (!inLine && token === "/*") depth++;
    else if (!inLine && token === "*/") depth--;
    else if (depth === 0) inLine = true;
    return " ".repeat(token.length);
  });
}
