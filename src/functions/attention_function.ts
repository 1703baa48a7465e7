// A user's function as problems hold it: its checked text, and what it captures. functions.ts makes
// such functions.

import { check, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { CaptureType, FunctionKind, FunctionText } from "../kernels/slots.ts";
import type { GuestPart } from "../shader/guests.ts";
import { type CapturedNumber, numberOf } from "./captures.ts";

/**
 * What a function may read beside its arguments, by the name that its text uses: up to 64 values. A
 * number is an f32, `{ i32: n }` and `{ u32: n }` are integers; a tensor is an array of its
 * elements (`name[index]`), which may be replaced when a plan is encoded. Replacing values never
 * compiles anything again.
 */
export type Captures = Readonly<Record<string, Tensor | CapturedNumber>>;

/** The derivatives of a score function, which gradient.ts reads when they are needed. */
export interface GradientSource {
  readonly source: string;
  /** What the function's text may use beside its own names. */
  readonly names: ReadonlySet<string>;
}

/** The parts of a function. */
export interface FunctionParts {
  readonly source: string;
  readonly label: string;
  /** The captures as they were when the function was made. */
  readonly captures: Captures;
  /** Its text, and the texts of functions that it is made of. */
  readonly parts: readonly GuestPart[];
  /** Modules of Fovea whose functions it calls. */
  readonly uses: readonly string[];
  readonly gradient?: GradientSource | undefined;
}

/**
 * A function in WGSL and what it captures. Make one with {@link scoreFunction},
 * {@link maskFunction} or
 * {@link probabilityFunction}.
 */
export class AttentionFunction<Kind extends FunctionKind = FunctionKind> {
  readonly kind: Kind;
  readonly source: string;
  readonly captures: Captures;
  /** Name in error messages. */
  readonly label: string;
  /** @internal Its text, and the texts of functions that it is made of. */
  readonly parts: readonly GuestPart[];
  /** @internal What kernels depend on: the text, and the types of the captures. */
  readonly text: FunctionText;
  /** @internal Its derivatives, if it was made with them. */
  readonly gradient: GradientSource | undefined;
  readonly #made = true;

  /** @internal */
  constructor(kind: Kind, { source, label, captures, parts, uses, gradient }: FunctionParts) {
    this.kind = kind;
    this.source = source;
    this.label = label;
    this.captures = captures;
    this.parts = parts;
    this.gradient = gradient;
    const types = Object.entries(captures).map(([name, value]) => {
      const array = value instanceof Tensor;
      const type: CaptureType = array ? (value.dtype as CaptureType) : numberOf(value).type;
      return { name, type, array };
    });
    const hides = kind === "score" && parts.some(({ text }) => text.used.has("HIDDEN"));
    this.text = { label, parts, captures: types, hides, uses };
  }

  /** @internal Makes `instanceof` ask the object itself, and never throw. */
  static [Symbol.hasInstance](value: unknown): value is AttentionFunction {
    try {
      return typeof value === "object" && value !== null && #made in value;
    } catch {
      return false; // a revoked proxy
    }
  }
}

export type ScoreFunction = AttentionFunction<"score">;
export type MaskFunction = AttentionFunction<"mask">;
export type ProbabilityFunction = AttentionFunction<"probability">;

/** Throws FoveaError if two functions of a problem have captures of the same name. */
export function checkCaptureNames(
  label: string,
  functions: readonly (AttentionFunction | undefined)[],
): void {
  const owners = new Map<string, AttentionFunction>();
  for (const given of functions) {
    if (!given) continue;
    for (const name of Object.keys(given.captures)) {
      const owner = owners.get(name);
      check(
        owner === undefined,
        "argument",
        () =>
          `${label}: the ${owner?.label} and the ${given.label} both have a capture ${show(name)}; give one of them another name.`,
      );
      owners.set(name, given);
    }
  }
}

/** The functions that options can have. */
interface FunctionsOf {
  readonly scoreFunction?: ScoreFunction;
  readonly maskFunction?: MaskFunction;
  readonly blockMask?: { readonly maskFunction: MaskFunction | undefined };
  readonly probabilityFunction?: ProbabilityFunction;
}

/** The mask function of a problem: that of the option, or that of its block mask. */
export const maskFunctionOf = ({
  maskFunction,
  blockMask,
}: FunctionsOf): MaskFunction | undefined => maskFunction ?? blockMask?.maskFunction;

/** The functions of a problem. */
export function functionsOf(options: FunctionsOf): readonly AttentionFunction[] {
  const { scoreFunction, probabilityFunction } = options;
  return [scoreFunction, maskFunctionOf(options), probabilityFunction].filter(
    (given) => given !== undefined,
  );
}
