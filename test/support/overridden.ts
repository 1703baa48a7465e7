// Objects with some members replaced. This is a separate file, because programs that aren't tests
// use it, too.

/**
 * Returns what looks to everyone like the same device (or entry, or adapter), with some members
 * replaced.
 */
export function overridden<Whole extends object>(
  whole: Whole,
  members: Record<string, unknown>,
): Whole {
  return new Proxy(whole, {
    get(target, name) {
      if (name in members) return members[name as string];
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
