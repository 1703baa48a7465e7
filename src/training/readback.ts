// A ring of buffers through which a few numbers of each run come back while later runs go on.

import { USAGE } from "../gpu/buffers.ts";
import { mappedBytes } from "../gpu/read.ts";
import type { Tensor } from "../gpu/tensor.ts";

const BYTES = 4;

interface Slot {
  readonly buffer: GPUBuffer;
  /** Settles when the slot may be written again. */
  free: Promise<unknown>;
}

/** Reads a few f32 at a time. */
export class Readback {
  readonly #device: GPUDevice;
  readonly #label: string;
  readonly #slots: readonly Slot[];
  #next = 0;

  /**
   * @param slots How many reads may be on their way at a time
   * @param numbers How many numbers each has
   */
  constructor(device: GPUDevice, label: string, slots: number, numbers: number) {
    this.#device = device;
    this.#label = `${label} readback`;
    this.#slots = Array.from({ length: slots }, () => ({
      buffer: device.createBuffer({
        label: this.#label,
        size: BYTES * numbers,
        usage: USAGE.MAP_READ | USAGE.COPY_DST,
      }),
      free: Promise.resolve(),
    }));
  }

  /** Settles when there is a slot for another read. */
  get ready(): Promise<unknown> {
    return this.#slots[this.#next].free;
  }

  /**
   * Records the copy of numbers into the next slot, which has to be free. Call what it gives once
   * the commands are submitted: it resolves to the numbers.
   */
  record(encoder: GPUCommandEncoder, numbers: readonly Tensor[]): () => Promise<Float32Array> {
    const slot = this.#slots[this.#next];
    this.#next = (this.#next + 1) % this.#slots.length;
    for (const [at, { buffer, offset }] of numbers.entries())
      encoder.copyBufferToBuffer(buffer, offset * BYTES, slot.buffer, at * BYTES, BYTES);
    return () => {
      const read = mappedBytes(this.#device, slot.buffer, this.#label).then(
        (bytes) => new Float32Array(bytes),
      );
      slot.free = read.catch(() => undefined);
      return read;
    };
  }

  destroy(): void {
    for (const { buffer } of this.#slots) buffer.destroy();
  }
}
