// Where a number that is not finite came from: the first result of a program that has one.

import type { Tensor } from "../gpu/tensor.ts";
import { LSE } from "./operations/attention.ts";
import type { Step } from "./value.ts";

/** An operation's name and its results, as a program keeps them to look at. */
export interface Traced {
  readonly label: string;
  readonly results: readonly Tensor[];
}

/** What {@link Program.findNotFinite} found. */
export interface NotFinite {
  /** What holds it: an input, a parameter, or the results of an operation. */
  readonly kind: "input" | "parameter" | "operation";
  /** The name of the input or the parameter, or the operation: `linear`, `attention backward`. */
  readonly name: string;
  /** The place of the operation in the program; -1 for inputs and parameters. */
  readonly index: number;
}

/** Looks at tensors, and then at results after each step; gives the first that is not finite. */
export async function findNotFinite(
  device: GPUDevice,
  given: Readonly<Record<"input" | "parameter", ReadonlyMap<string, Tensor>>>,
  steps: readonly Step[],
  traced: readonly Traced[],
): Promise<NotFinite | undefined> {
  for (const kind of ["input", "parameter"] as const)
    for (const [name, one] of given[kind])
      if (!(await isRightThroughout(one))) return { kind, name, index: -1 };
  for (const [index, { label, results }] of traced.entries()) {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    steps[index].prepare({})?.(pass);
    pass.end();
    device.queue.submit([encoder.finish()]);
    for (const one of results)
      if (!(await isRightThroughout(one))) return { kind: "operation", name: label, index };
  }
  return undefined;
}

async function isRightThroughout(one: Tensor): Promise<boolean> {
  // The logarithm of a sum over no keys is -Infinity, and right.
  const isRight = (value: number) =>
    Number.isFinite(value) || (one.label === LSE && value === Number.NEGATIVE_INFINITY);
  return one.size === 0 || (await one.read()).every(isRight);
}
