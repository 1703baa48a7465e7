// Gradients against central differences of the loss that they are the gradients of.

import { expect } from "vitest";
import { integers, normal } from "../../src/reference/random.ts";

/** Numbers that a loss depends on, by their names. */
export type Values = Readonly<Record<string, Float64Array>>;

export interface Differentiated {
  /** NaN stands for what nothing may read: the gradient is 0 there. */
  readonly values: Values;
  readonly loss: (values: Values) => number;
  /** Of the loss, one for each name. */
  readonly gradients: Readonly<Record<string, ArrayLike<number>>>;
}

/** Elements of each tensor that are moved one by one. */
const MOVED = 3;
const STEP = 2 ** -12;
/**
 * Five points leave an error of STEP^4 / 30 times the fifth derivative, 1e-16 of it, and rounding of
 * the loss over the step, 1e-12 of it. What is wrong is wrong by far more.
 */
const BOUND = 1e-9;

/** (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12 h along a direction. */
function derivative({ values, loss }: Differentiated, name: string, direction: Float64Array) {
  const moved = (steps: number) => {
    const along = values[name].map((x, at) => x + steps * STEP * direction[at]);
    return loss({ ...values, [name]: along });
  };
  return (moved(-2) - 8 * moved(-1) + 8 * moved(1) - moved(2)) / (12 * STEP);
}

/**
 * Expects the gradients to be those of the loss: along some elements of each tensor, and along a
 * direction in which all of its elements move at once.
 */
export function expectGradients(differentiated: Differentiated, seed: number): void {
  const { values, gradients } = differentiated;
  for (const [index, [name, own]] of Object.entries(values).entries()) {
    const gradient = gradients[name];
    expect(gradient, `the gradient of ${name}`).toBeDefined();
    expect(gradient.length, `elements of the gradient of ${name}`).toBe(own.length);
    const used = [...own.keys()].filter((at) => !Number.isNaN(own[at]));
    for (const at of own.keys())
      if (Number.isNaN(own[at])) expect(Math.abs(gradient[at]), `${name}[${at}], not read`).toBe(0);
    if (!used.length) continue;
    const chosen = integers(seed + index, Math.min(MOVED, used.length), 0, used.length - 1);
    const single = chosen.map((place) => own.map((_, at) => Number(at === used[place])));
    const all = Float64Array.from(normal(seed + 7 * index + 1, own.length));
    for (const direction of [...single, all]) {
      const expected = derivative(differentiated, name, direction);
      const actual = used.reduce((sum, at) => sum + gradient[at] * direction[at], 0);
      const size = used.reduce((sum, at) => sum + Math.abs(gradient[at] * direction[at]), 1);
      const where = direction === all ? "all" : used[chosen[single.indexOf(direction)]];
      expect(Number.isFinite(expected), `${name}[${where}]: the loss isn't finite`).toBe(true);
      expect(
        Math.abs(actual - expected) / size,
        `${name}[${where}]: ${actual}, by differences ${expected}`,
      ).toBeLessThan(BOUND);
    }
  }
}

/** The sum of a result's elements times the gradient that comes in, NaN of it left out. */
export function weighed(result: ArrayLike<number>, gradient: ArrayLike<number>): number {
  let sum = 0;
  for (let at = 0; at < result.length; at++)
    if (!Number.isNaN(gradient[at])) sum += result[at] * gradient[at];
  return sum;
}
