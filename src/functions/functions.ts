// Score, mask and probability functions: a user's own WGSL inside the kernels ("programmable
// attention"), checked when they are made.

import { check, FoveaError, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { FunctionKind } from "../kernels/slots.ts";
import { takeOptions } from "../options.ts";
import { GuestText } from "../shader/guest_text.ts";
import type { GuestPart } from "../shader/guests.ts";
import { isType, whyNoName } from "../shader/wgsl_names.ts";
import {
  AttentionFunction,
  type Captures,
  type MaskFunction,
  type ProbabilityFunction,
  type ScoreFunction,
} from "./attention_function.ts";
import { numberOf } from "./captures.ts";

export {
  AttentionFunction,
  type Captures,
  type MaskFunction,
  type ProbabilityFunction,
  type ScoreFunction,
};

/** The heads of the functions, as users have to write them. */
const SIGNATURES = {
  score: "fn score(s: f32, at: Position) -> f32",
  mask: "fn mask(at: Position) -> bool",
  probability: "fn probability(p: f32, at: Position) -> f32",
} as const;
/** The heads as tokens without blanks. */
const HEADS = {
  score: /^\([^:,()]+:f32,[^:,()]+:Position,?\)->f32$/,
  mask: /^\([^:,()]+:Position,?\)->bool$/,
  probability: /^\([^:,()]+:f32,[^:,()]+:Position,?\)->f32$/,
} as const;

/** The names of Fovea's that a text may use. */
const GIVEN: readonly string[] = ["Position", "HIDDEN"];
/** The most captures of a function; so many bindings are kept free for each. */
const MOST_CAPTURES = 64;

/** What a function of scores, masks or probabilities is made with, beside its text. */
export interface FunctionOptions {
  /** Default none. */
  readonly captures?: Captures;
  /** Name in messages, where a file name would stand. Default `"score function"` and so on. */
  readonly label?: string;
}

/** What a score function is made with, beside its text. */
export interface ScoreFunctionOptions extends FunctionOptions {
  /**
   * The derivatives of the function, in WGSL, for {@link attentionBackward}. Default none: there is
   * attention with the function, and no gradient of it. The text has
   *
   * - `fn gradient(s: f32, at: Position) -> f32`, the derivative by `s`;
   * - for each captured number x that wants a gradient, `fn gradient_x(s: f32, at: Position) ->
   *   f32`, the derivative by it;
   * - for each captured tensor w of f32 that wants one, `fn index_w(at: Position) -> u32`, which
   *   element the score reads, and `fn gradient_w(s: f32, at: Position) -> f32`, the derivative by
   *   that element. If a score reads n elements, 2 to 16, they return `array<u32, n>` and
   *   `array<f32, n>`; an element that is read twice is listed twice.
   *
   * The rules are those of the function's own text, whose declarations it may use. It is called for
   * scores that the query sees. An index past the end has no gradient. It is read when it is
   * needed: attentionBackward and {@link checkGradient}, which compares derivatives with the
   * function, throw FoveaError("argument"), with line and column, for another text.
   */
  readonly gradient?: string;
}

/** The names of the options. */
const FUNCTION_OPTIONS: OptionNames<FunctionOptions> = { captures: "any", label: "string" };
const SCORE_FUNCTION_OPTIONS: OptionNames<ScoreFunctionOptions> = {
  ...FUNCTION_OPTIONS,
  gradient: "string",
};

/**
 * A function that changes scores, in WGSL: `fn score(s: f32, at: Position) -> f32`, with its own
 * helpers if it needs any. `s` is scale * q.k after the softcap; biases and masks come after it. It
 * has to be a function of its arguments and captures; it may be called for keys that no query sees,
 * whose score is then dropped. `HIDDEN` in place of a score hides the key from the query, as a mask
 * does.
 *
 * ```wgsl
 * struct Position {
 *   batch: u32,     // batch entry
 *   head: u32,      // query head
 *   q_idx: u32,     // query, counted in its entry
 *   kv_idx: u32,    // key, counted in its entry
 *   position: i32,  // where the query stands among the keys: q_idx + offset
 * }
 * ```
 *
 * The text may have functions, structs, constants, aliases and `const_assert` beside it, and may
 * name these, what it captures, `Position`, `HIDDEN` and what WGSL offers, but nothing else: no
 * entry points, attributes, directives, imports or variables outside of functions, no barriers,
 * atomics, textures, derivatives, subgroup operations or f16. It may choose any names: if the
 * kernel has the same ones, the two are told apart. `// unroll` means nothing in it. The limits are
 * 2^22 characters, 1,000 characters of a name, brackets 127 deep, and 64 captures.
 *
 * Throws FoveaError("argument"), with line and column, for a text that isn't such a function. Other
 * errors of the GPU's compiler come with the plan, as FoveaError("shader"), and point into this
 * text.
 *
 * @example
 * const alibi = scoreFunction(
 *   `fn score(s: f32, at: Position) -> f32 {
 *     return s - slopes[at.head] * abs(f32(at.position - i32(at.kv_idx)));
 *   }`,
 *   {
 *     captures: { slopes: tensor(device, [8], { data: alibiSlopes(8) }) },
 *     // Only for training: the derivatives by s, and by the slope that a score reads.
 *     gradient: `
 *       fn gradient(s: f32, at: Position) -> f32 { return 1; }
 *       fn index_slopes(at: Position) -> u32 { return at.head; }
 *       fn gradient_slopes(s: f32, at: Position) -> f32 {
 *         return -abs(f32(at.position - i32(at.kv_idx)));
 *       }`,
 *   },
 * );
 */
export function scoreFunction(source: string, options: ScoreFunctionOptions = {}): ScoreFunction {
  return makeFunction("score", source, options);
}

/**
 * A function that says whether a query sees a key, in WGSL: `fn mask(at: Position) -> bool`, true
 * to see it. See {@link scoreFunction} for the arguments and the rules, and {@link createBlockMask}
 * for skipping blocks that no query sees.
 *
 * @example
 * const prefix = maskFunction(
 *   "fn mask(at: Position) -> bool { return at.kv_idx < prefix || i32(at.kv_idx) <= at.position; }",
 *   { captures: { prefix: { u32: 16 } } },
 * );
 */
export function maskFunction(source: string, options: FunctionOptions = {}): MaskFunction {
  return makeFunction("mask", source, options);
}

/**
 * A function that changes probabilities, in WGSL: `fn probability(p: f32, at: Position) -> f32`.
 * `p` is what the softmax gives. The function is also called for keys that the query does not see,
 * for which `p` is 0. See {@link scoreFunction} for `at` and the rules.
 *
 * @example
 * const sharper = probabilityFunction(
 *   "fn probability(p: f32, at: Position) -> f32 { return p * p; }",
 * );
 * const weights = await attentionWeights(q, k, { probabilityFunction: sharper });
 */
export function probabilityFunction(
  source: string,
  options: FunctionOptions = {},
): ProbabilityFunction {
  return makeFunction("probability", source, options);
}

/** Parts of a function beyond its text and options. */
export interface MoreOfFunction {
  /** The texts of functions that it is made of. */
  readonly parts?: readonly GuestPart[];
  /** Functions of Fovea that it calls: the module of each, by its name. */
  readonly library?: Readonly<Record<string, string>>;
}

/** @internal Checks a function, and makes it. */
export function makeFunction<Kind extends FunctionKind>(
  kind: Kind,
  source: string,
  options: ScoreFunctionOptions,
  { parts = [], library = {} }: MoreOfFunction = {},
): AttentionFunction<Kind> {
  const known = kind === "score" ? SCORE_FUNCTION_OPTIONS : FUNCTION_OPTIONS;
  const taken = takeOptions<ScoreFunctionOptions>(
    `${kind} function`,
    options,
    known as typeof SCORE_FUNCTION_OPTIONS,
  );
  const { label = `${kind} function`, gradient } = taken;
  const captures = options?.captures === undefined ? {} : options.captures;
  check(
    typeof source === "string",
    "argument",
    () => `${label}: expected WGSL text, got ${show(source)}.`,
  );
  const captured = checkCaptures(label, captures);
  const ofParts = parts.flatMap(({ text, suffix }) =>
    [...text.declared.keys()].map((name) => name + suffix),
  );
  const names = new Set([...GIVEN, ...Object.keys(captured), ...Object.keys(library), ...ofParts]);
  const text = new GuestText(label, source, { entry: kind, names });
  const found = text.head ? `\`${text.head.written.slice(0, 200)}\`` : `no function ${kind}`;
  check(
    text.head !== undefined && HEADS[kind].test(text.head.signature),
    "argument",
    () => `${label}: expected \`${SIGNATURES[kind]}\`, found ${found}.`,
  );
  return new AttentionFunction(kind, {
    source,
    label,
    captures: captured,
    parts: [{ text, suffix: "" }, ...parts],
    uses: Object.values(library),
    gradient: gradient === undefined ? undefined : { source: gradient, names },
  });
}

const ARRAYS: readonly string[] = ["f32", "i32", "u32"];

/** A copy of the captures. Throws FoveaError("argument") for a value that can't be captured. */
function checkCaptures(label: string, given: Captures): Captures {
  const isRecord = typeof given === "object" && given !== null && !(Symbol.iterator in given);
  const expected = `${label}: captures must be { name: tensor or number }`;
  check(
    isRecord && !(given instanceof Tensor),
    "argument",
    () => `${expected}, got ${show(given)}.`,
  );
  let entries: [string, Captures[string]][];
  try {
    entries = Object.entries(given);
  } catch (cause) {
    throw new FoveaError("argument", `${expected}, got an object whose values can't be read.`, {
      cause,
    });
  }
  check(
    entries.length <= MOST_CAPTURES,
    "argument",
    () =>
      `${label}: there are ${entries.length} captures; at most ${MOST_CAPTURES} are taken. Capture several numbers as a tensor.`,
  );
  const copy = entries.map(([name, value]) => [name, checkCapture(label, name, value)] as const);
  return Object.freeze(Object.fromEntries(copy));
}

function checkCapture(label: string, name: string, value: Captures[string]): Captures[string] {
  const what = `${label}: capture ${/^\w{1,100}$/.test(name) ? name : show(name)}`;
  check(
    /^\p{XID_Start}\p{XID_Continue}{0,999}$/u.test(name),
    "argument",
    () => `${what}: the name is no WGSL identifier.`,
  );
  const why =
    whyNoName(name) ??
    (isType(name) || GIVEN.includes(name) ? "it has a meaning already" : undefined);
  check(why === undefined, "argument", () => `${what}: take another name; ${why}.`);
  if (value instanceof Tensor) {
    check(
      ARRAYS.includes(value.dtype),
      "argument",
      () => `${what} must be a tensor of ${ARRAYS.join(", ")}, got ${value.dtype}.`,
    );
    return value;
  }
  const number = typeof value === "number" ? value : integerOf(value);
  check(
    number !== undefined,
    "argument",
    () => `${what} must be a tensor, a number, { i32: n } or { u32: n }, got ${show(value)}.`,
  );
  const { type, value: written } = numberOf(number);
  const low = type === "i32" ? -(2 ** 31) : 0;
  const high = type === "i32" ? 2 ** 31 - 1 : 2 ** 32 - 1;
  const fits = Number.isInteger(written) && written >= low && written <= high;
  check(
    type === "f32" ? Number.isFinite(Math.fround(written)) : fits,
    "argument",
    () => `${what}: ${show(written)} is no ${type}.`,
  );
  return number;
}

/** A copy of an integer; undefined for anything else. */
function integerOf(
  value: unknown,
): { readonly i32: number } | { readonly u32: number } | undefined {
  try {
    if (typeof value !== "object" || value === null) return undefined;
    const [[type, number], ...others] = Object.entries(value);
    if (others.length) return undefined;
    return type === "i32" ? { i32: number } : type === "u32" ? { u32: number } : undefined;
  } catch {
    return undefined;
  }
}
