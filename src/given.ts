// What a caller gives to a public function, as it was at the moment of the call: known members, read once and copied, so
// that nothing which the caller does afterwards changes what the call means.

import { FoveaError, show } from "./errors.ts";

/** The typed arrays that stand for lists of numbers. */
type NumberArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

/** A list of numbers: an array, or a typed array of any kind. */
export type Numbers = readonly number[] | NumberArray;

/** The members of a type, or of each type of a union. */
type NameOf<T> = T extends unknown ? keyof T & string : never;

/** The names of all options: the compiler holds the list to the type, so that no option can be forgotten. */
export type OptionNames<T> = Readonly<Record<NameOf<T>, true>>;

/** A list of numbers as an array; anything else as it is. Elements of BigInt64Array become numbers. */
export function numbersOf<T>(value: T): Exclude<T, NumberArray> | (T extends NumberArray ? readonly number[] : never) {
  const list = ArrayBuffer.isView(value) && !(value instanceof DataView);
  return (list ? Array.from(value as unknown as ArrayLike<number | bigint>, Number) : value) as ReturnType<
    typeof numbersOf<T>
  >;
}

/** Objects within objects that options may have: enough for every option, and an end to those that hold themselves. */
const DEEPEST = 6;
/** Numbers of a list, above all that an option can mean. */
const LONGEST = 2 ** 26;

/**
 * Reads the options that a function knows. `unknown` is the first name, if any, that it does not. A member that is null,
 * as configurations in JSON have it, is the same as none. Lists and plain objects are copied, typed arrays become arrays;
 * tensors and other objects stay what they are.
 *
 * Throws FoveaError for what is no object, holds itself, or cannot be read.
 */
export function readGiven<T extends object>(
  label: string,
  given: T | null | undefined,
  names: OptionNames<T>,
): { readonly options: T; readonly unknown: string | undefined } {
  const refuse = (what: string, cause?: unknown) => {
    throw new FoveaError("argument", `${label}: ${what}`, { cause });
  };
  const copy = (value: unknown, depth: number): unknown => {
    if (typeof value !== "object" || value === null) return value;
    const list = numbersOf(value) as object;
    const isArray = Array.isArray(list);
    const prototype = Object.getPrototypeOf(list);
    if (!isArray && prototype !== Object.prototype && prototype !== null) return value;
    if (depth > DEEPEST) refuse("the options are nested too deeply, or hold themselves.");
    if (isArray && list.length > LONGEST) refuse(`a list of ${list.length} numbers is too long.`);
    if (isArray) return Array.from(list, (item) => copy(item, depth + 1));
    return members(list, Object.keys(list), depth + 1);
  };
  const members = (from: object, keys: readonly string[], depth: number) => {
    const entries = keys.map((key) => [key, copy((from as Record<string, unknown>)[key], depth)] as const);
    return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null));
  };
  const isObject = typeof given === "object" && !Array.isArray(given);
  if (given !== undefined && !isObject) refuse(`options are an object { name: value }, got ${show(given)}.`);
  let options = {};
  let unknown: string | undefined;
  try {
    for (const name in given) unknown ??= Object.hasOwn(names, name) ? undefined : name;
    options = members(given ?? {}, Object.keys(names), 0);
  } catch (cause) {
    if (cause instanceof FoveaError) throw cause;
    refuse("an option cannot be read: reading it throws an error.", cause);
  }
  const named = (options as { label?: unknown }).label;
  if (named !== undefined && typeof named !== "string") refuse(`label must be a string, got ${show(named)}.`);
  return { options: options as T, unknown };
}
