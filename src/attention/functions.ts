// Score, mask and probability functions: a user's own WGSL inside the kernels ("programmable attention"), checked at the door.

import { check } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { CaptureType, FunctionKind, FunctionPart, FunctionText } from "../kernels/slots.ts";
import { blankComments } from "../shader/source.ts";
import { type CapturedNumber, numberOf } from "./captures.ts";

/**
 * What a function may read beside its arguments, by the name that its text uses. A number is an f32, `{ i32: n }` and
 * `{ u32: n }` are integers; a tensor is an array of its elements (`name[index]`), which may be replaced when a plan is
 * encoded. Other values never compile again.
 */
export type Captures = Readonly<Record<string, Tensor | CapturedNumber>>;

/** Texts of the functions, as users have to write them. */
const SIGNATURES = {
  score: "fn score(s: f32, at: Position) -> f32",
  mask: "fn mask(at: Position) -> bool",
  probability: "fn probability(p: f32, at: Position) -> f32",
} as const;
const HEADS = {
  score: /\bfn\s+score\s*\(\s*\w+\s*:\s*f32\s*,\s*\w+\s*:\s*Position\s*,?\s*\)\s*->\s*f32\s*\{/,
  probability: /\bfn\s+probability\s*\(\s*\w+\s*:\s*f32\s*,\s*\w+\s*:\s*Position\s*,?\s*\)\s*->\s*f32\s*\{/,
  mask: /\bfn\s+mask\s*\(\s*\w+\s*:\s*Position\s*,?\s*\)\s*->\s*bool\s*\{/,
} as const;

/** What has no place in a function of a kernel, and why. */
const FORBIDDEN: readonly (readonly [RegExp, string])[] = [
  [
    /@\s*(group|binding|compute|workgroup_size|builtin|id)\b/,
    "attributes belong to the kernel; pass memory as captures",
  ],
  [/\bvar\s*<\s*(storage|uniform|workgroup|immediate)\b/, "memory comes in by captures"],
  [/\b\w*[bB]arrier\s*\(/, "barriers would stop the kernel"],
  [/\b(subgroup|quad)[A-Z]\w*\s*\(/, "lanes of a subgroup may be anywhere in the scores"],
  [/^\s*(enable|requires|diagnostic|import)\b/m, "directives and imports belong to the kernel"],
];

/**
 * A function in WGSL and what it captures. Make one with {@link scoreFunction}, {@link maskFunction} or
 * {@link probabilityFunction}.
 */
export class AttentionFunction<Kind extends FunctionKind = FunctionKind> {
  readonly kind: Kind;
  readonly source: string;
  readonly captures: Captures;
  /** Name in error messages. */
  readonly label: string;
  /** @internal Functions that the source calls, of which this one is made. */
  readonly parts: readonly FunctionPart[];

  /** @internal */
  constructor(kind: Kind, source: string, captures: Captures, label: string, parts: readonly FunctionPart[] = []) {
    this.kind = kind;
    this.source = source;
    this.captures = captures;
    this.label = label;
    this.parts = parts;
    checkSource(kind, source, label);
    check(
      typeof captures === "object" && captures !== null,
      "argument",
      () => `${label}: captures must be { name: tensor or number }, got ${captures}.`,
    );
    for (const [name, value] of Object.entries(captures)) checkCapture(label, name, value);
  }

  /** @internal What of it is compiled: the text, and the types of the captures. */
  get text(): FunctionText {
    const captures = Object.entries(this.captures).map(([name, value]) => {
      const array = value instanceof Tensor;
      const type: CaptureType = array ? (value.dtype as CaptureType) : numberOf(value).type;
      return { name, type, array };
    });
    const hides = this.kind === "score" && /\bHIDDEN\b/.test(blankComments(this.source));
    return {
      ...{ label: this.label, source: this.source, captures },
      ...(this.parts.length && { parts: this.parts }),
      ...(hides && { hides }),
    };
  }
}

export type ScoreFunction = AttentionFunction<"score">;
export type MaskFunction = AttentionFunction<"mask">;
export type ProbabilityFunction = AttentionFunction<"probability">;

interface FunctionOptions {
  /** Default none. */
  readonly captures?: Captures;
  /** Name in messages, where a file name would stand. Default `"score function"` and so on. */
  readonly label?: string;
}

/**
 * A function that changes scores, in WGSL: `fn score(s: f32, at: Position) -> f32`, with helpers of its own if it needs
 * any. `s` is scale * q.k after the softcap; biases and masks come after it. It has to be a function of its arguments
 * and captures; it may be called for keys that no query sees, whose score is then dropped. `HIDDEN` in place of a score
 * hides the key from the query, as a mask does.
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
 * Throws FoveaError("argument") for a text that is no such function. Errors of the GPU's compiler come with the plan, as
 * FoveaError("shader"), and point into this text.
 *
 * @example
 * const alibi = scoreFunction(
 *   `fn score(s: f32, at: Position) -> f32 {
 *     return s - slopes[at.head] * abs(f32(at.position - i32(at.kv_idx)));
 *   }`,
 *   { captures: { slopes: tensor(device, [8], { data: alibiSlopes(8) }) } },
 * );
 */
export function scoreFunction(source: string, { captures = {}, label }: FunctionOptions = {}): ScoreFunction {
  return new AttentionFunction("score", source, captures, label ?? "score function");
}

/**
 * A function that says whether a query sees a key, in WGSL: `fn mask(at: Position) -> bool`, true to see it. See
 * {@link scoreFunction} for the arguments and the rules, and {@link createBlockMask} for skipping what no query sees.
 *
 * @example
 * const prefix = maskFunction(
 *   "fn mask(at: Position) -> bool { return at.kv_idx < prefix || i32(at.kv_idx) <= at.position; }",
 *   { captures: { prefix: { u32: 16 } } },
 * );
 */
export function maskFunction(source: string, { captures = {}, label }: FunctionOptions = {}): MaskFunction {
  return new AttentionFunction("mask", source, captures, label ?? "mask function");
}

/**
 * A function that changes probabilities, in WGSL: `fn probability(p: f32, at: Position) -> f32`. `p` is what the softmax
 * gives, and 0 for a key that the query does not see, for which it is called, too. See {@link scoreFunction} for `at` and
 * the rules.
 *
 * @example
 * const sharper = probabilityFunction("fn probability(p: f32, at: Position) -> f32 { return p * p; }");
 * const weights = await attentionWeights(q, k, { probabilityFunction: sharper });
 */
export function probabilityFunction(
  source: string,
  { captures = {}, label }: FunctionOptions = {},
): ProbabilityFunction {
  return new AttentionFunction("probability", source, captures, label ?? "probability function");
}

function checkSource(kind: FunctionKind, source: string, label: string): void {
  check(typeof source === "string", "argument", () => `${label}: expected WGSL text, got ${typeof source}.`);
  const code = blankComments(source);
  const found = new RegExp(`\\bfn\\s+${kind}\\s*\\([^)]*\\)[^{]*`).exec(code)?.[0].trim();
  check(
    HEADS[kind].test(code),
    "argument",
    () => `${label}: expected \`${SIGNATURES[kind]}\`, found ${found ? `\`${found}\`` : `no function ${kind}`}.`,
  );
  for (const [pattern, why] of FORBIDDEN) {
    const match = pattern.exec(code);
    const text = match?.[0].trimStart() ?? "";
    const line = () => code.slice(0, (match?.index ?? 0) + (match?.[0].length ?? 0) - text.length).split("\n").length;
    check(!match, "argument", () => `${label}:${line()}: \`${text}\` can't be in a function: ${why}.`);
  }
  let depth = 0;
  for (const brace of code.match(/[{}]/g) ?? []) {
    depth += brace === "{" ? 1 : -1;
    if (depth < 0) break;
  }
  check(depth === 0, "argument", () => `${label}: the braces do not match.`);
}

const ARRAYS: readonly string[] = ["f32", "i32", "u32"];

function checkCapture(label: string, name: string, value: Captures[string]): void {
  const what = `${label}: capture ${name}`;
  check(/^[A-Za-z]\w*$/.test(name), "argument", () => `${what}: the name is no WGSL identifier.`);
  if (value instanceof Tensor) {
    check(
      ARRAYS.includes(value.dtype),
      "argument",
      () => `${what} must be a tensor of ${ARRAYS.join(", ")}, got ${value.dtype}.`,
    );
    return;
  }
  const isNumber = typeof value === "number";
  const isInteger = typeof value === "object" && value !== null && ("i32" in value || "u32" in value);
  check(
    isNumber || isInteger,
    "argument",
    () => `${what} must be a tensor, a number, { i32: n } or { u32: n }, got ${JSON.stringify(value)}.`,
  );
  const { type, value: number } = numberOf(value);
  const [low, high] = type === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  check(
    type === "f32" ? Number.isFinite(Math.fround(number)) : Number.isInteger(number) && number >= low && number <= high,
    "argument",
    () => `${what}: ${number} is no ${type}.`,
  );
}
