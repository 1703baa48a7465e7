// A ring of buffers through which a few tensors of each run come back while later runs go on.

import { USAGE } from "./buffers.ts";
import { mappedBytes } from "./read.ts";
import { BYTES } from "./shapes.ts";
import type { Tensor } from "./tensor.ts";

interface Slot {
  readonly buffer: GPUBuffer;
  /** Settles when the slot may be written again. */
  free: Promise<unknown>;
}

/** Bytes of the elements of a tensor that lie one after the other. */
const bytesOf = ({ size, dtype }: Tensor) => size * BYTES[dtype];

/** Reads the same tensors after each run. */
export class Readback {
  readonly #device: GPUDevice;
  readonly #label: string;
  readonly #tensors: readonly Tensor[];
  readonly #slots: readonly Slot[];
  #next = 0;

  /**
   * @param slots How many reads may be on their way at a time
   * @param tensors Dense, of whole words, and each at the start of a word
   */
  constructor(device: GPUDevice, label: string, slots: number, tensors: readonly Tensor[]) {
    this.#device = device;
    this.#label = `${label} readback`;
    this.#tensors = tensors;
    const size = tensors.reduce((sum, one) => sum + bytesOf(one), 0);
    this.#slots = Array.from({ length: slots }, () => ({
      buffer: device.createBuffer({
        label: this.#label,
        size,
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
   * Records the copy of the tensors into the next slot, which has to be free. Call what it gives
   * once the commands are submitted: it resolves to their bytes, one tensor after the other.
   */
  record(encoder: GPUCommandEncoder): () => Promise<ArrayBuffer> {
    const slot = this.#slots[this.#next];
    this.#next = (this.#next + 1) % this.#slots.length;
    let at = 0;
    for (const one of this.#tensors) {
      const bytes = bytesOf(one);
      encoder.copyBufferToBuffer(one.buffer, one.offset * BYTES[one.dtype], slot.buffer, at, bytes);
      at += bytes;
    }
    return () => {
      const read = mappedBytes(this.#device, slot.buffer, this.#label);
      slot.free = read.catch(() => undefined);
      return read;
    };
  }

  destroy(): void {
    for (const { buffer } of this.#slots) buffer.destroy();
  }
}
