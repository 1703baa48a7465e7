// Gradients against float64 where plain f32 says too little of what f32 costs. A gradient of few
// numbers, each a sum that cancels, may come out exact by luck: the errors of its terms cancel,
// too. Gradients are linear in dOutput, so that here they are the sum of gradients of parts of it,
// whose errors count without their signs. It does without vitest, because fuzzing uses it.

import { BOUNDS } from "../../src/reference/bounds.ts";
import { largest } from "../../src/reference/compare.ts";
import { worstElement } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";

type Numbers = Readonly<Record<string, ArrayLike<number>>>;

/**
 * Computes all gradients for the elements of dOutput that a part has, the others being 0. Part 0
 * has what comes in beside dOutput, too. With an order above 0 sums run through columns in another
 * order, if they have one.
 */
export type Evaluate = (precision: "f64" | "f32", part?: Part, order?: number) => Numbers;

/** A part of dOutput. */
export interface Part {
  readonly index: number;
  has(element: number): boolean;
}

const PARTS = 8;
/** Orders of sums in plain f32: in one of them errors may be small by luck. */
const ORDERS = 4;
/** Results with more numbers than this show by themselves what f32 costs. */
const FEW = 64;
/** What a sum is off by, as a share of the sum of its terms without their signs. */
const FEW_ROUNDINGS = 2 ** -22;
/** The share that is left where a gradient cancels. */
const NEARLY_NONE = 2 ** -12;
const PART: readonly Part[] = Array.from({ length: PARTS }, (_, index) => ({
  index,
  has: (element) => element % PARTS === index,
}));

/** What rounding does to gradients through a softmax, and plain f32 does not show of few numbers. */
export interface OfSoftmax {
  /**
   * The gradients of dOutput and v without their signs, and without what is subtracted of those of
   * scores. Where nearly all that comes of dOutput cancels, as for queries that see one key, kernels
   * that add in another order are off by a rounding of these.
   */
  readonly uncancelled?: () => Numbers;
}

/** The gradients of a problem in float64 and in f32, each computed when it is needed. */
export class Evaluations {
  readonly #evaluate: Evaluate;
  readonly #f64: Numbers;
  readonly #plain: Numbers;
  readonly #softmax: OfSoftmax;
  #parts: readonly (readonly [f64: Numbers, plain: Numbers])[] | undefined;

  constructor(evaluate: Evaluate, softmax: OfSoftmax = {}) {
    this.#evaluate = evaluate;
    this.#softmax = softmax;
    this.#f64 = evaluate("f64");
    this.#plain = evaluate("f32");
  }

  /** Compares the result of a name by the bound of its dtype. Throws an Error with the worst element. */
  expectClose(
    name: string,
    actual: ArrayLike<number>,
    shape: readonly number[],
    dtype: Float = "f32",
  ): void {
    const f64 = this.#of(this.#f64, name);
    const stored = (plain: ArrayLike<number>) => Float64Array.from(plain, ROUND[dtype]);
    let plain = stored(this.#of(this.#plain, name));
    const isClose = () => {
      try {
        expectClose(name, actual, { f64, plain }, shape, dtype);
        return true;
      } catch {
        return false;
      }
    };
    if (isClose()) return;
    plain = stored(this.#worstOrder(name));
    try {
      expectClose(name, actual, { f64, plain }, shape, dtype);
    } catch (error) {
      const { uncancelled } = this.#softmax;
      const all = largest(uncancelled ? this.#of(uncancelled(), name) : []);
      if (this.#cancels(name, all)) {
        const rounding = (all * FEW_ROUNDINGS) / BOUNDS.f32.factor;
        const off = stored(Float64Array.from(f64, (x) => x + rounding));
        expectClose(name, actual, { f64, plain: off }, shape, dtype);
        return;
      }
      const counted = Array.from(f64).filter((x) => x !== 0).length;
      if (counted > FEW) throw error;
      const costs = this.#costs(name);
      const byParts = stored(Float64Array.from(f64, (x, at) => x + costs[at]));
      if (worstElement(byParts, f64, shape).error <= worstElement(plain, f64, shape).error)
        throw error;
      expectClose(name, actual, { f64, plain: byParts }, shape, dtype);
    }
  }

  /**
   * Whether nearly all that comes of dOutput cancels: what is left comes in beside it.
   *
   * @param all The largest number without what is subtracted
   */
  #cancels(name: string, all: number): boolean {
    return (
      all > 0 &&
      this.#ofParts().every(
        ([f64], index) => index === 0 || largest(this.#of(f64, name)) < all * NEARLY_NONE,
      )
    );
  }

  #ofParts(): readonly (readonly [f64: Numbers, plain: Numbers])[] {
    this.#parts ??= PART.map(
      (part) => [this.#evaluate("f64", part), this.#evaluate("f32", part)] as const,
    );
    return this.#parts;
  }

  /** What the worst of several orders of sums makes of each element in plain f32. */
  #worstOrder(name: string): Float64Array {
    const f64 = this.#of(this.#f64, name);
    const off = (x: number, at: number) => Math.abs(x - f64[at]);
    let worst = Float64Array.from(this.#of(this.#plain, name));
    for (let order = 1; order < ORDERS; order++) {
      const given = this.#of(this.#evaluate("f32", undefined, order), name);
      worst = worst.map((x, at) => (off(given[at], at) > off(x, at) ? given[at] : x));
    }
    return worst;
  }

  /** What f32 costs each element, part by part. */
  #costs(name: string): Float64Array {
    const costs = new Float64Array(this.#of(this.#f64, name).length);
    for (const [f64, plain] of this.#ofParts()) {
      const right = this.#of(f64, name);
      const given = this.#of(plain, name);
      for (let at = 0; at < costs.length; at++) costs[at] += Math.abs(given[at] - right[at]);
    }
    return costs;
  }

  #of(numbers: Numbers, name: string): ArrayLike<number> {
    const found = numbers[name];
    if (!found) throw new Error(`there is no gradient ${name}`);
    return found;
  }
}

/** The elements of dOutput that a part has; 0 in place of the others. */
export const partOf = (values: ArrayLike<number>, part: Part | undefined): ArrayLike<number> =>
  part ? Float64Array.from(values, (x, at) => (part.has(at) ? x : 0)) : values;

/** Numbers without their signs. */
export const magnitudes = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from(values, Math.abs);

/** Columns of rows in another order; order 0 leaves them as they are. */
export function columnOrder(order: number) {
  const moved = (values: ArrayLike<number>, width: number, isBack: boolean): ArrayLike<number> => {
    if (!order) return values;
    const keys = normal(order, width);
    const from = Array.from(keys, (_, at) => at).sort((a, b) => keys[a] - keys[b]);
    const result = new Float64Array(values.length);
    for (let at = 0; at < values.length; at++) {
      const other = at - (at % width) + from[at % width];
      if (isBack) result[other] = values[at];
      else result[at] = values[other];
    }
    return result;
  };
  return {
    in: (values: ArrayLike<number>, width: number) => moved(values, width, false),
    back: (values: ArrayLike<number>, width: number) => moved(values, width, true),
    of: <Rows extends { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>(
      rows: Rows,
    ): Rows => ({ ...rows, data: moved(rows.data, rows.shape[3], false) }),
  };
}
