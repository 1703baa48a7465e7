/// <reference lib="esnext.disposable" preserve="true" />
// Tensors: a dtype, a shape and strides over a GPUBuffer that Fovea allocated or that the caller
// brought.

import { check, type FoveaError, show } from "../errors.ts";
import type { Dtype, FloatDtype, TensorSpec } from "../types.ts";
import { checkDevice, copyOut, guarded, settle, USAGE } from "./buffers.ts";
import { encode, type TensorData, type ValuesOf } from "./elements.ts";
import { decode, mappedBytes, writeAmong } from "./read.ts";
import { BYTES, countOf, extentOf, isContiguous } from "./shapes.ts";
import { forget, free, type Storage, storageOf, waitFor } from "./storage.ts";
import { opened, resolveSpec, VIEW_NAMES } from "./tensor_options.ts";

export { denseStrides, extentOf } from "./shapes.ts";
export { resolveSpec, type TensorOptions } from "./tensor_options.ts";

/**
 * A tensor on the GPU. Make one with {@link tensor}; views share its memory. `using` destroys it at
 * the end of a block, and `String(t)` says what it is.
 */
export class Tensor<D extends Dtype = Dtype> implements TensorSpec {
  readonly device: GPUDevice;
  readonly dtype: D;
  readonly shape: readonly number[];
  /** Elements from one index to the next along each axis. */
  readonly strides: readonly number[];
  /** Elements of the buffer before the first one. */
  readonly offset: number;
  readonly label: string;
  readonly #storage: Storage;

  private constructor(
    device: GPUDevice,
    storage: Storage,
    spec: Required<TensorSpec>,
    label: string,
  ) {
    this.device = device;
    this.dtype = spec.dtype as D;
    this.shape = spec.shape;
    this.strides = spec.strides;
    this.offset = spec.offset;
    this.label = label;
    this.#storage = storage;
    const extent = extentOf(spec.shape, spec.strides);
    // A tensor without elements begins nowhere, so that a slice of one is one, wherever the slice
    // would begin.
    const needed = extent && (spec.offset + extent) * BYTES[spec.dtype];
    check(
      Math.ceil(needed / 4) * 4 <= storage.buffer.size, // kernels bind whole words
      "argument",
      () =>
        `${label}: shape [${spec.shape}] with strides [${spec.strides}] from element ${spec.offset} on needs ${needed} bytes; the buffer has ${storage.buffer.size}.`,
    );
  }

  /**
   * @internal Makes `instanceof` ask the object itself, whatever its prototype or a proxy around it
   * says.
   */
  static [Symbol.hasInstance](value: unknown): value is Tensor {
    try {
      return typeof value === "object" && value !== null && #storage in value;
    } catch {
      return false; // a revoked proxy
    }
  }

  /** @internal Use {@link tensor}. */
  static make(
    device: GPUDevice,
    { value, done }: { value: GPUBuffer; done: Promise<void> },
    owned: boolean,
    spec: Required<TensorSpec>,
    label: string,
  ): Tensor {
    return new Tensor(device, storageOf(value, owned, done), spec, label);
  }

  /** The buffer that holds the elements. Throws FoveaError("destroyed") after `destroy()`. */
  get buffer(): GPUBuffer {
    check(!this.#storage.destroyed, "destroyed", () => `${this.label}: the tensor was destroyed.`);
    return this.#storage.buffer;
  }

  /** Number of elements. */
  get size(): number {
    return countOf(this.shape);
  }

  /** Whether `destroy()` was called on this tensor or on one that it shares memory with. */
  get destroyed(): boolean {
    return this.#storage.destroyed;
  }

  /**
   * Settles when the memory is known to be there; rejects with FoveaError("out-of-memory") if the
   * GPU had none.
   */
  get allocated(): Promise<void> {
    return this.#storage.allocated;
  }

  /** @internal Why the tensor has no memory, if that is known by now. */
  get refused(): FoveaError | undefined {
    return this.#storage.refused;
  }

  /**
   * @internal Notes that commands were recorded which compute the tensors `written` from `all`:
   * their content is right if that of all of them is.
   */
  static tie(written: readonly Tensor[], all: readonly Tensor[]): void {
    for (const one of written) one.#forget();
    for (const one of all) {
      for (const wait of one.#storage.open)
        for (const target of written) waitFor(target.#storage, wait);
    }
  }

  /** @internal Makes a plan live as long as this tensor's memory. */
  keep(plan: { destroy(): void }): void {
    this.#storage.plans ??= [];
    this.#storage.plans.push(plan);
  }

  /**
   * Another tensor over the same memory. Strides and offset count elements; the offset is from this
   * tensor's first element. Nothing is copied.
   */
  view(spec: {
    shape: readonly number[];
    strides?: readonly number[];
    offset?: number;
    label?: string;
  }): Tensor<D> {
    const given =
      spec instanceof Tensor
        ? { shape: spec.shape, strides: spec.strides, offset: spec.offset, label: spec.label }
        : spec;
    const { label, ...taken } = opened<Omit<TensorSpec, "dtype"> & { label?: string }>(
      this.label,
      given,
      VIEW_NAMES,
    );
    const { shape, strides, offset } = resolveSpec(label, { ...taken, dtype: this.dtype });
    const moved = { shape, strides, offset: this.offset + offset, dtype: this.dtype };
    return new Tensor<D>(this.device, this.#storage, moved, label);
  }

  /**
   * The same elements with the axes in another order: `permute(0, 2, 1, 3)` turns BMHD into BHMD.
   */
  permute(...axes: number[]): Tensor<D> {
    check(
      axes.length === this.shape.length && this.shape.every((_, axis) => axes.includes(axis)),
      "argument",
      () =>
        `${this.label}.permute: expected each of the axes 0..${this.shape.length - 1} once, got ${show(axes)}.`,
    );
    return this.view({
      shape: axes.map((a) => this.shape[a]),
      strides: axes.map((a) => this.strides[a]),
    });
  }

  /** The elements `start` up to but not including `end` of an axis. */
  slice(axis: number, start: number, end: number): Tensor<D> {
    check(
      [axis, start, end].every(Number.isInteger) &&
        0 <= start &&
        start <= end &&
        end <= this.shape[axis],
      "argument",
      () =>
        `${this.label}.slice: no range ${show(start)}..${show(end)} of axis ${show(axis)} in shape [${this.shape}].`,
    );
    return this.view({
      shape: this.shape.map((size, a) => (a === axis ? end - start : size)),
      strides: this.strides,
      offset: start * this.strides[axis],
    });
  }

  /**
   * The elements in row-major order, copied to the CPU: f32, f16 and bf16 as Float32Array, u32 as
   * Uint32Array, i32 as Int32Array, u8 as Uint8Array. Waits for everything submitted before.
   *
   * Rejects with FoveaError, also if memory was refused (`"out-of-memory"`) to any tensor that this
   * one was computed from.
   */
  async read(): Promise<ValuesOf<D>> {
    const buffer = this.#usable("read", USAGE.COPY_SRC, "COPY_SRC");
    const storage = this.#storage;
    if (storage.writing) await storage.writing;
    const { device, dtype, shape, strides, label } = this;
    const bytes = BYTES[dtype];
    const extent = extentOf(shape, strides);
    // Copies start and end at multiples of 4 bytes.
    const first = Math.floor((this.offset * bytes) / 4) * 4;
    const size = extent && Math.ceil(((this.offset + extent) * bytes) / 4) * 4 - first;
    const what = `${label}.read`;
    const copy = size ? copyOut(device, buffer, first, size, what) : undefined;
    try {
      await settle([...storage.open, copy?.done]);
      const copied = copy ? await mappedBytes(device, copy.value, what) : new ArrayBuffer(0);
      return decode(label, copied, {
        dtype,
        shape,
        strides,
        offset: this.offset - first / bytes,
      }) as ValuesOf<D>;
    } finally {
      copy?.value.destroy();
    }
  }

  /**
   * Gives all elements other values, as `tensor` does its `data`: converted to the dtype, laid out
   * by the strides. `data` is copied at the call, and what is submitted afterwards finds the new
   * values. Elements that do not lie one after the other, or share a 32-bit word with others, are
   * the exception: their memory is read first, so await the promise before any other work writes
   * near them.
   *
   * Rejects with FoveaError, and then has written nothing: for data that does not fit, elements
   * that share memory (`"overlap"`), a buffer without GPUBufferUsage.COPY_DST, and what the GPU
   * reports.
   *
   * @example
   * await q.write(new Float32Array(q.size));
   */
  async write(data: TensorData): Promise<void> {
    const buffer = this.#usable("write", USAGE.COPY_DST, "COPY_DST");
    const { device, dtype, shape, strides, label } = this;
    const what = `${label}.write`;
    const bytes = BYTES[dtype];
    const first = Math.floor((this.offset * bytes) / 4) * 4;
    const end = (this.offset + extentOf(shape, strides)) * bytes;
    const spec = { dtype, shape, strides, offset: this.offset - first / bytes };
    const encoded = encode(what, data, spec, Math.ceil((end - first) / 4) * 4);
    if (!this.size) return;
    const storage = this.#storage;
    if (isContiguous(shape, strides) && !spec.offset && end % 4 === 0) {
      const { done } = guarded(device, what, () =>
        device.queue.writeBuffer(buffer, first, encoded.bytes),
      );
      this.#forget();
      return settle([storage.allocated, done]);
    }
    const before = settle(storage.open);
    const done = before.then(() => writeAmong(device, what, buffer, first, encoded, spec));
    waitFor(storage, done);
    storage.writing = done;
    await done;
  }

  /**
   * Frees the memory if Fovea allocated it; a buffer of the caller's is left alone. Either way this
   * tensor and all tensors that share its memory are unusable afterwards.
   */
  destroy(): void {
    free(this.#storage);
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  get [Symbol.toStringTag](): string {
    return `Tensor ${this.label}: ${this.dtype} [${this.shape.join(", ")}]`;
  }

  toString(): string {
    return this[Symbol.toStringTag];
  }

  /** Forgets the failures of earlier writes if this tensor is all of its memory. */
  #forget(): void {
    const storage = this.#storage;
    if (this.size * BYTES[this.dtype] > storage.buffer.size - 4) forget(storage);
  }

  /** The buffer, for a method that needs it to have a usage. Throws FoveaError if it lacks it. */
  #usable(method: string, usage: number, name: string): GPUBuffer {
    const buffer = this.buffer;
    checkDevice(this.device);
    check(
      (buffer.usage & usage) !== 0,
      "argument",
      () => `${this.label}.${method}: the buffer was created without GPUBufferUsage.${name}.`,
    );
    return buffer;
  }
}

/** A tensor whose elements are read as a Float32Array. */
export type FloatTensor = Tensor<FloatDtype>;
