// The derivatives of a score function: a text beside the function's, read when somebody needs it, so
// that functions without derivatives don't bring this file.

import { check } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import { CALLED } from "../kernels/slots.ts";
import type { EntryHead } from "../shader/guest_reader.ts";
import { GuestText } from "../shader/guest_text.ts";
import type { Captures, GradientSource, ScoreFunction } from "./attention_function.ts";
import { numberOf } from "./captures.ts";

const SIGNATURE = "fn gradient(s: f32, at: Position) -> f32";
const PLAIN = /^\([^:,()]+:f32,[^:,()]+:Position,?\)->f32$/;
const DERIVATIVE = /^\([^:,()]+:f32,[^:,()]+:Position,?\)->(?:f32|array<f32,(\d+)u?,?>)$/;
const INDEX = /^\([^:,()]+:Position,?\)->(?:u32|array<u32,(\d+)u?,?>)$/;
/** The most elements of a captured tensor that a score reads. */
const MOST_READS = 16;

/** The derivatives of a score function, checked. */
export interface FunctionGradient {
  readonly text: GuestText;
  /**
   * How many elements of a capture a score reads, for each that has derivatives: "one" if the text
   * has no lists of them.
   */
  readonly reads: ReadonlyMap<string, number | "one">;
}

const read = new WeakMap<ScoreFunction, FunctionGradient>();

/**
 * The derivatives of a score function that was made with them. Throws FoveaError("argument"), with
 * line and column if it is a place of the text.
 */
export function gradientOf(given: ScoreFunction): FunctionGradient {
  const found = read.get(given) ?? readGradient(given);
  read.set(given, found);
  return found;
}

function readGradient({ label, gradient, parts, captures }: ScoreFunction): FunctionGradient {
  const { source, names } = gradient as GradientSource;
  const [{ text }] = parts;
  const what = `gradient of the ${label}`;
  const all = new Set([...names, ...text.declared.keys()]);
  const derived = new GuestText(what, source, { entry: "gradient", names: all });
  for (const name of Object.values(CALLED)) {
    check(
      !text.declared.has(name) && !derived.declared.has(name),
      "argument",
      () => `${what}: ${name} has a meaning already; take another name.`,
    );
  }
  check(
    derived.head !== undefined && PLAIN.test(derived.head.signature),
    "argument",
    () =>
      `${what}: expected \`${SIGNATURE}\`, found ${derived.head ? `\`${written(derived.head)}\`` : "no function gradient"}.`,
  );
  const reads = new Map<string, number | "one">();
  for (const [name, head] of derived.heads) {
    const [, kind, captured] = /^(gradient|index)_(.+)$/.exec(name) ?? [];
    if (captured === undefined) continue;
    check(
      Object.hasOwn(captures, captured),
      "argument",
      () => `${what}: ${name} belongs to a capture ${captured}, and the function has none.`,
    );
    if (kind === "gradient") {
      const found = readsOf(what, captured, derived.heads, captures[captured]);
      reads.set(captured, found);
    } else {
      check(
        captures[captured] instanceof Tensor && derived.heads.has(`gradient_${captured}`),
        "argument",
        () =>
          `${what}: ${written(head)} needs a captured tensor ${captured} and \`fn gradient_${captured}(s: f32, at: Position) -> f32\` beside it.`,
      );
    }
  }
  return { text: derived, reads };
}

const written = (head: EntryHead) => head.written.slice(0, 200);

/** How many elements of a capture a score reads. */
function readsOf(
  what: string,
  name: string,
  heads: ReadonlyMap<string, EntryHead>,
  value: Captures[string],
): number | "one" {
  const derivative = heads.get(`gradient_${name}`) as EntryHead;
  const array = value instanceof Tensor;
  const type = array ? value.dtype : numberOf(value).type;
  check(
    type === "f32",
    "argument",
    () => `${what}: capture ${name} is ${type}; only numbers and tensors of f32 have gradients.`,
  );
  const found = DERIVATIVE.exec(derivative.signature);
  const [, count] = found ?? [];
  check(
    found !== null && (array || count === undefined),
    "argument",
    () =>
      `${what}: expected \`fn gradient_${name}(s: f32, at: Position) -> f32\`${array ? " or -> array<f32, n>" : ""}, found \`${written(derivative)}\`.`,
  );
  if (!array) return "one";
  const index = heads.get(`index_${name}`);
  const listed = index && INDEX.exec(index.signature);
  const many = count === undefined ? "u32" : `array<u32, ${count}>`;
  check(
    listed?.[1] === count && Boolean(listed),
    "argument",
    () =>
      `${what}: expected \`fn index_${name}(at: Position) -> ${many}\`, which elements a score reads, found ${index ? `\`${written(index)}\`` : `no function index_${name}`}.`,
  );
  check(
    count === undefined || (Number(count) >= 1 && Number(count) <= MOST_READS),
    "argument",
    () =>
      `${what}: a score can have derivatives by 1 to ${MOST_READS} elements of ${name}, not ${count}.`,
  );
  return count === undefined ? "one" : Number(count);
}
