// Tensors for gradients that a caller does not ask for.

import { check } from "../errors.ts";

/** Throws FoveaError for the tensor of a gradient that the caller does not ask for. */
export function expectAsked<Name extends string>(
  label: string,
  asked: ReadonlySet<Name>,
  tensors: { readonly [Gradient in Name]?: unknown },
): void {
  const stray = (Object.keys(tensors) as Name[]).find(
    (name) => tensors[name] !== undefined && !asked.has(name),
  );
  check(
    stray === undefined,
    "argument",
    () => `${label}: ${stray} is given, and gradients don't name it; leave one out.`,
  );
}
