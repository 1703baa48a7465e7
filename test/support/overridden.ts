// Objects with some members replaced. Apart from the rest, because programs that are no tests use
// it, too.

/**
 * The same device (or entry, or adapter) with some members replaced, as far as anyone who asks it
 * can tell.
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
