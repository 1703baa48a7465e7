// Makes tensors: allocates their memory, or wraps a buffer of the caller's.

import { check } from "../errors.ts";
import type { Dtype } from "../types.ts";
import { checkBufferSize, checkDevice, guarded, USAGE } from "./buffers.ts";
import { encode } from "./elements.ts";
import { BYTES, extentOf } from "./shapes.ts";
import { Tensor } from "./tensor.ts";
import {
  opened,
  resolveSpec,
  TENSOR_NAMES,
  type TensorOptions,
  wrapped,
} from "./tensor_options.ts";

/**
 * Allocates a tensor, or wraps a buffer of the caller's.
 *
 * @param shape Sizes of the axes, any number of them; 0 is a size.
 * @throws FoveaError for a malformed shape or strides, data of another size, a buffer that is too
 *   small or lacks GPUBufferUsage.STORAGE, and a size beyond the device's limits. An allocation
 *   that the GPU refuses, and a buffer of another device or a destroyed one, show in `allocated`,
 *   and in the promise of the first call that uses the tensor.
 *
 * @example
 * const q = tensor(device, [1, 12, 1024, 64], { data: new Float32Array(12 * 1024 * 64) });
 * const k = tensor(device, [1, 12, 1024, 64], { buffer: myBuffer, offset: 4096 });
 * const bias = tensor(device, [2, 3], { data: [[1, 2, 3], [4, 5, 6]], dtype: "f16" });
 */
export function tensor<D extends Dtype>(
  device: GPUDevice,
  shape: readonly number[],
  options: TensorOptions & { readonly dtype: D },
): Tensor<D>;
export function tensor(
  device: GPUDevice,
  shape: readonly number[],
  options?: TensorOptions & { readonly dtype?: "f32" },
): Tensor<"f32">;
export function tensor(
  device: GPUDevice,
  shape: readonly number[],
  options?: TensorOptions,
): Tensor;
export function tensor(
  device: GPUDevice,
  shape: readonly number[],
  options: TensorOptions = {},
): Tensor {
  checkDevice(device);
  const { data, buffer, label, ...rest } = opened<TensorOptions>("tensor", options, TENSOR_NAMES);
  const spec = resolveSpec(label, { ...rest, shape });
  check(
    data === undefined || buffer === undefined,
    "argument",
    () => `${label}: give data to allocate or buffer to wrap, not both.`,
  );
  if (buffer !== undefined)
    return Tensor.make(device, wrapped(device, label, buffer), false, spec, label);
  const elements = spec.offset + extentOf(spec.shape, spec.strides);
  const size = Math.max(4, Math.ceil((elements * BYTES[spec.dtype]) / 4) * 4);
  checkBufferSize(device, label, size);
  const bytes = data === undefined ? undefined : encode(label, data, spec, size).bytes;
  const allocation = guarded(device, label, () => {
    const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    const allocated = device.createBuffer({ label, size, usage });
    if (bytes) device.queue.writeBuffer(allocated, 0, bytes);
    return allocated;
  });
  return Tensor.make(device, allocation, true, spec, label);
}
