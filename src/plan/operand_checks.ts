// Checks of the tensors that a plan is made with and encoded with: they are live, on the plan's
// device and as planned, and outputs lie apart from the rest.

import { check, FoveaError, reading, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import { type Operand, type Operands, OWN } from "./operand.ts";
import { bindingRange, bindingStep } from "./specs.ts";

/** Throws FoveaError unless `given` is a live tensor of the device that looks as planned. */
export function checkOperand(
  what: string,
  device: GPUDevice,
  { spec, base }: Operand,
  given: Tensor | undefined,
): asserts given is Tensor {
  check(
    given !== undefined,
    "argument",
    () => `${what} is missing: the plan was made without a tensor for it.`,
  );
  check(
    given instanceof Tensor,
    "argument",
    () => `${what} must be a Tensor; wrap a buffer with tensor().`,
  );
  check(!given.destroyed, "destroyed", () => `${what}: the tensor was destroyed.`);
  const { refused } = given;
  if (refused)
    throw new FoveaError(refused.code, `${what}: ${refused.message}`, { cause: refused });
  check(
    given.device === device,
    "device",
    () => `${what} belongs to another GPUDevice; tensors can't move between devices.`,
  );
  const { dtype, offset } = given;
  // A mask or bias may have been given without its leading axes of size 1.
  const missing = Math.max(0, spec.shape.length - given.shape.length);
  const leading = spec.shape.slice(0, missing).every((size) => size === 1);
  const shape = [...new Array<number>(missing).fill(1), ...given.shape];
  const strides = [...new Array<number>(missing).fill(0), ...given.strides];
  const sameShape =
    leading &&
    shape.length === spec.shape.length &&
    shape.every((size, axis) => size === spec.shape[axis]);
  check(
    sameShape && dtype === spec.dtype,
    "argument",
    () =>
      `${what} is ${dtype} [${given.shape}]; the plan was made for ${spec.dtype} [${spec.shape}].`,
  );
  check(
    strides.every((stride, axis) => stride === spec.strides[axis] || shape[axis] <= 1),
    "argument",
    () => `${what} has strides [${strides}]; the plan was made for [${spec.strides}].`,
  );
  check(
    offset % bindingStep(device, spec.dtype) === base,
    "argument",
    () =>
      `${what} starts ${offset % bindingStep(device, spec.dtype)} elements after a multiple of the binding alignment of ${device.limits.minStorageBufferOffsetAlignment} bytes; the plan was made for ${base}. Plan with a tensor of that offset.`,
  );
}

/**
 * Promises that settle when it is known whether the tensors that a plan was made with have memory.
 */
export const memoryOf = (operands: Operands): Promise<void>[] =>
  [...operands.values()].flatMap(({ fallback }) => (fallback ? [fallback.allocated] : []));

/**
 * Throws FoveaError if an output shares its buffer with an input, or its elements with another
 * output.
 */
export function checkOverlap(
  label: string,
  operands: Operands,
  tensors: ReadonlyMap<string, Tensor>,
): void {
  for (const [name, written] of tensors) {
    if (!operands.get(name)?.written) continue;
    for (const [other, tensor] of tensors) {
      if (other === name || tensor.buffer !== written.buffer) continue;
      check(
        operands.get(other)?.written === true,
        "overlap",
        () =>
          `${label}: ${name} and ${other} are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give ${name} a buffer of its own.`,
      );
      const a = bindingRange(written);
      const b = bindingRange(tensor);
      check(
        a.offset + a.size <= b.offset || b.offset + b.size <= a.offset,
        "overlap",
        () =>
          `${label}: ${name} and ${other} overlap in their buffer (bindings start at multiples of 256 bytes).`,
      );
    }
  }
}

/** The names that a caller may bind: all operands of a plan but those that it owns. */
export const bindableOf = (operands: Operands): ReadonlySet<string> =>
  new Set([...operands.keys()].filter((name) => !OWN.includes(name)));

/** Throws FoveaError for a binding that the plan has no use for. */
export function checkUsed(
  label: string,
  bindable: ReadonlySet<string>,
  bindings: object,
  others: readonly string[] = [],
): void {
  check(
    typeof bindings === "object",
    "argument",
    () => `${label}: bindings are { name: tensor }, got ${show(bindings)}.`,
  );
  const unused = reading(`${label}: bindings`, () =>
    unusedOf(bindings, (name) => bindable.has(name) || others.includes(name)),
  );
  check(
    unused === undefined,
    "argument",
    () =>
      `${label}: the plan has no use for ${show(unused)}; it takes ${[...bindable].join(", ")}. What else a problem has is said when its plan is made.`,
  );
}

/** The first binding that is given under a name that isn't known. */
function unusedOf(bindings: object, isKnown: (name: string) => boolean): string | undefined {
  for (const name in bindings) {
    const given = (bindings as Readonly<Record<string, unknown>>)[name];
    if (given !== undefined && !isKnown(name)) return name;
  }
  return undefined;
}

/**
 * Makes the results of a run depend on the memory of all of its tensors: reading a result rejects
 * if one of them had none.
 */
export function tieResults(operands: Operands, tensors: ReadonlyMap<string, Tensor>): void {
  const written = [...tensors].flatMap(([name, one]) => (operands.get(name)?.written ? [one] : []));
  Tensor.tie(written, [...tensors.values()]);
}
