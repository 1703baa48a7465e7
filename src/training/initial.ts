// The first elements of parameters, as PyTorch's layers draw them.

import { check, show } from "../errors.ts";
import { countOf } from "../gpu/shapes.ts";
import { seeded } from "../seeded.ts";

/** How the first elements of a parameter are drawn. */
export type Initial =
  /** Evenly from -uniform to uniform. */
  | { readonly uniform: number }
  /** From a normal distribution with this standard deviation. */
  | { readonly normal: number }
  /** All alike. */
  | { readonly constant: number };

/** For a layer with that many inputs: PyTorch's default for Linear, convolutions and their biases. */
export const byInputs = (inputs: number): Initial => ({ uniform: 1 / Math.sqrt(inputs) });

/**
 * Draws the first elements of parameters: a function for `parametersOf`. Each parameter has a
 * generator of its own, from the seed and its name, so that none changes because others come or go.
 *
 * @param seed A whole number
 *
 * @example
 * const program = await recordProgram(device, (graph) => {
 *   const parameters = parametersOf(graph, drawn(1));
 *   return { outputs: { y: linearLayer(graph.input("x", [8, 4]), parameters, 2) } };
 * });
 */
export function drawn(
  seed: number,
): (name: string, shape: readonly number[], initial?: Initial) => Float32Array {
  check(
    Number.isSafeInteger(seed),
    "argument",
    () => `drawn: a seed is a whole number, got ${show(seed)}.`,
  );
  return (name, shape, initial = { constant: 0 }) => {
    const elements = new Float32Array(countOf(shape));
    if ("constant" in initial) return elements.fill(initial.constant);
    const random = seeded(hash(`${seed} ${name}`));
    if ("uniform" in initial) return elements.map(() => (2 * random() - 1) * initial.uniform);
    return elements.map(() => {
      // Box and Muller's method; the logarithm's argument is above 0.
      const radius = Math.sqrt(-2 * Math.log(1 - random()));
      return radius * Math.cos(2 * Math.PI * random()) * initial.normal;
    });
  };
}

/** A number of 32 bits for a text. Source: Fowler, Noll and Vo's FNV-1a. */
function hash(text: string): number {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 0x01000193);
  return state >>> 0;
}
