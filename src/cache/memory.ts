// The memory of contiguous caches: how it is laid out, and copies of rows within and between them.

import type { KvSource } from "../attention/kv_source.ts";
import { check } from "../errors.ts";
import { USAGE } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { kvAccess } from "../kernels/kv_access.ts";
import { checkBindingLimit } from "../plan/specs.ts";
import type { CacheRotary } from "./append_problem.ts";
import type { ResolvedCache, ResolvedRows } from "./resolved.ts";

/** Rows of a head that a cache has. */
const rowsOf = ({ capacity, ring, sinkTokens }: ResolvedCache) =>
  ring > 0 ? sinkTokens + ring : capacity;

/**
 * Throws FoveaError("limit") if the device cannot have the keys and values of a contiguous cache.
 */
export function checkCacheMemory(device: GPUDevice, resolved: ResolvedCache): void {
  const { label, batch, kvHeads, rows } = resolved;
  checkRowMemory(device, label, batch * kvHeads * rowsOf(resolved), rows);
}

/** Throws FoveaError("limit") if the device cannot have so many rows of k and of v. */
export function checkRowMemory(
  device: GPUDevice,
  label: string,
  count: number,
  rows: ResolvedRows,
): void {
  const { dtype, kElements, vElements } = rows;
  const sizes = { k: kElements, v: vElements };
  for (const [name, elements] of Object.entries(sizes)) {
    const spec = { shape: [count, elements], strides: [elements, 1], offset: 0, dtype };
    checkBindingLimit(label, name, device, spec);
    const bytes = count * elements * BYTES[dtype];
    const { maxBufferSize } = device.limits;
    check(
      bytes <= maxBufferSize,
      "limit",
      () =>
        `${label}: ${name} has ${bytes} bytes, which are more than this device's maxBufferSize of ${maxBufferSize}. requestFoveaDevice asks for the adapter's highest.`,
    );
  }
}

/** Makes memory for keys and values, and describes it for attention. */
export function sourceOf(device: GPUDevice, resolved: ResolvedCache, state: Tensor): KvSource {
  const { label, batch, kvHeads, headDim, vDim, capacity, window, ring, sinkTokens, rows } =
    resolved;
  checkCacheMemory(device, resolved);
  const { dtype, quantised } = rows;
  const count = rowsOf(resolved);
  const shape = (elements: number) => [batch, kvHeads, count, elements];
  const allocate = (name: string, elements: number, dim: number) => {
    const padded = tensor(device, shape(elements), { dtype, label: `${label} ${name}` });
    // Rows end in padding that isn't part of the tensors.
    return quantised ? padded : padded.slice(3, 0, dim);
  };
  const place = ring > 0 ? ("ring" as const) : ("rows" as const);
  const layout = {
    place,
    sinkTokens: ring > 0 ? sinkTokens : 0,
    ring,
    pageSize: 0,
    ...(quantised && { quantised }),
  };
  const k = allocate("k", rows.kElements, headDim);
  try {
    const v = allocate("v", rows.vElements, vDim);
    return {
      batch,
      kvHeads,
      headDim,
      vDim,
      capacity,
      k,
      v,
      state,
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

/** Memory for a copy of the angles of a rotary embedding. */
export function likeRotary(
  device: GPUDevice,
  label: string,
  { choice, angles }: CacheRotary,
): CacheRotary {
  return { choice, angles: tensor(device, angles.shape, { label: `${label} angles` }) };
}

/** Records a copy of all of a tensor's memory, if there is one. */
export function copyAll(
  encoder: GPUCommandEncoder,
  from: Tensor | undefined,
  to: Tensor | undefined,
): void {
  if (from && to) encoder.copyBufferToBuffer(from.buffer, 0, to.buffer, 0, from.buffer.size);
}

/** What is copied of a cache: the first rows of every head. */
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

/**
 * Records copies of the used rows of one cache to another, which may have another number of rows.
 */
export function copyRows(
  encoder: GPUCommandEncoder,
  plan: CopyPlan,
  from: KvSource,
  to: KvSource,
): void {
  const bytes = rowBytes(plan.rows);
  if (plan.used === 0) return;
  for (const name of ["k", "v"] as const) {
    const source = from[name];
    const target = to[name];
    for (let head = 0; head < plan.batch * plan.kvHeads; head++) {
      const at = ({ shape }: typeof source) => head * shape[2] * bytes[name];
      encoder.copyBufferToBuffer(
        source.buffer,
        at(source),
        target.buffer,
        at(target),
        plan.used * bytes[name],
      );
    }
  }
}

/**
 * The most bytes of the buffer through which entries move; they are copied in parts of this size.
 */
const BETWEEN_BYTES = 2 ** 24;

/**
 * Records copies that give entries the used rows and the lengths of others: entry i gets those of
 * `sources[i]`, in any mapping. WebGPU copies nothing within a buffer, so rows go through another
 * buffer, which the caller frees after the submission: a part of every entry that moves is copied
 * there before it is written anywhere. Returns undefined if no entry moves.
 *
 * @param most Bytes of that buffer
 */
export function copyEntries(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  { kvHeads, used, rows }: CopyPlan,
  { source }: { readonly source: KvSource },
  sources: readonly number[],
  most = BETWEEN_BYTES,
): GPUBuffer | undefined {
  const moves = sources.map((from, to) => ({ from, to })).filter(({ from, to }) => from !== to);
  if (moves.length === 0) return undefined;
  const bytes = rowBytes(rows);
  const froms = [...new Set(moves.map(({ from }) => from))];
  const places = new Map(froms.map((from, index) => [from, index]));
  const largest = Math.max(4, used * Math.max(bytes.k, bytes.v));
  // Copies move whole words, and rows are whole words.
  const part = Math.min(largest, 4 * Math.max(1, Math.floor(most / froms.length / 4)));
  const usage = USAGE.COPY_SRC | USAGE.COPY_DST;
  const between = device.createBuffer({ label: "cache entries", size: part * froms.length, usage });
  const move = (buffer: GPUBuffer, at: (entry: number) => number, size: number) => {
    for (let begin = 0; begin < size; begin += part) {
      const copied = Math.min(part, size - begin);
      for (const [from, place] of places) {
        encoder.copyBufferToBuffer(buffer, at(from) + begin, between, place * part, copied);
      }
      for (const { from, to } of moves) {
        const place = places.get(from) as number;
        encoder.copyBufferToBuffer(between, place * part, buffer, at(to) + begin, copied);
      }
    }
  };
  for (const name of ["k", "v"] as const) {
    const head = source[name].shape[2] * bytes[name];
    for (let h = 0; h < kvHeads; h++) {
      move(source[name].buffer, (entry) => (entry * kvHeads + h) * head, used * bytes[name]);
    }
  }
  move(source.state.buffer, (entry) => 4 * (1 + entry), 4);
  return between;
}
