// The state of a cache on the GPU: lengths, page tables, and the counts of an append; and the
// commands that change it.

import { check } from "../errors.ts";
import { guarded, USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { type CompiledKernel, compileKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { ADVANCE, ADVANCE_PARAMS, advanceKernel } from "../kernels/cache.ts";
import {
  cacheWriteKernel,
  digitBytes,
  digitOffset,
  NUMBER_LIMIT,
  placeDigits,
} from "../kernels/cache_pages.ts";

/** Bytes of the params of cache_advance; `UNIFORM_STRIDE` is their distance in a buffer. */
export const ADVANCE_BYTES = ADVANCE_PARAMS.bytes;
const UNIFORM_STRIDE = 256;

/** Lengths and counts are below this, so that commands have room for them. */
export const STATE_LIMIT = NUMBER_LIMIT;

/**
 * Workgroups of a dispatch in one dimension, on any device: the most words that one command writes.
 */
export const LONGEST_RUN = 65535;

/** Words of the state before the counts. */
export const countsAt = (batch: number, pagesPerEntry: number): number =>
  1 + batch * (1 + pagesPerEntry);

/**
 * Throws FoveaError("limit") if a state has more words than commands can name.
 *
 * @param what The beginning of the message
 * @param advice The end of the message
 */
export function checkStateSize(
  what: string,
  advice: string,
  batch: number,
  pagesPerEntry: number,
): void {
  const words = countsAt(batch, pagesPerEntry) + batch;
  check(
    words <= NUMBER_LIMIT,
    "limit",
    () => `${what} are more than ${NUMBER_LIMIT} words. ${advice}`,
  );
}

/** The kernels by which all caches on a device change their state. */
interface StateKernels {
  readonly write: CompiledKernel;
  readonly advance: CompiledKernel;
}

/**
 * The words [1 + pagesPerEntry | for each entry its length and its pages | counts of each entry],
 * and the commands that change them: numbers travel in the commands, so that changes happen in the
 * order of encoding.
 */
export class CacheState {
  /** The words of the state, i32. */
  readonly tensor: Tensor;
  readonly batch: number;
  readonly pagesPerEntry: number;
  readonly #kernels: StateKernels;
  /** Every digit of numbers, and behind them the params of `limitLengths`. */
  readonly #digits: GPUBuffer;
  readonly #writeGroup: GPUBindGroup;
  readonly #limitGroup: GPUBindGroup;
  readonly #offsets = new Uint32Array(7);

  private constructor(
    device: GPUDevice,
    label: string,
    batch: number,
    pagesPerEntry: number,
    kernels: StateKernels,
  ) {
    this.batch = batch;
    this.pagesPerEntry = pagesPerEntry;
    this.#kernels = kernels;
    const data = new Int32Array(this.countsAt + batch);
    data[0] = 1 + pagesPerEntry;
    this.tensor = tensor(device, [data.length], { dtype: "i32", data, label: `${label} state` });
    const digits = digitBytes();
    const size = digits.byteLength + UNIFORM_STRIDE;
    const bytes = new ArrayBuffer(size);
    new Uint8Array(bytes).set(new Uint8Array(digits));
    ADVANCE_PARAMS.pack(this.advanceParams("limit", 0), bytes, digits.byteLength);
    this.#digits = device.createBuffer({
      label: `${label} numbers`,
      size,
      usage: USAGE.UNIFORM | USAGE.COPY_DST,
    });
    device.queue.writeBuffer(this.#digits, 0, bytes);
    const digit = { buffer: this.#digits, size: 4 };
    this.#writeGroup = device.createBindGroup({
      label: `${label} write`,
      layout: kernels.write.layout,
      entries: cacheWriteKernel().bindings.map(({ binding, type }) => ({
        binding,
        resource: type === "uniform" ? digit : { buffer: this.tensor.buffer },
      })),
    });
    this.#limitGroup = this.advanceGroup(device, label, this.#digits, digits.byteLength);
  }

  /** Compiles the kernels that change a state, and makes a state with all lengths 0. */
  static async make(
    device: GPUDevice,
    label: string,
    batch: number,
    pagesPerEntry: number,
  ): Promise<CacheState> {
    const [write, advance] = await Promise.all([
      compileKernel(device, cacheWriteKernel()),
      compileKernel(device, advanceKernel()),
    ]);
    const { value: state, done } = guarded(device, label, () => {
      return new CacheState(device, label, batch, pagesPerEntry, { write, advance });
    });
    try {
      await ready(done, [state.tensor]);
      return state;
    } catch (error) {
      state.destroy();
      throw error;
    }
  }

  /** The first word of the counts. */
  get countsAt(): number {
    return countsAt(this.batch, this.pagesPerEntry);
  }

  get bytes(): number {
    return this.tensor.buffer.size + this.#digits.size;
  }

  advanceParams(operation: keyof typeof ADVANCE, rows: number) {
    return { operation: ADVANCE[operation], batch: this.batch, counts_at: this.countsAt, rows };
  }

  /** A bind group for `advance`, with params at `offset` of a uniform buffer. */
  advanceGroup(device: GPUDevice, label: string, params: GPUBuffer, offset: number): GPUBindGroup {
    return device.createBindGroup({
      label: `${label} advance`,
      layout: this.#kernels.advance.layout,
      entries: [
        { binding: 0, resource: { buffer: params, offset, size: ADVANCE_BYTES } },
        { binding: 12, resource: { buffer: this.tensor.buffer } },
      ],
    });
  }

  /** Records a run of cache_advance. */
  advance(pass: GPUComputePassEncoder, group: GPUBindGroup, offset: number): void {
    pass.setPipeline(this.#kernels.advance.pipeline);
    pass.setBindGroup(0, group, [offset]);
    pass.dispatchWorkgroups(1);
  }

  /**
   * Records that `count` words from `at` on become `value`, `value + step`, ...; `step` is 0 or 1.
   */
  write(pass: GPUComputePassEncoder, at: number, count: number, value: number, step = 0): void {
    placeDigits(at, this.#offsets, 0);
    placeDigits(value, this.#offsets, 3);
    this.#offsets[6] = digitOffset(step);
    pass.setPipeline(this.#kernels.write.pipeline);
    pass.setBindGroup(0, this.#writeGroup, this.#offsets, 0, this.#offsets.length);
    pass.dispatchWorkgroups(count);
  }

  /**
   * Records that each entry gets a count: entries in a row that have the same take one dispatch.
   */
  writeCounts(pass: GPUComputePassEncoder, counts: readonly number[]): void {
    for (let first = 0; first < counts.length; ) {
      let end = first + 1;
      while (end < counts.length && end - first < LONGEST_RUN && counts[end] === counts[first])
        end++;
      this.write(pass, this.countsAt + first, end - first, counts[first]);
      first = end;
    }
  }

  /** Records that entries longer than their limit get that length. */
  limitLengths(pass: GPUComputePassEncoder, limits: readonly number[]): void {
    this.writeCounts(pass, limits);
    this.advance(pass, this.#limitGroup, 0);
  }

  destroy(): void {
    this.tensor.destroy();
    this.#digits.destroy();
  }
}

/**
 * Waits for memory, and for the commands that use it. Rejects with the first error: commands that
 * use refused memory are invalid, too.
 */
export async function ready(done: Promise<void>, tensors: readonly Tensor[]): Promise<void> {
  const outcomes = await Promise.allSettled([...tensors.map((used) => used.allocated), done]);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
