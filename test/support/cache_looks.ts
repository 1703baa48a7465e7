// Histories of caches compare the cache as it was at an attention, read back, and the result of
// that attention.

import type { KvSource } from "../../src/attention/kv_source.ts";
import type { CacheDtype, Tensor } from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { expectStored, type Row, StoredRows } from "./cache_rows.ts";
import { product } from "./cases.ts";
import { expectClose } from "./closeness.ts";

/** A token of the model. */
export interface Token {
  /** Rows of k, by heads. */
  readonly k: readonly Row[];
  readonly v: readonly Row[];
}

/** What is compared once the GPU has run: attention, and the cache as it was then. */
export interface Look {
  readonly step: number;
  readonly source: KvSource;
  /** Tokens of the entries of the batch. */
  readonly tokens: readonly (readonly Token[])[];
  /** The tokens that lie in memory: a ring loses the others. */
  readonly held: readonly ReadonlySet<Token>[];
  readonly q: { readonly data: Float32Array; readonly shape: readonly number[] };
  readonly options: ReferenceOptions;
  readonly output: Tensor;
  readonly lse: Tensor;
  readonly copies: readonly GPUBuffer[];
}

/**
 * Throws unless a cache was as the model has it, and its attention equals the reference's over what
 * lay there.
 */
export async function compareLook(device: GPUDevice, look: Look, dtype: CacheDtype): Promise<void> {
  const { source, tokens, held, q, options, output, lse } = look;
  const [kBytes, vBytes, stateBytes] = await Promise.all(
    look.copies.map((copy) => bytesOf(device, copy)),
  );
  const placeOf = placesOf(source, new Int32Array(stateBytes), tokens);
  const stored = { k: new StoredRows(source, "k", kBytes), v: new StoredRows(source, "v", vBytes) };
  const N = Math.max(1, ...tokens.map((list) => list.length));
  const keys = (which: "k" | "v") => {
    const { kvHeads, headDim, vDim, quantised } = source;
    const dim = which === "k" ? headDim : vDim;
    const group = (which === "k" ? quantised?.groupK : quantised?.groupV) ?? dim;
    const shape = [tokens.length, kvHeads, N, dim];
    const data = new Float64Array(product(shape)).fill(Number.NaN);
    for (const [b, list] of tokens.entries()) {
      for (const [j, token] of list.entries()) {
        if (!held[b].has(token)) continue;
        const [outer, at] = placeOf(b, j);
        for (let h = 0; h < kvHeads; h++) {
          const row = stored[which].row(outer, h, at);
          expectStored(
            `${which} of token ${j} of row ${b}, head ${h}`,
            row,
            token[which][h],
            dtype,
            group,
          );
          data.set(row.values, ((b * kvHeads + h) * N + j) * dim);
        }
      }
    }
    return { data, shape };
  };
  const k = keys("k");
  const v = keys("v");
  const f64 = reference(q, k, v, options);
  const plain = reference(q, k, v, { ...options, precision: "f32" });
  expectClose(
    "output",
    await output.read(),
    { f64: f64.output, plain: plain.output },
    output.shape,
  );
  expectClose("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, lse.shape);
}

async function bytesOf(device: GPUDevice, buffer: GPUBuffer): Promise<ArrayBuffer> {
  const staging = device.createBuffer({ size: buffer.size, usage: 1 | 8 }); // MAP_READ, COPY_DST
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const bytes = staging.getMappedRange().slice(0);
  staging.destroy();
  return bytes;
}

/** Finds where each token of a batch lies by the state on the GPU, whose lengths are compared. */
function placesOf(source: KvSource, state: Int32Array, tokens: readonly (readonly Token[])[]) {
  const stride = 1 + source.pagesPerEntry;
  if (state[0] !== stride)
    throw new Error(`state: entries have ${state[0]} words, expected ${stride}`);
  for (const [b, { length }] of tokens.entries()) {
    const got = state[1 + b * stride];
    if (got !== length)
      throw new Error(`state: row ${b} has ${got} tokens on the GPU, expected ${length}`);
  }
  const { place, pageSize, ring, sinkTokens } = source;
  return (b: number, j: number): readonly [outer: number, row: number] => {
    if (place === "paged") return [state[2 + b * stride + Math.floor(j / pageSize)], j % pageSize];
    return [b, place === "rows" || j < sinkTokens ? j : sinkTokens + ((j - sinkTokens) % ring)];
  };
}
