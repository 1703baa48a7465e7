// The options of public functions: unknown names are refused, and the error names the right one.

import { type AnyNames, checkKinds, type OptionNames, readGiven, type Taken } from "./given.ts";
import { unknownOption } from "./unknown_option.ts";

/**
 * Gives the options of a call, as a copy of what is given at this moment. Throws
 * FoveaError("argument") for a name that the function does not know, with the nearest one that it
 * does.
 *
 * @param label Name of the function in messages; the options' own `label` goes before it
 */
export function takeOptions<T extends object>(
  label: string,
  given: T | null | undefined,
  names: OptionNames<NoInfer<T>>,
): Taken<T> {
  const { options, unknown } = readGiven(label, given, names);
  const { label: named = label } = options as { label?: string };
  if (unknown !== undefined) throw unknownOption(named, unknown, names);
  return options;
}

/**
 * Throws FoveaError("argument") for a member of an option that is an object, if the name is not one
 * of `names`.
 */
export function checkNames(label: string, given: object, names: AnyNames): void {
  for (const name of Object.keys(given))
    if (!Object.hasOwn(names, name)) throw unknownOption(label, name, names);
  checkKinds(label, given, names);
}
