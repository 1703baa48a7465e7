// Reading of what a caller gives to a public function, as it is at the moment of the call. Known
// members are read once and copied, so that nothing which the caller does afterwards changes what
// the call means.

import { FoveaError, reading, show } from "./errors.ts";

/** The typed arrays that stand for lists of numbers. */
export type NumberArray =
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

/** Options as they are read: without null, and with arrays in place of typed arrays. */
export type Taken<T> = T extends unknown
  ? { [Name in keyof T]: Exclude<T[Name], null | NumberArray> }
  : never;

/** The members of a type, or of each type of a union. */
type NameOf<T> = T extends unknown ? keyof T & string : never;

type Member<T, Name> = T extends unknown ? (Name extends keyof T ? T[Name] : never) : never;

/** What an option has to be, as far as its type says it. Its function checks the rest. */
type Kind<Value> = [NonNullable<Value>] extends [boolean]
  ? "boolean"
  : [NonNullable<Value>] extends [number]
    ? "number"
    : [NonNullable<Value>] extends [string]
      ? "string"
      : "any";

/** The kind, with a question mark if null means none, as in configurations of models. */
type Nullable<Value> = null extends Value ? `${Kind<Value>}?` : Kind<Value>;

/**
 * The names of all options, and their kinds. The compiler compares the list with the type, so that
 * no option is forgotten.
 */
export type OptionNames<T> = { readonly [Name in NameOf<T>]: Nullable<Member<T, Name>> };

/** The names and kinds of any options. */
export type AnyNames = Readonly<
  Record<string, `${"any" | "boolean" | "number" | "string"}${"" | "?"}`>
>;

/**
 * Gives a list of numbers as an array, and anything else as it is. Elements of BigInt64Array become
 * numbers.
 */
export function numbersOf<T>(
  value: T,
): Exclude<T, NumberArray> | (T extends NumberArray ? readonly number[] : never) {
  const list = ArrayBuffer.isView(value) && !(value instanceof DataView);
  return (
    list ? Array.from(value as unknown as ArrayLike<number | bigint>, Number) : value
  ) as ReturnType<typeof numbersOf<T>>;
}

/**
 * The elements of an array or a typed array, copied; undefined for anything else, and for a list
 * that cannot be read.
 */
export function elementsOfList<Element>(value: unknown): Element[] | undefined {
  try {
    const list = numbersOf(value);
    return Array.isArray(list) ? Array.from(list) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * How deep options may nest objects: enough for every option, and an end to objects that hold
 * themselves.
 */
const DEEPEST = 6;
/** The most numbers of a list; no option can mean as many. */
const LONGEST = 2 ** 26;

/**
 * Reads the options that a function knows. `unknown` is the first name, if any, that it does not. A
 * member that is undefined counts as absent, and so does null if the type has it. Lists and plain
 * objects are copied, typed arrays become arrays, BigInts numbers; tensors and other objects stay
 * what they are.
 *
 * The copy can be compared and shown without running code that throws. Throws FoveaError if `given`
 * isn't an object, holds itself or a function, or cannot be read.
 */
export function readGiven<T extends object>(
  label: string,
  given: T | null | undefined,
  names: OptionNames<T>,
): { readonly options: Taken<T>; readonly unknown: string | undefined } {
  return reading(`${label}: an option`, () => {
    if (given !== undefined && given !== null && !isRecord(given))
      refuse(label, `options are an object { name: value }, got ${show(given)}.`);
    let unknown: string | undefined;
    for (const name in given) unknown ??= Object.hasOwn(names, name) ? undefined : name;
    const options = members(label, given ?? {}, Object.keys(names), 0);
    const kinds: AnyNames = names;
    for (const name in kinds)
      if (options[name] === null && kinds[name].endsWith("?")) delete options[name];
    checkKinds(label, options, kinds);
    return { options: options as Taken<T>, unknown };
  });
}

/**
 * The options of an asynchronous call, read before it returns. Rejects with FoveaError for a name
 * that the function does not know; the text of that error is loaded when it is needed. Synchronous
 * functions call `takeOptions` instead.
 */
export async function readOptions<T extends object>(
  label: string,
  given: T | null | undefined,
  names: OptionNames<NoInfer<T>>,
): Promise<Taken<T>> {
  const { options, unknown } = readGiven(label, given, names);
  if (unknown === undefined) return options;
  const { unknownOption } = await import("./unknown_option.ts");
  throw unknownOption((options as { label?: string }).label ?? label, unknown, names);
}

/**
 * Whether a value has options as its members: a plain object, or an instance of a class of the
 * caller's.
 */
export function isRecord(value: unknown): value is object {
  try {
    return /Object|Module/.test(Object.prototype.toString.call(value).slice(8));
  } catch {
    return false; // a revoked proxy
  }
}

/** Throws FoveaError for a member that is not of the kind that it must be. */
export function checkKinds(label: string, options: object, names: AnyNames): void {
  for (const [name, value] of Object.entries(options)) {
    const kind = names[name].replace("?", "");
    if (kind !== "any" && typeof value !== kind)
      refuse(label, `${name} must be a ${kind}, got ${show(value)}.`);
  }
}

function members(
  label: string,
  from: object,
  names: readonly string[],
  depth: number,
): Record<string, unknown> {
  const all = names.map(
    (name) => [name, copy(label, name, (from as Record<string, unknown>)[name], depth)] as const,
  );
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

/** A copy of plain data. Other objects stay what they are. */
function copy(label: string, name: string, value: unknown, depth: number): unknown {
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  if (typeof value === "bigint" || typeof value === "symbol" || typeof value === "function") {
    refuse(label, `${name} cannot be ${show(value)}.`);
  }
  if (typeof value !== "object" || value === null) return value;
  const list = numbersOf(value) as object;
  const isArray = Array.isArray(list);
  const prototype = Object.getPrototypeOf(list);
  if (!isArray && prototype !== Object.prototype && prototype !== null) {
    `${value}${+value}`; // throws for an object that messages could not show, or checks not compare
    return value;
  }
  if (depth > DEEPEST) refuse(label, `${name} is nested too deeply, or holds itself.`);
  if (isArray && list.length > LONGEST)
    refuse(label, `${name} is too long: ${list.length} elements.`);
  if (isArray) return Array.from(list, (item) => copy(label, name, item, depth + 1));
  return members(label, list, Object.keys(list), depth + 1);
}

function refuse(label: string, what: string): never {
  throw new FoveaError("argument", `${label}: ${what}`);
}

/** Whether a value is a whole number from 0 up that counts something. */
export const isLength = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0;
