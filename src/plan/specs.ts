// Checks of single tensors that every operation makes: axes and layout, shape, elements that don't
// overlap, binding size.

import { check, show } from "../errors.ts";
import type { Numbers } from "../given.ts";
import { ASK_FOR_LIMITS } from "../gpu/buffers.ts";
import { BYTES } from "../gpu/shapes.ts";
import { extentOf, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import type { Dtype, Layout, TensorSpec } from "../types.ts";

export type ResolvedSpec = Required<TensorSpec>;

/** Numbers for each batch entry, or a dense tensor of i32 (or u32) that stays on the GPU. */
export type PerBatch = Numbers | Tensor;

/** Numbers for each head, or an f32 tensor that stays on the GPU. */
export type PerHead = Numbers | Tensor;

/** A `PerBatch` or `PerHead` after it was read: typed arrays have become arrays. */
export type ListOrTensor = readonly number[] | Tensor;

/** What the elements of q, k, v and output may be stored as; the arithmetic is f32. */
/** The element types of attention's inputs and outputs. */
export const FLOATS: readonly Dtype[] = ["f32", "f16", "bf16"];

export const AXES: Readonly<Record<Layout, string>> = { bhmd: "BHMD", bmhd: "BMHD" };

export function checkLayout(label: string, layout: Layout): void {
  check(
    Object.hasOwn(AXES, layout),
    "argument",
    () => `${label}: layout must be "bhmd" or "bmhd", got ${show(layout)}.`,
  );
}

/** From the caller's layout to BHMD or back: both ways the axes in the middle are swapped. */
export const reorder = (spec: ResolvedSpec, layout: Layout): ResolvedSpec => {
  if (layout === "bhmd") return spec;
  const swap = ([a, b, c, d]: readonly number[]) => [a, c, b, d];
  return { ...spec, shape: swap(spec.shape), strides: swap(spec.strides) };
};

/**
 * The spec of a tensor that is dense in the caller's axis order; `shape` and the spec are in BHMD
 * order.
 */
export const dense = (shape: readonly number[], layout: Layout, dtype: Dtype): ResolvedSpec => {
  const inLayout = reorder({ shape, strides: shape, offset: 0, dtype }, layout).shape;
  return reorder(resolveSpec("output", { shape: inLayout, dtype }), layout);
};

/** A checked spec of any number of axes and one of the dtypes. */
export function checkedSpec(
  label: string,
  name: string,
  spec: TensorSpec,
  dtypes: readonly Dtype[] = ["f32"],
): ResolvedSpec {
  check(
    typeof spec === "object" && spec !== null && typeof spec.shape === "object",
    "argument",
    () =>
      `${label}: ${name} must be a tensor, or { shape, strides?, offset?, dtype? }, got ${show(spec)}.`,
  );
  const resolved = resolveSpec(`${label}: ${name}`, spec);
  check(
    dtypes.includes(resolved.dtype),
    "argument",
    () =>
      `${label}: ${name} must be ${dtypes.join(", ").replace(/, (?!.*, )/, " or ")}, got ${resolved.dtype}.`,
  );
  return resolved;
}

/** A checked spec of four axes, in BHMD order. */
export function toBhmd(
  label: string,
  name: string,
  spec: TensorSpec,
  layout: Layout,
  dtypes?: readonly Dtype[],
): ResolvedSpec {
  const resolved = checkedSpec(label, name, spec, dtypes);
  check(
    resolved.shape.length === 4,
    "argument",
    () =>
      `${label}: ${name} must have the four axes ${AXES[layout]}, got shape [${spec.shape}]. Use view() to add axes of size 1, or splitHeads() to take heads apart.`,
  );
  check(
    resolved.shape.every((size) => size < 2 ** 29),
    "limit",
    () => `${label}: ${name} has an axis of 2^29 or more: [${spec.shape}].`,
  );
  return reorder(resolved, layout);
}

/**
 * Throws FoveaError unless the spec, as the caller wrote it, has this shape. `why` ends the
 * sentence.
 */
export function expectShape(
  label: string,
  name: string,
  spec: ResolvedSpec,
  shape: readonly number[],
  why = "",
): void {
  check(
    spec.shape.length === shape.length && shape.every((size, axis) => spec.shape[axis] === size),
    "argument",
    () =>
      `${label}: ${name} must be [${shape.join(", ")}]${why && ` ${why}`}, got [${spec.shape.join(", ")}].`,
  );
}

/**
 * Throws FoveaError if two indices reach the same element; strides that interleave count as
 * overlapping.
 */
export function expectApart(label: string, name: string, { shape, strides }: ResolvedSpec): void {
  const axes = shape
    .map((size, axis) => ({ size, stride: strides[axis] }))
    .filter(({ size }) => size > 1);
  axes.sort((a, b) => a.stride - b.stride);
  let extent = 1;
  for (const { size, stride } of axes) {
    check(
      stride >= extent || shape.includes(0),
      "overlap",
      () =>
        `${label}: elements of ${name} share memory (shape [${shape}], strides [${strides}]); an output needs a place for each.`,
    );
    extent += extentOf([size], [stride]) - 1;
  }
}

/** Elements from the last possible start of a binding up to the spec's first element. */
export const bindingBase = (device: GPUDevice, { offset, dtype }: ResolvedSpec): number =>
  offset % bindingStep(device, dtype);

/** Elements between the places where a binding can start. */
export const bindingStep = (device: GPUDevice, dtype: Dtype): number =>
  device.limits.minStorageBufferOffsetAlignment / BYTES[dtype];

/** Throws FoveaError if the tensor is larger than one binding can be. */
export function checkBindingLimit(
  label: string,
  name: string,
  device: GPUDevice,
  spec: ResolvedSpec,
): void {
  const bytes =
    (bindingBase(device, spec) + extentOf(spec.shape, spec.strides)) * BYTES[spec.dtype];
  const limit = device.limits.maxStorageBufferBindingSize;
  check(
    bytes <= limit,
    "limit",
    () =>
      `${label}: ${name} spans ${bytes} bytes; this device binds at most ${limit} at a time (maxStorageBufferBindingSize). Run batch entries or heads one after the other on slices. ${ASK_FOR_LIMITS}`,
  );
}

/** The part of its buffer that a tensor is bound by: from an aligned offset to its last element. */
export function bindingRange({ device, shape, strides, offset, dtype }: Tensor): {
  offset: number;
  size: number;
} {
  const begin = (offset - (offset % bindingStep(device, dtype))) * BYTES[dtype];
  const size = (offset + extentOf(shape, strides)) * BYTES[dtype] - begin;
  return { offset: begin, size: Math.ceil(size / 4) * 4 };
}
