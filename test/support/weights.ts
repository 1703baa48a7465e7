// Cases of what attention does not store: scores, probabilities and best keys, run and compared
// with the reference.

import { expect } from "vitest";
import {
  attention,
  attentionWeights,
  type BlockMask,
  createBlockMask,
  type Tensor,
  tensor,
  topKKeys,
  type WeightsOptions,
  type WeightsStage,
} from "../../src/index.ts";
import {
  attentionScores,
  type ReferenceOptions,
  topKKeys as referenceKeys,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, product } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { defined, featuresOf } from "./features.ts";

export interface WeightsCase extends Omit<Case, "Dv" | "dtype" | "variant" | "rowMax"> {
  readonly dtype?: "f32" | "f16";
  readonly heads?: readonly number[];
  readonly rows?: readonly number[];
}

/**
 * Makes a case's tensors, its options for both sides, and the rows of the result as the reference
 * numbers them.
 */
async function prepare(device: GPUDevice, problem: WeightsCase) {
  const {
    B = 1,
    H = 1,
    Hkv = H,
    M,
    N,
    D,
    layout = "bhmd",
    spread = 1,
    seed = 1,
    dtype = "f32",
  } = problem;
  const used: (Tensor | BlockMask)[] = [];
  const keep = <T extends Tensor | BlockMask>(made: T): T => {
    used.push(made);
    return made;
  };
  const make = (what: number, heads: number, length: number) => {
    const shape = layout === "bhmd" ? [B, heads, length, D] : [B, length, heads, D];
    const exact = normal(seed * 8 + what, product(shape), spread);
    // Multiples of 1/64 below 16 are the same in 16 bits.
    const data = dtype === "f16" ? exact.map((x) => Math.round(x * 64) / 64) : exact;
    return { shape, data, gpu: keep(tensor(device, shape, { data, dtype })) };
  };
  const q = make(0, H, M);
  const k = make(1, Hkv, N);
  const {
    causal,
    scale,
    attentionChunk,
    sinkTokens,
    softcap,
    heads,
    rows,
    maxDispatchFlops,
    cuSeqlensQ,
    cuSeqlensKv,
  } = problem;
  const shared = defined<ReferenceOptions>({
    causal,
    scale,
    attentionChunk,
    sinkTokens,
    softcap,
    layout,
  });
  const features = featuresOf(problem, { B, H, M, N, D }, seed);
  const blockMask = features.blockMask && {
    blockMask: keep(await createBlockMask(device, ...features.blockMask)),
    maskFunction: undefined,
  };
  const gpu = {
    ...shared,
    ...defined({ maxDispatchFlops }),
    ...features.gpu((size, options) => keep(tensor(device, size, options))),
    ...blockMask,
  } as WeightsOptions;
  const lengthsOf = (cu: readonly number[] | undefined, all: number) =>
    cu ? cu.slice(1).map((end, b) => end - cu[b]) : new Array<number>(B).fill(all);
  const lengths = lengthsOf(cuSeqlensQ, M);
  const list = (given: readonly number[] | undefined, count: number) =>
    given ?? Array.from({ length: count }, (_, i) => i);
  const chosen = { heads: list(heads, H), rows: list(rows, Math.max(0, ...lengths)) };
  const numbers = lengths.flatMap((length, b) =>
    chosen.heads.flatMap((h) =>
      chosen.rows.map((m) => {
        if (m >= length) return -1; // a row that the entry does not have
        return cuSeqlensQ ? h * M + cuSeqlensQ[b] + m : (b * H + h) * M + m;
      }),
    ),
  );
  const seqKv = cuSeqlensKv ? Math.max(0, ...lengthsOf(cuSeqlensKv, N)) : N;
  const shape = [lengths.length, chosen.heads.length, chosen.rows.length, seqKv];
  const asked = defined<WeightsOptions>({ heads, rows });
  return {
    q,
    k,
    used,
    keep,
    gpu: { ...gpu, ...asked },
    cpu: { ...shared, ...features.cpu },
    numbers,
    shape,
  };
}

/**
 * Spreads the rows that the reference has computed over those that were asked for; the others get
 * `fill`.
 */
function spread<T extends Float64Array | Int32Array>(
  rows: T,
  numbers: readonly number[],
  width: number,
  fill: number,
): T {
  const all = new (rows.constructor as new (length: number) => T)(numbers.length * width).fill(
    fill,
  ) as T;
  let from = 0;
  numbers.forEach((number, index) => {
    if (number >= 0) all.set(rows.subarray(from * width, ++from * width), index * width);
  });
  return all;
}

const meanOverHeads = (values: Float64Array, [B, H, M, N]: readonly number[]) =>
  Float64Array.from({ length: B * M * N }, (_, index) => {
    const at = Math.floor(index / (M * N)) * H * M * N + (index % (M * N));
    return (
      Array.from({ length: H }, (_, h) => values[at + h * M * N]).reduce((sum, p) => sum + p, 0) / H
    );
  });

export interface Asked {
  readonly stage?: WeightsStage;
  readonly mean?: boolean;
  /** Whether the log-sum-exp comes from a call of attention. */
  readonly lse?: boolean;
}

/** Runs a case into a poisoned output and compares it with the reference. */
export async function runWeights(
  device: GPUDevice,
  problem: WeightsCase,
  asked: Asked,
): Promise<void> {
  const { q, k, used, keep, gpu, cpu, numbers, shape } = await prepare(device, problem);
  const { stage = "probabilities", mean = false } = asked;
  try {
    const { heads: _h, rows: _r, ...whole } = gpu;
    const known = asked.lse
      ? await attention(q.gpu, k.gpu, k.gpu, { ...whole, lse: true, variant: "8x32" })
      : undefined;
    const lse = known ? { lse: keep(known.lse as Tensor) } : {};
    if (known) keep(known.output);
    const resultShape = mean ? [shape[0], shape[2], shape[3]] : shape;
    const poison = new Float32Array(product(resultShape)).fill(Number.NaN);
    const output = keep(tensor(device, resultShape, { data: poison }));
    const options = { ...gpu, ...lse, ...defined({ stage: asked.stage }), output };
    const result = await attentionWeights(q.gpu, k.gpu, {
      ...options,
      ...(mean && { meanOverHeads: true }),
    });
    expect(result).toBe(output);
    const rows = numbers.filter((number) => number >= 0);
    const expected = (precision: "f64" | "f32") => {
      const values = attentionScores(q, k, { ...cpu, stage, rows, precision });
      const all = spread(
        values,
        numbers,
        shape[3],
        stage === "scores" ? Number.NEGATIVE_INFINITY : 0,
      );
      return mean ? meanOverHeads(all, shape) : all;
    };
    expectClose(
      stage,
      await output.read(),
      { f64: expected("f64"), plain: expected("f32") },
      resultShape,
    );
  } finally {
    for (const one of used) one.destroy();
  }
}

/**
 * Finds best keys and compares them with the reference. With `exact` scores, which both sides
 * compute without rounding, the keys must be the same. Otherwise keys may change places if rounding
 * brings their scores that close.
 */
export async function runTopKeys(
  device: GPUDevice,
  problem: WeightsCase,
  count: number,
  exact = false,
): Promise<void> {
  const { q, k, used, keep, gpu, cpu, numbers, shape } = await prepare(device, problem);
  try {
    if (exact) {
      for (const { gpu: on, data } of [q, k]) {
        data.set(data.map((x) => Math.round(x)));
        device.queue.writeBuffer(on.buffer, 0, data as Float32Array<ArrayBuffer>);
      }
    }
    const { indices, weights } = await topKKeys(q.gpu, k.gpu, { ...gpu, k: count });
    for (const one of [indices, weights]) keep(one);
    const resultShape = [...shape.slice(0, 3), count];
    expect([indices.shape, weights.shape]).toEqual([resultShape, resultShape]);
    const rows = numbers.filter((number) => number >= 0);
    const best = (precision: "f64" | "f32") => {
      const found = referenceKeys(q, k, count, { ...cpu, rows, precision });
      return {
        indices: spread(found.indices, numbers, count, -1),
        weights: spread(found.weights, numbers, count, 0),
      };
    };
    const f64 = best("f64");
    const plain = best("f32");
    const found = await indices.read();
    expectClose(
      "weights",
      await weights.read(),
      { f64: f64.weights, plain: plain.weights },
      resultShape,
    );
    if (exact) {
      expect(found).toEqual(f64.indices);
      return;
    }
    const probabilities = attentionScores(q, k, { ...cpu, rows, stage: "probabilities" });
    const all = spread(probabilities, numbers, shape[3], 0);
    found.forEach((key, at) => {
      const wanted = f64.indices[at];
      if (key === wanted) return;
      expect(
        Math.min(key, wanted),
        `element ${at}: found key ${key}, expected ${wanted}`,
      ).toBeGreaterThanOrEqual(0);
      const row = Math.floor(at / count) * shape[3];
      expect(all[row + key], `element ${at}: key ${key} for ${wanted}`).toBeCloseTo(
        all[row + wanted],
        5,
      );
    });
    for (let row = 0; row < found.length; row += count) {
      const keys = [...found.slice(row, row + count)].filter((key) => key >= 0);
      expect(new Set(keys).size).toBe(keys.length);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}
