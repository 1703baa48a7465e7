// Reads what a caller gives an operator, once, and checks it. All that is wrong with it becomes a
// FoveaError that names it.

import { reading, show } from "../../errors.ts";
import { FoveaError, type FoveaErrorCode, Tensor } from "../../index.ts";
import type {
  AttributeKinds,
  Kinds,
  OnnxAttributes,
  OnnxInput,
  OnnxRun,
} from "./operator_types.ts";

/** Attributes as an operator gets them: checked, and undefined if they were left out. */
export type Resolved<K extends Kinds> = {
  readonly [Name in keyof K]: AttributeKinds[K[Name]] | undefined;
};

export function check(
  condition: boolean,
  message: () => string,
  code: FoveaErrorCode = "argument",
): asserts condition {
  if (!condition) throw new FoveaError(code, message());
}

export type Named<Name extends string> = Name extends `${infer Plain}?` ? Plain : Name;

/** The name of an input or output, without the `?` at the end of optional ones. */
export const plain = <Name extends string>(name: Name) => name.replace(/\?$/, "") as Named<Name>;

/**
 * An error for a name that an operator does not know. Advice on it is looked up when the error is
 * shown.
 */
export class UnknownName extends FoveaError {
  readonly #right: readonly string[];
  readonly #unknown: string;

  constructor(what: string, unknown: string, right: readonly string[]) {
    super("argument", what);
    this.#unknown = unknown;
    this.#right = right;
  }

  async explained(): Promise<FoveaError> {
    const { adviceFor } = await import("./operator_advice.ts");
    return new FoveaError("argument", `${this.message}${adviceFor(this.#unknown, this.#right)}.`);
  }
}

/** The members of what a caller gave as an object of names, by those that are known. */
function readMembers(
  what: string,
  given: unknown,
  known: readonly string[],
  unknown: (name: string) => Error,
) {
  return reading(what, () => {
    if (given === undefined || given === null) return {};
    check(
      typeof given === "object" && !(Symbol.iterator in given),
      () => `${what} are an object { name: value }, got ${show(given)}.`,
    );
    for (const name in given) if (!known.includes(name)) throw unknown(name);
    const from = given as Readonly<Record<string, unknown>>;
    const all = known.map((name) => [name, from[name]] as const);
    return Object.fromEntries(all.filter(([, value]) => value !== undefined && value !== null));
  });
}

/** The most numbers in a list that is an input. */
const LONGEST = 2 ** 26;

/**
 * A list of integers, however it was given: BigInts of int64 and booleans, too. Undefined if it
 * isn't a list of integers.
 */
function integersOf(given: unknown): readonly number[] | undefined {
  if (ArrayBuffer.isView(given) && given instanceof DataView) return undefined;
  const isList = Array.isArray(given) || ArrayBuffer.isView(given);
  if (isList && (given as unknown as ArrayLike<unknown>).length > LONGEST) return undefined;
  const list = isList ? Array.from(given as unknown as ArrayLike<unknown>) : [given];
  const areNumbers = list.every((value) => ["number", "bigint", "boolean"].includes(typeof value));
  return areNumbers ? list.map(Number) : undefined;
}

/** The inputs by name; lists are copied. */
export function namedInputs(
  operator: string,
  names: readonly string[],
  given: readonly OnnxInput[],
) {
  const list = reading(`${operator}: the list of inputs`, () => {
    check(
      Array.isArray(given) && given.length <= names.length,
      () =>
        `${operator}: expected a list of at most ${names.length} inputs (${names.map(plain).join(", ")}), got ${Array.isArray(given) ? given.length : show(given)}.`,
    );
    return Array.from(given);
  });
  const inputs = new Map<string, Tensor | readonly number[]>();
  for (const [index, name] of names.entries()) {
    const input = list[index] ?? undefined;
    check(
      input !== undefined || name.endsWith("?"),
      () => `${operator}: input ${index}, ${name}, is required.`,
    );
    if (input === undefined) continue;
    const taken = reading(`${operator}: ${plain(name)}`, () => {
      if (!(input instanceof Tensor)) return integersOf(input);
      // This throws for a Proxy of a tensor, which reactive state makes and which has no memory.
      input.destroyed;
      return input;
    });
    check(
      taken !== undefined,
      () =>
        `${operator}: ${plain(name)} must be a Tensor (make one with tensor()) or a list of numbers, got ${show(input)}.`,
    );
    const wrong =
      taken instanceof Tensor ? undefined : taken.find((value) => !Number.isFinite(value));
    check(
      wrong === undefined,
      () => `${operator}: ${plain(name)} must be finite numbers, got ${wrong}.`,
    );
    inputs.set(plain(name), taken);
  }
  return inputs;
}

const isFloat = (value: unknown) =>
  typeof value === "number" && Number.isFinite(Math.fround(value));

const KINDS: { readonly [Kind in keyof AttributeKinds]: (value: unknown) => boolean } = {
  float: isFloat,
  int: Number.isSafeInteger,
  flag: (value) => value === 0 || value === 1 || typeof value === "boolean",
  ints: (value) => Array.isArray(value) && value.every(Number.isSafeInteger),
  string: (value) => typeof value === "string",
  graph: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
};
const KIND_NAMES: { readonly [Kind in keyof AttributeKinds]: string } = {
  float: "a finite number (of 32 bits)",
  int: "a whole number",
  flag: "0 or 1",
  ints: "a list of whole numbers",
  string: "a string",
  graph: "a graph",
};

/**
 * The number that a BigInt of int64 stands for; a BigInt beyond 2^53 stays a BigInt, and is
 * refused.
 */
const numberOf = (value: unknown): unknown =>
  typeof value === "bigint" && Number.isSafeInteger(Number(value)) ? Number(value) : value;

/** A list as a new array; anything else as it is. */
const listOf = (value: unknown): unknown =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))
    ? Array.from(value as unknown as ArrayLike<unknown>, numberOf)
    : value;

export function resolveAttributes<K extends Kinds>(
  operator: string,
  kinds: K,
  given: OnnxAttributes<K> | undefined,
  inputs: readonly string[],
): Resolved<K> {
  const names = Object.keys(kinds);
  const unknown = (name: string) => {
    const place = inputs.map(plain).indexOf(name);
    const what = `${operator}: ${name} is no attribute; it`;
    if (place >= 0) return new FoveaError("argument", `${what} is input ${place}.`);
    if (Object.hasOwn(RUN_NAMES, name))
      return new FoveaError("argument", `${what} goes into the third argument, { ${name} }.`);
    return new UnknownName(`${operator}: no attribute ${shownName(name)}`, name, names);
  };
  const read = readMembers(`${operator}: attributes`, given, names, unknown);
  const resolved: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(read)) {
    const kind = kinds[name];
    const plainValue = reading(`${operator}: attribute ${name}`, () => listOf(numberOf(value)));
    check(
      KINDS[kind](plainValue),
      () => `${operator}: attribute ${name} must be ${KIND_NAMES[kind]}, got ${show(value)}.`,
    );
    resolved[name] = kind === "flag" ? Boolean(plainValue) : plainValue;
  }
  return resolved as Resolved<K>;
}

/** A name as it is, if an operator could have it; else escaped. */
const shownName = (name: string) => (/^\w{1,64}$/.test(name) ? name : show(name));

const RUN_NAMES: { readonly [Name in keyof Required<OnnxRun>]: true } = {
  opset: true,
  outputs: true,
  device: true,
};

/** The options of a call, beside inputs and attributes. */
export function resolveRun(
  operator: string,
  given: OnnxRun | undefined,
  outputs: readonly string[],
) {
  const names = Object.keys(RUN_NAMES);
  const unknown = (name: string) =>
    new UnknownName(`${operator}: there is no option ${shownName(name)}`, name, names);
  const read = readMembers(`${operator}: options`, given, names, unknown);
  const { opset, outputs: asked, device } = read as { readonly [Name in keyof OnnxRun]?: unknown };
  const isDevice = reading(
    `${operator}: device`,
    () => typeof device === "object" && "createBuffer" in (device as object),
  );
  check(
    device === undefined || isDevice,
    () => `${operator}: device must be a GPUDevice, got ${show(device)}.`,
  );
  return {
    opset: numberOf(opset),
    wanted: wantedOutputs(operator, outputs, asked),
    device: device as GPUDevice | undefined,
  };
}

function wantedOutputs(
  operator: string,
  names: readonly string[],
  asked: unknown,
): ReadonlySet<string> {
  const { list, count } = reading(`${operator}: outputs`, () => {
    const flags = listOf(asked);
    const isList = Array.isArray(flags);
    return { list: isList ? flags : undefined, count: isList ? flags.length : numberOf(asked) };
  });
  check(
    count === undefined ||
      (Number.isInteger(count) && (count as number) >= 0 && (count as number) <= names.length),
    () =>
      `${operator}: has ${names.length} outputs (${names.map(plain).join(", ")}), asked for ${show(count)}.`,
  );
  const strange = list?.find((flag) => !KINDS.flag(flag));
  check(
    !list?.some((flag) => !KINDS.flag(flag)),
    () => `${operator}: outputs must be a number, or a flag for each, got ${show(strange)} in it.`,
  );
  const wanted = (name: string, index: number) => {
    if (count === undefined) return !name.endsWith("?");
    return list ? Boolean(list[index]) : index < (count as number);
  };
  return new Set(names.filter(wanted).map(plain));
}
