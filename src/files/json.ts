// Finds what JSON.parse does not tell about a text that nobody vouches for: how deep it nests, and
// whether a name stands twice.

/** What a look at JSON finds before it is parsed. */
export interface JsonScan {
  /** Levels of brackets, as far as they were counted. */
  readonly depth: number;
  /** The first name, as written, that an object has twice; parsers take one of the two. */
  readonly duplicate: string | undefined;
}

/**
 * Reads the text once, in linear time, and stops beyond `maxDepth` levels or at a name that stands
 * twice. Text that isn't JSON is left for JSON.parse to refuse.
 */
export function scanJson(text: string, maxDepth: number): JsonScan {
  /** The names so far of each object that is open; an array has none. */
  const open: Set<string>[] = [];
  let deepest = 0;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (letter === "{" || letter === "[") {
      open.push(new Set());
      deepest = Math.max(deepest, open.length);
      if (deepest > maxDepth) break;
    } else if (letter === "}" || letter === "]") {
      open.pop();
    } else if (letter === '"') {
      const end = endOfString(text, at);
      let next = end;
      while (/\s/.test(text.charAt(next))) next++;
      const names = open.at(-1);
      if (text[next] === ":" && names) {
        const written = text.slice(at, end);
        const name = JSON.parse(written); // one name may be written in several ways
        if (names.has(name)) return { depth: deepest, duplicate: written };
        names.add(name);
      }
      at = next - 1;
    }
  }
  return { depth: deepest, duplicate: undefined };
}

/** The place behind the string that begins at `begin`. */
function endOfString(text: string, begin: number): number {
  let at = begin + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return Math.min(at + 1, text.length);
}
