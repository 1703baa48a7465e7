// The pages of a cache on the GPU: the memory of keys and values, and copies of pages within it.

import { guarded, USAGE } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import { type CompiledKernel, compileKernel } from "../../gpu/pipelines.ts";
import { denseStrides, type Tensor } from "../../gpu/tensor.ts";
import {
  cacheCopyGrid,
  cacheCopyKernel,
  digitBytes,
  placeDigits,
} from "../../kernels/cache_pages.ts";
import { ready } from "../state.ts";
import type { ResolvedPagedCache } from "./options.ts";
import type { PageCopy } from "./pages.ts";

/** Bytes from one number in the uniform buffer to the next. */
const UNIFORM_STRIDE = 256;

/** How pages of k, or of v, are copied. */
interface Copying {
  readonly group: GPUBindGroup;
  readonly grid: { readonly x: number; readonly y: number };
}

/** Keys and values of all pages. */
export class PageMemory {
  /** [pages, Hkv, pageSize, D], rows padded as the cache stores them. */
  readonly k: Tensor;
  /** [pages, Hkv, pageSize, Dv] */
  readonly v: Tensor;
  readonly #copy: CompiledKernel;
  readonly #copying: readonly Copying[];
  /** Every digit of numbers, and behind them how many words a page of k and of v has. */
  readonly #numbers: GPUBuffer;
  readonly #offsets = new Uint32Array(6);

  private constructor(device: GPUDevice, cache: ResolvedPagedCache, copy: CompiledKernel) {
    const { label, pages, kvHeads, pageSize, headDim, vDim, rows } = cache;
    const made = (name: string, dim: number, elements: number) => {
      const stored = [pages, kvHeads, pageSize, elements];
      const whole = tensor(device, stored, { dtype: rows.dtype, label: `${label} ${name}` });
      return rows.quantised
        ? whole
        : whole.view({ shape: [pages, kvHeads, pageSize, dim], strides: denseStrides(stored) });
    };
    this.k = made("k", headDim, rows.kElements);
    try {
      this.v = made("v", vDim, rows.vElements);
    } catch (error) {
      this.k.destroy();
      throw error;
    }
    const digits = digitBytes();
    const bytes = new ArrayBuffer(digits.byteLength + 2 * UNIFORM_STRIDE);
    new Uint8Array(bytes).set(new Uint8Array(digits));
    const usage = USAGE.UNIFORM | USAGE.COPY_DST;
    this.#numbers = device.createBuffer({
      label: `${label} numbers`,
      size: bytes.byteLength,
      usage,
    });
    this.#copy = copy;
    this.#copying = [this.k, this.v].map(({ buffer }, index) => {
      const words = buffer.size / 4 / pages;
      const offset = digits.byteLength + index * UNIFORM_STRIDE;
      new DataView(bytes).setUint32(offset, words, true);
      const entries = cacheCopyKernel().bindings.map(
        ({ binding, name, dynamic }): GPUBindGroupEntry => {
          if (name === "pages") return { binding, resource: { buffer } };
          return {
            binding,
            resource: { buffer: this.#numbers, offset: dynamic ? 0 : offset, size: 4 },
          };
        },
      );
      const group = device.createBindGroup({
        label: `${label} copy`,
        layout: copy.layout,
        entries,
      });
      return { group, grid: cacheCopyGrid(words, device.limits.maxComputeWorkgroupsPerDimension) };
    });
    device.queue.writeBuffer(this.#numbers, 0, bytes);
  }

  /**
   * Makes the memory for all pages, waits until it is known to be there, and compiles the kernel
   * that copies pages.
   */
  static async make(device: GPUDevice, cache: ResolvedPagedCache): Promise<PageMemory> {
    const copy = await compileKernel(device, cacheCopyKernel());
    const { value: memory, done } = guarded(
      device,
      cache.label,
      () => new PageMemory(device, cache, copy),
    );
    try {
      await ready(done, [memory.k, memory.v]);
      return memory;
    } catch (error) {
      memory.destroy();
      throw error;
    }
  }

  /** Bytes on the GPU. */
  get bytes(): number {
    return this.k.buffer.size + this.v.buffer.size + this.#numbers.size;
  }

  /** Records copies of pages. */
  copy(pass: GPUComputePassEncoder, copies: readonly PageCopy[]): void {
    if (copies.length === 0) return;
    pass.setPipeline(this.#copy.pipeline);
    for (const { from, to } of copies) {
      placeDigits(from, this.#offsets, 0);
      placeDigits(to, this.#offsets, 3);
      for (const { group, grid } of this.#copying) {
        pass.setBindGroup(0, group, this.#offsets, 0, this.#offsets.length);
        pass.dispatchWorkgroups(grid.x, grid.y);
      }
    }
  }

  destroy(): void {
    this.k.destroy();
    this.v.destroy();
    this.#numbers.destroy();
  }
}
