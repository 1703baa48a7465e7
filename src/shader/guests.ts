// Texts of users among our modules. Users' names give way: if the kernel or WGSL has a name
// already, the user's declaration gets another one.

import type { GuestText } from "./guest_text.ts";
import type { Line } from "./source.ts";

/** One text of a guest. */
export interface GuestPart {
  readonly text: GuestText;
  /** The end that is added to its names, so that the names of parts differ. */
  readonly suffix: string;
}

/** Texts that are linked together, and what they read beside their arguments. */
export interface Guest {
  /** The functions that the kernel calls, whose names stay. */
  readonly entries: readonly string[];
  readonly parts: readonly GuestPart[];
  /** Declarations of captured memory: names as the parts have them, suffix included. */
  readonly memory: readonly {
    readonly name: string;
    readonly declared: (name: string) => string;
  }[];
  /** The name of the memory in messages. */
  readonly memoryLabel: string;
}

/** The lines of a guest, with names that no other module has; its own are added to `taken`. */
export function guestLines(
  { entries, parts, memory, memoryLabel }: Guest,
  taken: Set<string>,
): Line[] {
  const names = chosenNames(
    entries,
    parts,
    memory.map(({ name }) => name),
    taken,
  );
  const nameOf = (key: string, name: string) => names.get(key) ?? name;
  return [
    ...memory.map(({ name, declared }, index) => {
      return {
        text: declared(nameOf(name, name)),
        module: memoryLabel,
        line: index + 1,
        rewritten: true,
      };
    }),
    ...parts.flatMap(({ text, suffix }) => text.lines((name) => nameOf(name + suffix, name))),
  ];
}

/**
 * Chooses a name for each declaration. The keys are the declared names with the suffixes of their
 * parts.
 */
function chosenNames(
  entries: readonly string[],
  parts: readonly GuestPart[],
  captures: readonly string[],
  taken: Set<string>,
): Map<string, string> {
  const locals = new Set(parts.flatMap(({ text }) => [...text.locals]));
  const keys = new Set([
    ...captures,
    ...parts.flatMap(({ text, suffix }) => [...text.declared.keys()].map((name) => name + suffix)),
  ]);
  const chosen = new Map<string, string>();
  for (const key of keys) {
    // In a text that is linked alone, a parameter or variable of the same name hides the
    // declaration just as its author wrote it.
    const isWritten = parts.length === 1;
    let name = key;
    const isFree = () =>
      !taken.has(name) &&
      !parts[0].text.isPredeclared(name) &&
      (name === key ? isWritten || !locals.has(name) : !locals.has(name) && !keys.has(name));
    for (let n = 2; !entries.includes(key) && !isFree(); n++) name = `${key}_${n}`;
    chosen.set(key, name);
    taken.add(name);
  }
  return chosen;
}
