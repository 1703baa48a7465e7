// Golden results of fixtures: arrays in base64, and what came of comparing with them.

import { isWithin, type Worst, worstOf } from "./compare.ts";

/** Of every result, absolute, as the fixtures say that arithmetic in f32 deserves. */
const TOLERANCE = 1e-4;

/** An array of a golden result. */
export interface Stored {
  readonly dtype: "float32" | "float64";
  readonly shape: readonly number[];
  readonly data: string;
}

export type Ids = readonly (readonly number[])[];

/** Probabilities of attention of a layer. */
export interface StoredAttention {
  readonly layer: number;
  readonly input?: string;
  readonly probs: Stored;
}

export const bytesOf = (base64: string) =>
  Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));

/** Whether something is an object with members. */
export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether something is an array of a golden result. */
export const isStored = (value: unknown): value is Stored =>
  isObject(value) && Array.isArray(value.shape) && typeof value.data === "string";

/** The elements of a stored array. */
export function numbersOf({ dtype, data }: Stored): Float64Array {
  const { buffer } = bytesOf(data);
  return Float64Array.from(
    dtype === "float64" ? new Float64Array(buffer) : new Float32Array(buffer),
  );
}

/** All arrays in golden results, each with the names that lead to it. */
export function* arraysOf(
  golden: unknown,
  path: readonly string[] = [],
): Generator<readonly [path: readonly string[], stored: Stored]> {
  if (isStored(golden)) yield [path, golden];
  else if (typeof golden === "object" && golden !== null)
    for (const [name, inner] of Object.entries(golden)) yield* arraysOf(inner, [...path, name]);
}

/**
 * Collects the worst of many results; throws for one that is beyond the tolerance, by its name.
 * Golden arrays that nothing was compared with are left over.
 */
export class Comparison {
  worst: Worst | null = null;
  #count = 0;
  readonly #left: Map<Stored, string>;

  constructor(golden: unknown) {
    this.#left = new Map([...arraysOf(golden)].map(([path, one]) => [one, path.join(".")]));
  }

  /** The names of arrays that nothing was compared with. */
  get left(): readonly string[] {
    return [...this.#left.values()];
  }

  /** The elements of an array that a model is given. */
  input(stored: Stored): Float64Array {
    this.#left.delete(stored);
    return numbersOf(stored);
  }

  /** @param isCounted Which elements count. Default all */
  add(
    name: string,
    got: ArrayLike<number>,
    stored: Stored,
    isCounted: (at: number) => boolean = () => true,
  ): void {
    const expected = this.input(stored);
    if (got.length !== expected.length)
      throw new Error(`${name}: ${got.length} elements, expected ${expected.length}`);
    const actual = Float64Array.from(expected, (x, at) => (isCounted(at) ? got[at] : x));
    const tensor = { dtype: "float32", shape: stored.shape, data: expected };
    const found = worstOf(this.#count++, tensor, actual, TOLERANCE);
    if (!found) return;
    if (!isWithin(found))
      throw new Error(
        `${name} at [${found.index.join(", ")}] is ${found.got}, expected ${found.expected}`,
      );
    if (!this.worst || Number(found.error) > Number(this.worst.error)) this.worst = found;
  }

  /** Throws for a token that is not the expected one. */
  token(at: number, of: number, got: number, expected: number): void {
    if (got !== expected) throw new Error(`token ${at} of ${of} is ${got}, expected ${expected}`);
  }
}

/** Which elements of [B, T, width] belong to rows that a mask counts. */
export function rowsOfMask(mask: Ids | undefined, width: number): (at: number) => boolean {
  const counts = mask?.flat();
  return (at) => counts?.[Math.floor(at / width)] !== 0;
}

/** Which elements of probabilities [B, H, M, N] belong to queries that a mask counts. */
export function queriesOfMask(
  mask: Ids | undefined,
  [, H, M, N]: readonly number[],
): (at: number) => boolean {
  return (at) => {
    const row = Math.floor(at / N) % M;
    return mask?.[Math.floor(at / (N * M * H))]?.[row] !== 0;
  };
}
