// Values that no option means, put in place of each option of a call in turn: each must end in a
// FoveaError, or mean nothing, or mean what it says, which values show.

import { FoveaError, Tensor, tensor } from "../../src/index.ts";

/** Arguments and options by name. */
export type Given = Readonly<Record<string, unknown>>;
export type Numbers = ArrayLike<number>;

/**
 * A call of one public function, small and good, and which of its arguments and options are tried.
 */
export interface Call {
  readonly name: string;
  /** Positional arguments by name, in their order. Each is tried. */
  readonly args?: Given;
  /**
   * Options of the good call. Each is tried, and so are those of `names`; "dropout.p" is p of the
   * option dropout.
   */
  readonly options?: Given;
  readonly names?: readonly string[];
  /** Hostile values that mean the default, if the default takes minutes. */
  readonly slow?: readonly string[];
  /** Makes the call, and returns the numbers of its result. */
  run(args: readonly unknown[], options: unknown): Promise<Numbers> | Numbers;
  /**
   * Returns the right numbers for arguments and options that are taken and give other results than
   * the good call. Without it there are none of these.
   */
  right?(args: Given, options: Given): Numbers;
}

const throws = (what: string) => () => {
  throw new Error(`${what} of a hostile value was run`);
};
class Instance {
  readonly value = 1;
}
const cyclic = () => {
  const object: Record<string, unknown> = {};
  object.self = object;
  return object;
};
const cyclicList = () => {
  const list: unknown[] = [1];
  list.push(list);
  return list;
};
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};
/** 96 elements, with many axes of 1. */
const AXES = [96, ...new Array<number>(63).fill(1)];
const TYPED = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
] as const;

/** Makers of the values that are put in place of an option. */
export const HOSTILE: readonly (readonly [name: string, make: (device: GPUDevice) => unknown])[] = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["true", () => true],
  ["false", () => false],
  ["NaN", () => Number.NaN],
  ["Infinity", () => Number.POSITIVE_INFINITY],
  ["-Infinity", () => Number.NEGATIVE_INFINITY],
  ["-1", () => -1],
  ["-0", () => -0],
  ["0", () => 0],
  ["0.5", () => 0.5],
  ["1", () => 1],
  ["2 ** 53", () => 2 ** 53],
  ["1e39", () => 1e39],
  ["5e-324", () => 5e-324],
  ["an empty string", () => ""],
  ["x", () => "x"],
  ["a string of 1", () => "1"],
  ["constructor", () => "constructor"],
  ["1n", () => 1n],
  ["a symbol", () => Symbol("hostile")],
  ["a function", () => () => 1],
  ["a class", () => Instance],
  ["[]", () => []],
  ["[1, 2]", () => [1, 2]],
  ["[-1, 0.5]", () => [-1, 0.5]],
  ["[NaN, NaN]", () => [Number.NaN, Number.NaN]],
  ["[null, null]", () => [null, null]],
  ["a list of strings", () => ["1", "2"]],
  ["a list of symbols", () => [Symbol("hostile"), Symbol("hostile")]],
  ["a list of lists", () => [[1], [2]]],
  [
    "a list of objects that throw",
    () => [{ toString: throws("toString") }, { valueOf: throws("valueOf") }],
  ],
  ["a sparse list", () => new Array(2)],
  ["a list that holds itself", cyclicList],
  ["{}", () => ({})],
  ["an object that holds itself", cyclic],
  ["an object without prototype", () => Object.create(null)],
  ["an instance", () => new Instance()],
  ["something like a list", () => ({ 0: 1, 1: 2, length: 2 })],
  ["something like an endless list", () => ({ length: 2 ** 53 })],
  ["a list's length of -1", () => ({ length: -1 })],
  ["something like a number", () => ({ valueOf: () => 1 })],
  ["toString that throws", () => ({ toString: throws("toString") })],
  ["toJSON that throws", () => ({ toJSON: throws("toJSON") })],
  ["valueOf that throws", () => ({ valueOf: throws("valueOf"), toString: throws("toString") })],
  ["Symbol.toPrimitive that throws", () => ({ [Symbol.toPrimitive]: throws("toPrimitive") })],
  [
    "a shape that throws",
    () => Object.defineProperty({}, "shape", { get: throws("shape"), enumerable: true }),
  ],
  [
    "a length that throws",
    () => Object.defineProperty({}, "length", { get: throws("length"), enumerable: true }),
  ],
  [
    "a list that throws",
    () => Object.defineProperty([1, 2], 0, { get: throws("an element"), enumerable: true }),
  ],
  [
    "a proxy of traps that throw",
    () => new Proxy({}, { get: throws("get"), ownKeys: throws("ownKeys") }),
  ],
  ["a proxy of a list", () => new Proxy([1, 2], {})],
  ["a revoked proxy", revoked],
  ["a date", () => new Date(0)],
  ["an invalid date", () => new Date(Number.NaN)],
  ["a map", () => new Map([["shape", [1]]])],
  ["a set", () => new Set([1, 2])],
  ["a regular expression", () => /x/g],
  ["a promise", () => Promise.resolve(1)],
  ["an error", () => new Error("hostile")],
  ["a boxed number", () => Object(1)],
  ["a boxed string", () => Object("x")],
  ["an ArrayBuffer", () => new ArrayBuffer(8)],
  ["a DataView", () => new DataView(new ArrayBuffer(8))],
  ...TYPED.map((Kind) => [`${Kind.name} of [1, 2]`, () => Kind.of(1, 2)] as const),
  ["BigInt64Array of [1, 2]", () => BigInt64Array.of(1n, 2n)],
  ["BigUint64Array of [1, 2]", () => BigUint64Array.of(1n, 2n)],
  ["an empty Float32Array", () => new Float32Array()],
  ["a shape of no numbers", () => ({ shape: ["x", null] })],
  ["a shape that is huge", () => ({ shape: [2 ** 40, 2 ** 40] })],
  ["a shape of negative numbers", () => ({ shape: [-1, -2] })],
  ["a plain copy of a tensor", (device) => ({ ...usableTensor(device) })],
  ["a tensor of 64 axes", (device) => ofBytes(device).view({ shape: AXES })],
  ["a tensor of bytes", (device) => ofBytes(device)],
  ["a destroyed tensor", (device) => destroyed(device)],
];

let usable: Tensor | undefined;
const usableTensor = (device: GPUDevice) => {
  usable ??= tensor(device, [1], { data: [1] });
  return usable;
};
let bytes: Tensor | undefined;
const ofBytes = (device: GPUDevice) => {
  bytes ??= tensor(device, [2, 2, 3, 8], { dtype: "u8" });
  return bytes;
};
const destroyed = (device: GPUDevice) => {
  const made = tensor(device, [2, 2, 3, 8]);
  made.destroy();
  return made;
};

/** Codes that say that the input was at fault; other codes are for faults of the device. */
const CODES = ["argument", "limit", "device", "destroyed", "overlap", "shader"];
/** Milliseconds after which a call hangs. */
const PATIENCE = 30_000;

export interface Findings {
  /** What was wrong, one line each. */
  readonly faults: readonly string[];
  readonly tried: number;
  /** Calls that were taken, and gave what they should. */
  readonly taken: number;
}

/** Tries every hostile value in place of every argument and option of a call. */
export async function attack(call: Call, device: GPUDevice): Promise<Findings> {
  const { args = {}, options, names = [] } = call;
  const good = await call.run(Object.values(args), options);
  const faults: string[] = [];
  const counts = { tried: 0, taken: 0 };
  const judge = async (where: string, what: string, theirs: Given, given: unknown) => {
    counts.tried++;
    const fault = await judged(call, good, theirs, given, () => counts.taken++);
    if (fault) faults.push(`${call.name}: ${where} = ${what}: ${fault}`);
  };
  for (const [what, make] of HOSTILE) {
    if (call.slow?.includes(what)) continue;
    for (const name of Object.keys(args))
      await judge(name, what, { ...args, [name]: make(device) }, options);
    if (!options) continue;
    await judge("the options", what, args, make(device));
    for (const name of new Set([...Object.keys(options), ...names])) {
      await judge(name, what, args, replaced(options, name.split("."), make(device)));
    }
  }
  if (!options) return { faults, ...counts };
  for (const name of new Set([...Object.keys(options), ...names])) {
    if (name.includes(".")) continue;
    const given = Object.defineProperty({ ...options }, name, {
      get: throws("a getter"),
      enumerable: true,
    });
    await judge(name, "a getter that throws", args, given);
  }
  return { faults, ...counts };
}

const replaced = (options: Given, [name, ...rest]: readonly string[], value: unknown): Given => ({
  ...options,
  [name]: rest.length ? replaced(options[name] as Given, rest, value) : value,
});

/**
 * Returns what options say: null means nothing, BigInts are numbers, and typed arrays are lists of
 * numbers.
 */
function meant(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>, Number);
  if (
    typeof value !== "object" ||
    value === null ||
    value instanceof Tensor ||
    Array.isArray(value)
  )
    return value;
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  const members = Object.entries(value).filter(
    ([, member]) => member !== null && member !== undefined,
  );
  return Object.fromEntries(members.map(([name, member]) => [name, meant(member)]));
}

/** Says what is wrong with the outcome of a call. */
async function judged(
  call: Call,
  good: Numbers,
  args: Given,
  options: unknown,
  taken: () => void,
): Promise<string | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const hung = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("hangs")), PATIENCE);
  });
  let result: Numbers;
  try {
    result = await Promise.race([(async () => call.run(Object.values(args), options))(), hung]);
  } catch (error) {
    if (!(error instanceof FoveaError)) return `${error}`.split("\n")[0];
    if (!CODES.includes(error.code)) return `FoveaError of code ${error.code}: ${error.message}`;
    return undefined;
  } finally {
    clearTimeout(timer);
  }
  taken();
  if (isClose(result, good)) return undefined;
  if (!call.right)
    return `is taken, and gives [${Array.from(result).slice(0, 4)}] for [${Array.from(good).slice(0, 4)}]`;
  const right = call.right(args, (meant(options) ?? {}) as Given);
  if (isClose(result, right)) return undefined;
  return `gives [${Array.from(result).slice(0, 4)}], expected [${Array.from(right).slice(0, 4)}]`;
}

/**
 * Whether results are those that are expected, to 1e-4. That tells other meanings apart, and isn't
 * a bound of errors.
 */
export const isClose = (actual: Numbers, expected: Numbers) =>
  actual.length === expected.length &&
  Array.from(actual).every(
    (x, i) =>
      Object.is(x, expected[i]) || Math.abs(x - expected[i]) <= 1e-4 * (1 + Math.abs(expected[i])),
  );

/** Reads a result, and destroys it unless the caller gave it. */
export async function taken(made: Tensor, ...given: readonly unknown[]): Promise<Numbers> {
  const values = await made.read();
  if (!given.includes(made)) made.destroy();
  return values;
}

/** Returns bindings with others, if these can be added to them. */
export function withBindings(bindings: unknown, others: object): object {
  if (bindings === null || typeof bindings !== "object") return bindings as unknown as object;
  try {
    return Object.assign({}, bindings, others);
  } catch {
    return bindings; // what cannot be read is for the plan to refuse
  }
}
