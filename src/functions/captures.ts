// The captures of a problem's functions, for plans: checks of tensors, and numbers as uniforms hold
// them.

import { check } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { CaptureType } from "../kernels/slots.ts";
import { writeScalar } from "../kernels/uniform.ts";

/** A number on the CPU that a function captures. A plain number is an f32. */
export type CapturedNumber = number | { readonly i32: number } | { readonly u32: number };

/** A captured number and its type. */
export function numberOf(value: CapturedNumber): { type: CaptureType; value: number } {
  if (typeof value === "number") return { type: "f32", value };
  return "i32" in value ? { type: "i32", value: value.i32 } : { type: "u32", value: value.u32 };
}

/** Bytes from one uniform to the next: WebGPU asks for multiples of at most 256. */
export const NUMBER_STRIDE = 256;

/** A captured number as a uniform of its type holds it. */
export function numberBytes(given: CapturedNumber): ArrayBuffer {
  const bytes = new ArrayBuffer(NUMBER_STRIDE);
  const { type, value } = numberOf(given);
  writeScalar(new DataView(bytes), 0, type, value);
  return bytes;
}

/**
 * Throws FoveaError unless a binding can start at a captured tensor, since functions index it from
 * the binding's start.
 */
export function checkCaptured(
  label: string,
  name: string,
  device: GPUDevice,
  { offset }: Tensor,
): void {
  const bytes = device.limits.minStorageBufferOffsetAlignment;
  const step = bytes / 4; // captured tensors have 32-bit elements
  check(
    offset % step === 0,
    "argument",
    () =>
      `${label}: capture ${name} starts at element ${offset} of its buffer; a captured tensor must start at a multiple of ${step} (${bytes} bytes).`,
  );
}
