// What operations and layers of programs are given: values of a program, settings by their names.

import { check, reading, show } from "../errors.ts";
import { isRecord, type OptionNames, type Taken } from "../given.ts";
import { takeOptions } from "../options.ts";
import { type Recorder, Value } from "./value.ts";

/**
 * The program that values belong to. Throws FoveaError("argument") for what is no value; the
 * optional ones may be undefined.
 */
export function graphOf(
  label: string,
  given: Readonly<Record<string, unknown>>,
  optional: Readonly<Record<string, unknown>> = {},
): Recorder {
  const present = Object.entries(optional).filter(([, value]) => value !== undefined);
  for (const [name, value] of [...Object.entries(given), ...present]) {
    check(
      value instanceof Value,
      "argument",
      () => `${label}: ${name} must be a value of the program, got ${show(value)}.`,
    );
  }
  return (Object.values(given)[0] as Value).graph;
}

/**
 * The settings of an operation, read once. Throws FoveaError("argument") for a name that it does
 * not know, and for a member of another kind.
 */
export const takeSettings = <T extends object>(
  label: string,
  given: T | undefined,
  names: OptionNames<NoInfer<T>>,
): Taken<T> => takeOptions(label, given, names);

/** A member of settings that is a function, and the settings without it. */
export function withoutFunction<T extends object, Name extends keyof T & string>(
  label: string,
  given: T,
  name: Name,
): readonly [T[Name], Omit<T, Name>] {
  check(
    isRecord(given),
    "argument",
    () => `${label}: settings are an object { name: value }, got ${show(given)}.`,
  );
  return reading(`${label}: ${name}`, () => {
    const { [name]: found, ...rest } = given;
    check(
      found === undefined || typeof found === "function",
      "argument",
      () => `${label}: ${name} must be a function, got ${show(found)}.`,
    );
    return [found, rest] as const;
  });
}

/** Throws FoveaError("argument") for what is not a function that gives parameters, or their data. */
export function checkParameters(label: string, parameters: unknown): void {
  check(
    typeof parameters === "function",
    "argument",
    () =>
      `${label}: expected a function of names, as parametersOf(graph, drawn(1)) gives and takes, got ${show(parameters)}.`,
  );
}
