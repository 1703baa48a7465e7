// Which gradients a caller asks for: all that there are, or those of a list.

import { check, show } from "../errors.ts";

/**
 * The gradients that are computed: those of the list `asked`, or all of `known` that a problem has.
 * Throws FoveaError("argument") for a list that is none, an unknown name, and a gradient that the
 * problem does not have.
 *
 * @param known All gradients of the operation, each with what it is the gradient of, or with
 *   undefined if the problem has no such tensor
 */
export function gradientsOf<Name extends string>(
  label: string,
  asked: unknown,
  known: Readonly<Record<Name, unknown>>,
): ReadonlySet<Name> {
  const names = Object.keys(known) as Name[];
  const there = names.filter((name) => known[name] !== undefined);
  if (asked === undefined) return new Set(there);
  check(
    Array.isArray(asked) && asked.length > 0,
    "argument",
    () =>
      `${label}: gradients must be a list of one or more of ${there.join(", ")}, got ${show(asked)}.`,
  );
  for (const name of asked) {
    check(
      names.includes(name),
      "argument",
      () => `${label}: there is no gradient ${show(name)}. Gradients: ${there.join(", ")}.`,
    );
    check(
      there.includes(name),
      "argument",
      () =>
        `${label}: ${name} is the gradient of a tensor that was not given. Gradients: ${there.join(", ")}.`,
    );
  }
  return new Set(asked);
}
