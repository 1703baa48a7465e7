// The memory of contiguous caches: how it is laid out, and copies of rows within and between them.

import { USAGE } from "../gpu/buffers.ts";
import { BYTES } from "../gpu/elements.ts";
import { type Tensor, tensor } from "../gpu/tensor.ts";
import { kvAccess } from "../kernels/kv_access.ts";
import type { CacheRotary } from "./cache_append_problem.ts";
import type { ResolvedCache, ResolvedRows } from "./cache_options.ts";
import type { KvSource } from "./kv_source.ts";
import { checkBindingLimit } from "./specs.ts";

/** Memory for keys and values, and what attention has to know of it. */
export function sourceOf(device: GPUDevice, resolved: ResolvedCache, state: Tensor): KvSource {
  const { label, batch, kvHeads, headDim, vDim, capacity, window, ring, sinkTokens, rows } = resolved;
  const { dtype, quantised } = rows;
  const count = ring > 0 ? sinkTokens + ring : capacity;
  const shape = (elements: number) => [batch, kvHeads, count, elements];
  for (const [name, elements] of [
    ["k", rows.kElements],
    ["v", rows.vElements],
  ] as const) {
    const strides = [kvHeads * count * elements, count * elements, elements, 1];
    checkBindingLimit(label, name, device, { shape: shape(elements), strides, offset: 0, dtype });
  }
  const allocate = (name: string, elements: number, dim: number) => {
    const padded = tensor(device, shape(elements), { dtype, label: `${label} ${name}` });
    // Rows end in padding that is no part of them.
    return quantised ? padded : padded.slice(3, 0, dim);
  };
  const place = ring > 0 ? ("ring" as const) : ("rows" as const);
  const layout = { place, sinkTokens: ring > 0 ? sinkTokens : 0, ring, pageSize: 0, ...(quantised && { quantised }) };
  const k = allocate("k", rows.kElements, headDim);
  try {
    const v = allocate("v", rows.vElements, vDim);
    return {
      ...{ batch, kvHeads, headDim, vDim, capacity, k, v, state },
      pagesPerEntry: 0,
      ...(window !== undefined && { window }),
      ...layout,
      access: kvAccess(layout),
    };
  } catch (error) {
    k.destroy();
    throw error;
  }
}

/** A copy of the angles of a rotary embedding. */
export function copyRotary(device: GPUDevice, label: string, { choice, angles }: CacheRotary): CacheRotary {
  const copy = tensor(device, angles.shape, { label: `${label} angles` });
  const encoder = device.createCommandEncoder({ label });
  encoder.copyBufferToBuffer(angles.buffer, 0, copy.buffer, 0, angles.buffer.size);
  device.queue.submit([encoder.finish()]);
  return { choice, angles: copy };
}

/** What is copied: the first rows of every head. */
export interface CopyPlan {
  readonly batch: number;
  readonly kvHeads: number;
  readonly used: number;
  readonly rows: ResolvedRows;
}

/** Bytes of a row of k and of v. */
const rowBytes = ({ dtype, kElements, vElements }: ResolvedRows) => ({
  k: kElements * BYTES[dtype],
  v: vElements * BYTES[dtype],
});

/** Records copies of the used rows of one cache to another, which may have another number of rows. */
export function copyRows(encoder: GPUCommandEncoder, plan: CopyPlan, from: KvSource, to: KvSource): void {
  const bytes = rowBytes(plan.rows);
  if (plan.used === 0) return;
  for (const name of ["k", "v"] as const) {
    const [source, target] = [from[name], to[name]];
    for (let head = 0; head < plan.batch * plan.kvHeads; head++) {
      const at = ({ shape }: typeof source) => head * shape[2] * bytes[name];
      encoder.copyBufferToBuffer(source.buffer, at(source), target.buffer, at(target), plan.used * bytes[name]);
    }
  }
}

/**
 * Records copies of an entry's used rows and length to another entry. WebGPU copies nothing within a buffer, so they go
 * through buffers that the caller frees once this is submitted.
 */
export function copyEntryRows(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  { kvHeads, used, rows }: CopyPlan,
  { source }: { readonly source: KvSource },
  from: number,
  to: number,
): GPUBuffer[] {
  const bytes = rowBytes(rows);
  const made: GPUBuffer[] = [];
  const move = (buffer: GPUBuffer, places: readonly (readonly [from: number, to: number])[], size: number) => {
    if (size === 0) return;
    const usage = USAGE.COPY_SRC | USAGE.COPY_DST;
    const between = device.createBuffer({ label: "cache entry", size: size * places.length, usage });
    made.push(between);
    for (const [index, [begin]] of places.entries()) {
      encoder.copyBufferToBuffer(buffer, begin, between, index * size, size);
    }
    for (const [index, [, end]] of places.entries()) {
      encoder.copyBufferToBuffer(between, index * size, buffer, end, size);
    }
  };
  for (const name of ["k", "v"] as const) {
    const head = source[name].shape[2] * bytes[name];
    const places = Array.from({ length: kvHeads }, (_, h) => {
      return [(from * kvHeads + h) * head, (to * kvHeads + h) * head] as const;
    });
    move(source[name].buffer, places, used * bytes[name]);
  }
  const lengthAt = (entry: number) => 4 * (1 + entry);
  move(source.state.buffer, [[lengthAt(from), lengthAt(to)]], 4);
  return made;
}
