// A ring of buffers through which a number of each run comes back while later runs go on.

import { USAGE } from "../gpu/buffers.ts";
import { mappedBytes } from "../gpu/read.ts";
import type { Tensor } from "../gpu/tensor.ts";

const BYTES = 4;

interface Slot {
  readonly buffer: GPUBuffer;
  /** Settles when the slot may be written again. */
  free: Promise<unknown>;
}

/** Reads one f32 at a time. */
export class Readback {
  readonly #device: GPUDevice;
  readonly #label: string;
  readonly #slots: readonly Slot[];
  #next = 0;

  /** @param slots How many numbers may be on their way at a time */
  constructor(device: GPUDevice, label: string, slots: number) {
    this.#device = device;
    this.#label = `${label} readback`;
    this.#slots = Array.from({ length: slots }, () => ({
      buffer: device.createBuffer({
        label: this.#label,
        size: BYTES,
        usage: USAGE.MAP_READ | USAGE.COPY_DST,
      }),
      free: Promise.resolve(),
    }));
  }

  /** Settles when there is a slot for another number. */
  get ready(): Promise<unknown> {
    return this.#slots[this.#next].free;
  }

  /**
   * Records the copy of a number into the next slot, which has to be free. Call what it gives once
   * the commands are submitted: it resolves to the number.
   */
  record(encoder: GPUCommandEncoder, { buffer, offset }: Tensor): () => Promise<number> {
    const slot = this.#slots[this.#next];
    this.#next = (this.#next + 1) % this.#slots.length;
    encoder.copyBufferToBuffer(buffer, offset * BYTES, slot.buffer, 0, BYTES);
    return () => {
      const read = mappedBytes(this.#device, slot.buffer, this.#label).then(
        (bytes) => new Float32Array(bytes)[0],
      );
      slot.free = read.catch(() => undefined);
      return read;
    };
  }

  destroy(): void {
    for (const { buffer } of this.#slots) buffer.destroy();
  }
}
