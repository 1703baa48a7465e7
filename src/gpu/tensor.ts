// Tensors: a dtype, a shape and strides over a GPUBuffer that Fovea allocated or that the caller brought.

import { check } from "../errors.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { checkDevice, guarded, readBuffer, USAGE } from "./buffers.ts";
import { BYTES, decode, encode, type TensorData, type TensorValues } from "./elements.ts";

/** Options of {@link tensor}. */
export interface TensorOptions {
  /** Default `"f32"`. */
  readonly dtype?: Dtype;
  /** Initial elements in row-major order, as many as the shape has. Default: zeros. Not with `buffer`. */
  readonly data?: TensorData;
  /** A buffer of the caller's to look at instead of allocating one. It stays the caller's. Not with `data`. */
  readonly buffer?: GPUBuffer;
  /** Elements of the buffer before the first one. Default 0. */
  readonly offset?: number;
  /** Elements from one index to the next along each axis. Default: dense, last axis fastest. */
  readonly strides?: readonly number[];
  /** Name of the buffer in errors and captures. Default `"tensor"`. */
  readonly label?: string;
}

/** The memory behind a tensor and its views. */
interface Storage {
  readonly buffer: GPUBuffer;
  readonly owned: boolean;
  destroyed: boolean;
  /** Settles when the allocation is known to have worked; rejects with FoveaError("out-of-memory"). */
  readonly allocated: Promise<void>;
}

/**
 * A tensor on the GPU. Make one with {@link tensor}; views share its memory.
 */
export class Tensor implements TensorSpec {
  readonly device: GPUDevice;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Elements from one index to the next along each axis. */
  readonly strides: readonly number[];
  /** Elements of the buffer before the first one. */
  readonly offset: number;
  readonly label: string;
  readonly #storage: Storage;

  private constructor(device: GPUDevice, storage: Storage, spec: Required<TensorSpec>, label: string) {
    this.device = device;
    this.dtype = spec.dtype;
    this.shape = spec.shape;
    this.strides = spec.strides;
    this.offset = spec.offset;
    this.label = label;
    this.#storage = storage;
    const extent = extentOf(spec.shape, spec.strides);
    // A tensor without elements begins nowhere, so that a slice of one is one, wherever the slice would begin.
    const needed = extent && (spec.offset + extent) * BYTES[spec.dtype];
    check(
      Math.ceil(needed / 4) * 4 <= storage.buffer.size, // kernels bind whole words
      "argument",
      () =>
        `${label}: shape [${spec.shape}] with strides [${spec.strides}] from element ${spec.offset} on needs ${needed} bytes; the buffer has ${storage.buffer.size}.`,
    );
  }

  /** @internal Use {@link tensor}. */
  static make(device: GPUDevice, storage: Storage, spec: Required<TensorSpec>, label: string): Tensor {
    return new Tensor(device, storage, spec, label);
  }

  /** The buffer that holds the elements. Throws FoveaError("destroyed") after `destroy()`. */
  get buffer(): GPUBuffer {
    check(!this.#storage.destroyed, "destroyed", () => `${this.label}: the tensor was destroyed.`);
    return this.#storage.buffer;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  /** Whether `destroy()` was called on this tensor or on one that it shares memory with. */
  get destroyed(): boolean {
    return this.#storage.destroyed;
  }

  /** Settles when the memory is known to be there; rejects with FoveaError("out-of-memory") if the GPU had none. */
  get allocated(): Promise<void> {
    return this.#storage.allocated;
  }

  /**
   * Another tensor over the same memory. Strides and offset count elements; the offset is from this tensor's first
   * element. Nothing is copied.
   */
  view(spec: { shape: readonly number[]; strides?: readonly number[]; offset?: number; label?: string }): Tensor {
    const label = spec.label ?? this.label;
    const { shape, strides, offset } = resolveSpec(label, { ...spec, dtype: this.dtype });
    const moved = { shape, strides, offset: this.offset + offset, dtype: this.dtype };
    return new Tensor(this.device, this.#storage, moved, label);
  }

  /** The same elements with the axes in another order: `permute(0, 2, 1, 3)` turns BMHD into BHMD. */
  permute(...axes: number[]): Tensor {
    check(
      axes.length === this.shape.length && axes.every((_, axis) => axes.includes(axis)),
      "argument",
      () => `${this.label}.permute: expected each of the axes 0..${this.shape.length - 1} once, got (${axes}).`,
    );
    return this.view({ shape: axes.map((a) => this.shape[a]), strides: axes.map((a) => this.strides[a]) });
  }

  /** The elements `start` up to but not including `end` of an axis. */
  slice(axis: number, start: number, end: number): Tensor {
    check(
      axis in this.shape && 0 <= start && start <= end && end <= this.shape[axis],
      "argument",
      () => `${this.label}.slice: no range ${start}..${end} of axis ${axis} in shape [${this.shape}].`,
    );
    return this.view({
      shape: this.shape.map((size, a) => (a === axis ? end - start : size)),
      strides: this.strides,
      offset: start * this.strides[axis],
    });
  }

  /**
   * The elements in row-major order, copied to the CPU: f32 and f16 as Float32Array, u32 as Uint32Array, i32 as
   * Int32Array, u8 as Uint8Array. Waits for everything submitted before.
   */
  async read(): Promise<TensorValues> {
    const buffer = this.buffer;
    checkDevice(this.device);
    check(
      (buffer.usage & USAGE.COPY_SRC) !== 0,
      "argument",
      () => `${this.label}.read: the buffer was created without GPUBufferUsage.COPY_SRC.`,
    );
    await this.allocated;
    const bytes = BYTES[this.dtype];
    const extent = extentOf(this.shape, this.strides);
    if (extent === 0) return decode(new ArrayBuffer(0), this);
    // Copies start and end at multiples of 4 bytes.
    const first = Math.floor((this.offset * bytes) / 4) * 4;
    const end = Math.ceil(((this.offset + extent) * bytes) / 4) * 4;
    const copied = await readBuffer(this.device, buffer, first, end - first, this.label);
    const { dtype, shape, strides } = this;
    return decode(copied, { dtype, shape, strides, offset: this.offset - first / bytes });
  }

  /**
   * Frees the memory if Fovea allocated it; a buffer of the caller's is left alone. Either way this tensor and all
   * tensors that share its memory are unusable afterwards.
   */
  destroy(): void {
    if (this.#storage.owned && !this.#storage.destroyed) this.#storage.buffer.destroy();
    this.#storage.destroyed = true;
  }
}

/**
 * Allocates a tensor, or wraps a buffer of the caller's.
 *
 * @param shape Sizes of the axes, any number of them; 0 is a size.
 * @throws FoveaError for a malformed shape or strides, data of the wrong length, a buffer that is too small or lacks
 *   GPUBufferUsage.STORAGE, and a size beyond the device's limits. An allocation that the GPU refuses shows in
 *   `allocated`, and in the promise of the first call that uses the tensor.
 *
 * @example
 * const q = tensor(device, [1, 12, 1024, 64], { data: new Float32Array(12 * 1024 * 64) });
 * const k = tensor(device, [1, 12, 1024, 64], { buffer: myBuffer, offset: 4096 });
 */
export function tensor(device: GPUDevice, shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { data, buffer, label = "tensor" } = options;
  checkDevice(device);
  const spec = resolveSpec(label, { ...options, shape });
  check(!(data && buffer), "argument", () => `${label}: give data to allocate or buffer to wrap, not both.`);
  if (buffer) {
    check(
      (buffer.usage & USAGE.STORAGE) !== 0,
      "argument",
      () => `${label}: the buffer was created without GPUBufferUsage.STORAGE.`,
    );
    check(buffer.mapState === "unmapped", "argument", () => `${label}: the buffer is mapped; unmap it first.`);
    const storage = { buffer, owned: false, destroyed: false, allocated: Promise.resolve() };
    return Tensor.make(device, storage, spec, label);
  }
  const count = spec.shape.reduce((product, size) => product * size, 1);
  check(
    !data || data.length === count,
    "argument",
    () => `${label}: shape [${spec.shape}] has ${count} elements; data has ${data?.length}.`,
  );
  const elements = spec.offset + extentOf(spec.shape, spec.strides);
  const size = Math.max(4, Math.ceil((elements * BYTES[spec.dtype]) / 4) * 4);
  check(
    size <= device.limits.maxBufferSize,
    "limit",
    () =>
      `${label}: ${size} bytes are more than this device's maxBufferSize of ${device.limits.maxBufferSize}. requestFoveaDevice asks for the adapter's highest.`,
  );
  const bytes = data && encode(data, spec, size);
  const { value, done } = guarded(device, label, () => {
    const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    const allocated = device.createBuffer({ label, size, usage });
    if (bytes) device.queue.writeBuffer(allocated, 0, bytes);
    return allocated;
  });
  done.catch(() => {}); // reported by whoever awaits `allocated`
  return Tensor.make(device, { buffer: value, owned: true, destroyed: false, allocated: done }, spec, label);
}

/** Elements from the first one to one past the last one. */
export function extentOf(shape: readonly number[], strides: readonly number[]): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((extent, size, axis) => extent + (size - 1) * strides[axis], 1);
}

/** Strides of a dense tensor, last axis fastest. */
export function denseStrides(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * Math.max(1, shape[axis + 1]);
  return strides;
}

/** Fills in the defaults of a spec and checks it. */
export function resolveSpec(label: string, spec: TensorSpec): Required<TensorSpec> {
  const { shape, dtype = "f32", offset = 0 } = spec;
  const naturals = (values: readonly number[]) => values.every((value) => Number.isSafeInteger(value) && value >= 0);
  check(
    Array.isArray(shape) && naturals(shape),
    "argument",
    () => `${label}: a shape is a list of whole numbers from 0 up, got [${shape}].`,
  );
  const strides = spec.strides ?? denseStrides(shape);
  check(
    Array.isArray(strides) && strides.length === shape.length && naturals(strides),
    "argument",
    () => `${label}: strides are whole numbers from 0 up, one for each of the ${shape.length} axes, got [${strides}].`,
  );
  check(naturals([offset]), "argument", () => `${label}: the offset is a whole number from 0 up, got ${offset}.`);
  check(dtype in BYTES, "argument", () => `${label}: dtype must be ${Object.keys(BYTES).join(", ")}, got ${dtype}.`);
  return { shape: [...shape], strides: [...strides], offset, dtype };
}
