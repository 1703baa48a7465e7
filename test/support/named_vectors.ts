// Test vectors whose tensors go by name: gradients by PyTorch's autograd in float64, for which
// inputs, attributes and outputs have the names that their README gives.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { expect } from "vitest";
import { largest, worstElement } from "../../src/reference/index.ts";
import { parseVector, type VectorTensor } from "../conformance/vector.ts";

export interface NamedVector {
  readonly name: string;
  /** Without its domain. */
  readonly op: string;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of the operator's attributes
  readonly attributes: Readonly<Record<string, any>>;
  readonly inputs: Readonly<Partial<Record<string, VectorTensor>>>;
  readonly outputs: Readonly<Record<string, VectorTensor>>;
}

/** Results by the names of a vector's outputs. */
export type NamedResults = Readonly<Record<string, ArrayLike<number>>>;

export function namedVector(path: string): NamedVector {
  const text = readFileSync(path, "utf8");
  const { op, attributes, inputs, outputs } = parseVector(text);
  const names = JSON.parse(text);
  const named = (tensors: typeof inputs, list: readonly { readonly name: string }[]) =>
    Object.fromEntries(tensors.map((tensor, index) => [list[index].name, tensor as VectorTensor]));
  return {
    name: basename(path, ".json"),
    op: op.slice(op.lastIndexOf(".") + 1),
    attributes,
    inputs: named(inputs, names.inputs),
    outputs: named(outputs, names.outputs),
  };
}

/** What stands in the way of the types: options that are undefined. */
type Loose<T> = { [Name in keyof T]: T[Name] | undefined };

/** Leaves out what is undefined. */
export const defined = <T extends object>(options: Loose<T>): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;

/** An input that the vector has to have. */
export function input({ name, inputs }: NamedVector, wanted: string): VectorTensor {
  const tensor = inputs[wanted];
  if (!tensor) throw new Error(`${name} has no input ${wanted}`);
  return tensor;
}

/**
 * What two evaluations in float64 may be apart, over the largest element: they sum in different
 * orders, and a sum of n terms is off by up to n * 2^-53 of their magnitudes, 3e-14 for 300 of
 * them. Measured: 3.3e-15.
 */
const FLOAT64 = 1e-13;

/**
 * Expects every output of a vector, to the bound times the largest element of the same output, or
 * times 1 if that is less: it is then a sum that cancels, of terms that are about 1.
 */
export function expectOutputs({ outputs }: NamedVector, results: NamedResults) {
  for (const [name, { data, shape }] of Object.entries(outputs)) {
    const actual = results[name];
    expect(actual, `${name} is not computed`).toBeDefined();
    expect(actual.length, `elements of ${name}`).toBe(data.length);
    const { error, ...worst } = worstElement(actual, data, shape);
    const most = FLOAT64 * Math.max(largest(data), 1);
    expect(error, `${name}: ${JSON.stringify(worst)}`).toBeLessThanOrEqual(most);
  }
}
