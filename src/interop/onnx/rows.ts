// Parts that the operators of rows share: dense inputs, axes that are normalised together, and
// tensors that are broadcast over them.

import { copyTensor, type Dtype, type Tensor } from "../../index.ts";
import type { Call } from "./padding_mask.ts";

const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);

/** The same elements in row-major order: the tensor itself if they are in it. */
export async function inOrder(call: Call, x: Tensor): Promise<Tensor> {
  const dense = x.shape.every(
    (size, axis) => size <= 1 || x.strides[axis] === product(x.shape.slice(axis + 1)),
  );
  return dense ? x : call.own((await copyTensor(x, { label: call.label })).output);
}

/** A copy of a view of a result. Outputs are destroyed one by one, so each has its own memory. */
export async function alone(call: Call, view: Tensor, dtype: Dtype = "f32"): Promise<Tensor> {
  const output = call.make(view.shape, dtype);
  await copyTensor(view, { output, label: call.label });
  return output;
}

/** An axis counted from the first one. */
export function axisOf(call: Call, axis: number, { shape }: Tensor, name: string): number {
  const rank = shape.length;
  call.expect(rank > 0, () => `${name} must have one axis or more, got a scalar, []`);
  call.expect(-rank <= axis && axis < rank, () => {
    return `attribute axis must be from ${-rank} up to ${rank - 1} for ${name} [${shape}], got ${axis}`;
  });
  return axis < 0 ? axis + rank : axis;
}

/**
 * Gives a tensor that is broadcast to rows of several axes either all of those axes or none,
 * because kernels take rows of one axis.
 */
export async function overRows(
  call: Call,
  name: string,
  given: Tensor | undefined,
  x: Tensor,
  axis: number,
): Promise<Tensor | undefined> {
  if (!given) return undefined;
  const missing = x.shape.length - given.shape.length;
  call.expect(
    missing >= 0 && given.shape.every((size, i) => size === x.shape[i + missing] || size === 1),
    () => `${name} must broadcast to [${x.shape}], got [${given.shape}]`,
  );
  const all = [...x.shape.slice(0, missing).fill(1), ...given.shape];
  const row = x.shape.slice(axis);
  const own = all.slice(axis);
  if (own.every((size) => size === 1)) return given;
  const ordered = await inOrder(call, given);
  if (own.every((size, i) => size === row[i])) return ordered;
  const output = call.make([...all.slice(0, axis), ...row], given.dtype);
  await copyTensor(ordered, { output, label: call.label });
  return output;
}
