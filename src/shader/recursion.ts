// Finds out whether declarations of a text need each other in a circle.

/**
 * The first name that is found to need itself, directly or through others; undefined if there is
 * none. The time is linear in the number of names and uses. It walks with a stack of its own, so
 * that a long chain of declarations can't exhaust that of JavaScript.
 *
 * @param uses What each declaration uses; names without a declaration are skipped
 */
export function recursive(uses: ReadonlyMap<string, ReadonlySet<string>>): string | undefined {
  const done = new Set<string>();
  const open = new Set<string>();
  const path: { readonly name: string; readonly uses: Iterator<string> }[] = [];
  const follow = (name: string, used: ReadonlySet<string>) => {
    open.add(name);
    path.push({ name, uses: used.values() });
  };
  for (const [first, usedByFirst] of uses) {
    if (!done.has(first)) follow(first, usedByFirst);
    for (let last = path.at(-1); last; last = path.at(-1)) {
      const { value: name, done: isLast } = last.uses.next();
      if (isLast) {
        path.pop();
        open.delete(last.name);
        done.add(last.name);
        continue;
      }
      if (open.has(name)) return name;
      const used = uses.get(name);
      if (used && !done.has(name)) follow(name, used);
    }
  }
  return undefined;
}
