// What a caller says of a tensor: the options, and perhaps a buffer to wrap.

import { check, FoveaError, reading, show } from "../errors.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { guarded, USAGE } from "./buffers.ts";
import type { TensorData } from "./elements.ts";
import { BYTES, denseStrides } from "./shapes.ts";

/** Options of {@link tensor}. */
export interface TensorOptions {
  /** Default `"f32"`. */
  readonly dtype?: Dtype;
  /**
   * Initial elements: in row-major order, as many as the shape has, or in lists nested as the shape
   * says. Default: zeros. Not with `buffer`.
   */
  readonly data?: TensorData;
  /**
   * A buffer of the caller's to look at instead of allocating one. It stays the caller's. Not with
   * `data`.
   */
  readonly buffer?: GPUBuffer;
  /** Elements of the buffer before the first one. Default 0. */
  readonly offset?: number;
  /** Elements from one index to the next along each axis. Default: dense, last axis fastest. */
  readonly strides?: readonly number[];
  /** Name of the buffer in errors and captures. Default `"tensor"`. */
  readonly label?: string;
}

/** The names of the options of {@link tensor}, and of the options of a view. */
export const TENSOR_NAMES: readonly string[] = [
  "dtype",
  "data",
  "buffer",
  "offset",
  "strides",
  "label",
];
export const VIEW_NAMES: readonly string[] = ["shape", "strides", "offset", "label"];

/**
 * Options read once; `label` is by default `named`. Throws FoveaError("argument") for a name that
 * is not among `names`, and for what cannot be read.
 */
export function opened<Options extends { readonly label?: string }>(
  named: string,
  options: Options,
  names: readonly string[],
): Options & { readonly label: string } {
  check(
    typeof options === "object" && options !== null,
    "argument",
    () => `${named}: options must be an object, got ${show(options)}.`,
  );
  const read = reading(`${named}: options`, () => ({ ...options }));
  const unknown = Object.keys(read).find((name) => !names.includes(name));
  check(unknown === undefined, "argument", () => {
    return `${named}: there is no option ${show(unknown)}. Options: ${names.join(", ")}.`;
  });
  const { label = named } = read;
  check(
    typeof label === "string",
    "argument",
    () => `${named}: label must be text, got ${show(label)}.`,
  );
  return { ...read, label };
}

/**
 * Wraps a buffer of the caller's and asks the GPU about it, which reports a buffer of another
 * device, say, or a destroyed one.
 */
export function wrapped(
  device: GPUDevice,
  label: string,
  buffer: GPUBuffer,
): { value: GPUBuffer; done: Promise<void> } {
  const foreign = (cause?: unknown) =>
    new FoveaError("argument", `${label}: buffer must be a GPUBuffer, got ${show(buffer)}.`, {
      cause,
    });
  if (typeof buffer?.size !== "number") throw foreign();
  check(
    (buffer.usage & USAGE.STORAGE) !== 0,
    "argument",
    () => `${label}: the buffer was created without GPUBufferUsage.STORAGE.`,
  );
  check(
    buffer.mapState === "unmapped",
    "argument",
    () => `${label}: the buffer is mapped; unmap it first.`,
  );
  try {
    // A copy of no bytes changes nothing, but WebGPU checks the buffer for it. Deno 2.9 panics if
    // there are no bytes to copy from.
    return guarded(device, label, () => {
      if (buffer.usage & USAGE.COPY_DST)
        device.queue.writeBuffer(buffer, 0, new Uint8Array(4), 0, 0);
      else device.createCommandEncoder().clearBuffer(buffer, 0, 0);
      return buffer;
    });
  } catch (cause) {
    throw cause instanceof FoveaError ? cause : foreign(cause);
  }
}

/** A copy of a list of whole numbers from 0 up as an array; undefined for anything else. */
function naturals(values: unknown): number[] | undefined {
  try {
    const isList =
      Array.isArray(values) || (ArrayBuffer.isView(values) && !(values instanceof DataView));
    // The sum turns -0 into 0.
    const list = isList ? Array.from(values as ArrayLike<number>, (value) => value + 0) : undefined;
    return list?.every((value) => Number.isSafeInteger(value) && value >= 0) ? list : undefined;
  } catch {
    return undefined; // BigInts, symbols, and what throws when it is read
  }
}

/** Fills in the defaults of a spec and checks it. Lists may be typed arrays. */
export function resolveSpec(label: string, spec: TensorSpec): Required<TensorSpec> {
  const { dtype = "f32", offset = 0 } = spec;
  const shape = naturals(spec.shape);
  check(
    shape !== undefined,
    "argument",
    () => `${label}: a shape is a list of whole numbers from 0 up, got ${show(spec.shape)}.`,
  );
  const strides = spec.strides === undefined ? denseStrides(shape) : naturals(spec.strides);
  check(
    strides?.length === shape.length,
    "argument",
    () =>
      `${label}: strides are whole numbers from 0 up, one for each of the ${shape.length} axes, got ${show(spec.strides)}.`,
  );
  check(
    naturals([offset]) !== undefined,
    "argument",
    () => `${label}: the offset is a whole number from 0 up, got ${show(offset)}.`,
  );
  check(
    typeof dtype === "string" && Object.hasOwn(BYTES, dtype),
    "argument",
    () => `${label}: dtype must be ${Object.keys(BYTES).join(", ")}, got ${show(dtype)}.`,
  );
  return { shape, strides, offset, dtype };
}
