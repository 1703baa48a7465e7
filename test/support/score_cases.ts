// Problems of what has rows of scores beside attention, for fuzzing of rows: merging, weights and
// best keys.

import {
  attentionWeights,
  mergeAttention,
  type Tensor,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import {
  attentionScores,
  topKKeys as keys64,
  mergeAttention as merge64,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "./cases.ts";
import { expectExtremeClose } from "./extreme_bounds.ts";
import { addNans, type Extreme, makeExtreme } from "./extremes.ts";

export interface ScoreCase {
  readonly op: "mergeAttention" | "attentionWeights" | "topKKeys";
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  /** Keys, or columns of a merge. */
  readonly N: number;
  /** Head dim of scores, or parts of a merge, at least 1. */
  readonly K?: number;
  /** Keys that topKKeys finds. */
  readonly count?: number;
  readonly causal?: boolean;
  readonly spread?: number;
  /**
   * Hostile values of q and k; for a merge NaN and huge rows of the parts ("nanV", "hugeV"), and
   * far LSEs ("farSinks").
   */
  readonly extremes?: readonly Extreme[];
  readonly seed?: number;
}

const UNIT = 2 ** -24;

export async function runScoreCase(device: GPUDevice, problem: ScoreCase): Promise<void> {
  const used: Tensor[] = [];
  const keep = (made: Tensor) => {
    used.push(made);
    return made;
  };
  try {
    if (problem.op === "mergeAttention") await runMerge(device, problem, keep);
    else await runScores(device, problem, keep);
  } finally {
    for (const one of used) one.destroy();
  }
}

type Keep = (made: Tensor) => Tensor;

/** Merges parts whose LSEs are near, far apart, or -Infinity; then the part holds NaN. */
async function runMerge(device: GPUDevice, problem: ScoreCase, keep: Keep): Promise<void> {
  const { B = 1, H = 1, M, N, K = 2, seed = 1, extremes = [] } = problem;
  const shape = [B, H, M];
  const rows = product(shape);
  const far = extremes.includes("farSinks") ? 1000 : 3;
  const parts = Array.from({ length: K }, (_, part) => {
    const own = seed + 977 * part;
    const output = normal(own, rows * N);
    makeExtreme(output, N, { of: "V", extremes, seed: own, f16: false });
    addNans(output, N, { of: "V", extremes, seed: own });
    const lse = normal(own + 1, rows, far).map((x, row) =>
      (row + part + seed) % 5 === 0 ? -Infinity : x,
    );
    for (let row = 0; row < rows; row++)
      if (lse[row] === -Infinity) output.fill(Number.NaN, row * N, (row + 1) * N);
    return { output, lse };
  });
  const gpu = parts.map(({ output, lse }) => ({
    output: keep(tensor(device, [...shape, N], { data: output })),
    lse: keep(tensor(device, shape, { data: lse })),
  }));
  const output = keep(
    tensor(device, [...shape, N], { data: new Float32Array(rows * N).fill(Number.NaN) }),
  );
  const lse = keep(tensor(device, shape, { data: new Float32Array(rows).fill(Number.NaN) }));
  await mergeAttention(gpu, { output, lse });
  const f64 = merge64(parts);
  const plain = merge64(parts, { precision: "f32" });
  // A row's error is a share of the largest value that any part has for it, and grows with the
  // distance of its LSEs.
  const bounds = Array.from({ length: rows }, (_, row) => {
    const seen = parts.filter((part) => part.lse[row] !== -Infinity);
    const most = seen.reduce((a, { output }) => {
      const own = output.subarray(row * N, (row + 1) * N);
      return own.reduce((b, x) => (Number.isNaN(x) ? b : Math.max(b, Math.abs(x))), a);
    }, 0);
    const largest = seen.reduce((a, part) => Math.max(a, Math.abs(part.lse[row])), 0);
    return {
      output: (16 * K + 8 * largest + 16) * UNIT * most,
      lse: (16 * K + 8 * largest + 16) * UNIT,
    };
  });
  const each = (name: "output" | "lse") => ({ f64: f64[name], plain: plain[name] });
  const of = (name: "output" | "lse") => bounds.map((row) => row[name]);
  expectExtremeClose(
    "output",
    await output.read(),
    each("output"),
    [...shape, N],
    "f32",
    of("output"),
  );
  expectExtremeClose("lse", await lse.read(), each("lse"), shape, "f32", of("lse"));
}

/** Runs weights, or the best keys with their weights. */
async function runScores(device: GPUDevice, problem: ScoreCase, keep: Keep): Promise<void> {
  const {
    op,
    B = 1,
    H = 1,
    M,
    N,
    K = 8,
    count = 1,
    causal = false,
    spread = 1,
    seed = 1,
    extremes = [],
  } = problem;
  const make = (of: "Q" | "K", rows: number) => {
    const data = normal(seed * 8 + "QK".indexOf(of), B * H * rows * K, spread);
    makeExtreme(data, K, { of, extremes, seed, f16: false });
    addNans(data, K, { of, extremes, seed });
    const shape = [B, H, rows, K];
    return { shape, data, gpu: keep(tensor(device, shape, { data })) };
  };
  const q = make("Q", M);
  const k = make("K", N);
  if (op === "attentionWeights") {
    const f64 = attentionScores(q, k, { causal, stage: "probabilities" });
    const plain = attentionScores(q, k, { causal, stage: "probabilities", precision: "f32" });
    const weights = await keep(await attentionWeights(q.gpu, k.gpu, { causal })).read();
    // If a row is NaN, a key that it does not see may still weigh nothing.
    const known = Array.from(weights, (x, i) => (x === 0 && Number.isNaN(f64[i]) ? Number.NaN : x));
    expectExtremeClose("weights", known, { f64, plain }, [B, H, M, N]);
    return;
  }
  const right = keys64(q, k, count, { causal });
  const plain = keys64(q, k, count, { causal, precision: "f32" });
  const { indices, weights } = await topKKeys(q.gpu, k.gpu, { k: count, causal });
  const found = await keep(indices).read();
  const values = await keep(weights).read();
  expectExtremeClose(
    "weights of the best keys",
    values,
    { f64: right.weights, plain: plain.weights },
    [B, H, M, count],
  );
  const all = attentionScores(q, k, { causal, stage: "probabilities" });
  for (let row = 0; row < B * H * M; row++) {
    const keys = Array.from(found.subarray(row * count, (row + 1) * count)).filter(
      (key) => key >= 0,
    );
    const expected = right.indices
      .subarray(row * count, (row + 1) * count)
      .filter((key) => key >= 0).length;
    if (new Set(keys).size !== expected)
      throw new Error(`row ${row}: keys ${keys}, expected ${expected} different ones`);
    for (const [place, key] of keys.entries()) {
      const is = values[row * count + place];
      const own = all[row * N + key];
      if (!(Math.abs(is - own) <= 1e-4))
        throw new Error(`row ${row}: key ${key} has the weight ${is}, expected ${own}`);
    }
  }
}
