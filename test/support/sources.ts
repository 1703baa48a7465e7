// Caches made by hand, as attention reads them: keys and values of a test at their places in
// memory, the rest poisoned.

import type { KvSource } from "../../src/attention/kv_source.ts";
import { type Tensor, tensor } from "../../src/index.ts";
import { type KvLayout, kvAccess } from "../../src/kernels/kv_access.ts";
import { normal } from "../../src/reference/random.ts";
import { type Float, product, ROUND } from "./cases.ts";

export interface SourceSpec extends KvLayout {
  readonly B: number;
  readonly Hkv: number;
  readonly D: number;
  readonly Dv?: number;
  readonly capacity: number;
  /** Keys of each entry. */
  readonly lengths: readonly number[];
  readonly dtype?: Float;
  readonly spread?: number;
  readonly seed?: number;
}

/** Makes a row of integers and scales, and the numbers that it stands for. */
function quantisedRow(row: Float32Array, bits: 8 | 4, group: number) {
  const most = bits === 8 ? 127 : 7;
  const scales = Math.ceil(row.length / group);
  const words = new Uint32Array(scales + Math.ceil((row.length * bits) / 32));
  const values = new Float32Array(row.length);
  const floats = new Float32Array(words.buffer);
  for (let g = 0; g < scales; g++) {
    const part = row.subarray(g * group, (g + 1) * group);
    floats[g] = Math.max(...part.map(Math.abs)) / most;
    part.forEach((x, i) => {
      const integer = Math.round(x / floats[g]);
      const at = g * group + i;
      values[at] = integer * floats[g];
      const place = (at * bits) % 32;
      words[scales + Math.floor((at * bits) / 32)] |= (integer & (2 ** bits - 1)) << place;
    });
  }
  return { words, values };
}

/** Makes a source, and its keys and values as the reference takes them, [B, Hkv, capacity, D]. */
export function makeSource(device: GPUDevice, spec: SourceSpec) {
  const { B, Hkv, D, Dv = D, capacity, lengths, dtype = "f32", seed = 1, place, quantised } = spec;
  const { pageSize = 0, sinkTokens = 0, ring = 0 } = spec;
  const pagesPerEntry = place === "paged" ? Math.ceil(capacity / pageSize) : 0;
  const pages = B * pagesPerEntry;
  const rows = place === "rows" ? capacity : place === "ring" ? sinkTokens + ring : pageSize;
  const outer = place === "paged" ? pages : B;
  // Pages are out of order: a page of an entry is far from its page before.
  const pageOf = (b: number, page: number) => ((b + page * B) * 7 + 3) % pages;
  const placeOf = (b: number, j: number) => {
    if (place === "paged") return [pageOf(b, Math.floor(j / pageSize)), j % pageSize];
    return [b, place === "ring" && j >= sinkTokens ? sinkTokens + ((j - sinkTokens) % ring) : j];
  };
  if (place === "paged" && pages % 7 === 0) throw new Error("pages must not be a multiple of 7");

  const made = (what: number, dim: number, group: number) => {
    const deviation = what === 0 ? (spec.spread ?? 1) : 1;
    const data = normal(seed * 8 + what, B * Hkv * capacity * dim, deviation).map(ROUND[dtype]);
    const width = quantised ? Math.ceil(dim / group) + Math.ceil((dim * quantised.bits) / 32) : dim;
    const shape = [outer, Hkv, rows, width];
    const memory = new Float32Array(product(shape)).fill(Number.NaN);
    const words = new Uint32Array(memory.buffer);
    for (let b = 0; b < B; b++) {
      for (let h = 0; h < Hkv; h++) {
        for (let j = 0; j < lengths[b]; j++) {
          const row = data.subarray(
            ((b * Hkv + h) * capacity + j) * dim,
            ((b * Hkv + h) * capacity + j + 1) * dim,
          );
          const [o, r] = placeOf(b, j);
          const at = ((o * Hkv + h) * rows + r) * width;
          if (quantised) {
            const stored = quantisedRow(row, quantised.bits, group);
            words.set(stored.words, at);
            row.set(stored.values);
          } else memory.set(row, at);
        }
      }
    }
    const gpu = quantised
      ? tensor(device, shape, { dtype: "u32", data: words })
      : tensor(device, shape, { dtype, data: memory });
    return { gpu, cpu: { data, shape: [B, Hkv, capacity, dim] } };
  };
  const k = made(0, D, quantised?.groupK ?? 0);
  const v = made(1, Dv, quantised?.groupV ?? 0);
  const state = [
    1 + pagesPerEntry,
    ...lengths.flatMap((length, b) => [
      length,
      ...Array.from({ length: pagesPerEntry }, (_, page) => pageOf(b, page)),
    ]),
  ];
  const source: KvSource = {
    place,
    batch: B,
    kvHeads: Hkv,
    headDim: D,
    vDim: Dv,
    capacity,
    k: k.gpu,
    v: v.gpu,
    state: tensor(device, [state.length], { dtype: "i32", data: state }),
    sinkTokens,
    ring,
    pageSize,
    pagesPerEntry,
    ...(quantised && { quantised }),
    access: kvAccess(spec),
  };
  return { source, k: k.cpu, v: v.cpu, destroy: () => destroyAll([k.gpu, v.gpu, source.state]) };
}

const destroyAll = (tensors: readonly Tensor[]) => {
  for (const one of tensors) one.destroy();
};
