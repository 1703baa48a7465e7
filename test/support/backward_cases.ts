// Gradients of attention problems as tests and fuzzing describe them, run on the GPU and compared
// with the reference.

import {
  type AttentionBackwardOptions,
  type AttentionOptions,
  attention,
  attentionBackward,
  createBlockMask,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  type ReferenceBackwardOptions,
  attentionBackward as reference,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, type Float, product, ROUND } from "./cases.ts";
import { expectClose } from "./closeness.ts";
import { defined, featuresOf } from "./features.ts";
import { poisonRows, unusedRows } from "./padding.ts";

export interface BackwardCase
  extends Omit<Case, "rowMax" | "kvSplits" | "extremes" | "scoreFunction"> {
  /** Whether the log-sum-exp has a gradient, too. */
  readonly dLse?: boolean;
  /** Standard deviation of dOutput. Default 1. */
  readonly gradientSpread?: number;
  /** The gradients of what the similarity holds, which are compared, too. */
  readonly ofSimilarity?: readonly SimilarityGradient[];
}

type SimilarityGradient =
  | "dQWeights"
  | "dKWeights"
  | "dVector"
  | "dInnerBias"
  | "dInnerScale"
  | "dGain";

interface Made {
  readonly shape: readonly number[];
  readonly data: Float32Array;
  readonly gpu: Tensor;
}

/**
 * Runs attention and its gradients into poisoned tensors, and compares dQ, dK and dV with the
 * reference.
 */
export async function runBackwardCase(device: GPUDevice, problem: BackwardCase): Promise<void> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, layout = "bhmd", seed = 1 } = problem;
  const { spread = 1, valueSpread = 1, gradientSpread = 1 } = problem;
  const dtypes: readonly Float[] = Array.isArray(problem.dtype)
    ? problem.dtype
    : new Array(4).fill(problem.dtype ?? "f32");
  const used: { destroy(): void }[] = [];
  const keep = <T extends { destroy(): void }>(made: T): T => {
    used.push(made);
    return made;
  };
  const shape = (b: number, h: number, m: number, d: number) =>
    layout === "bhmd" ? [b, h, m, d] : [b, m, h, d];
  const { qLengths, kvLengths, cuSeqlensQ, cuSeqlensKv } = problem;
  const make = (what: number, size: readonly number[], deviation: number): Made => {
    const dtype = dtypes[Math.min(what, 3)];
    const data = normal(seed * 16 + what, product(size), deviation).map(ROUND[dtype]);
    if (problem.poison) {
      const ofKeys = what === 1 || what === 2;
      const rows = ofKeys
        ? unusedRows(B, N, kvLengths, cuSeqlensKv)
        : unusedRows(B, M, qLengths, cuSeqlensQ);
      poisonRows(data, [...size], layout, rows);
    }
    return { shape: size, data, gpu: keep(tensor(device, size, { data, dtype })) };
  };
  const poisoned = (size: readonly number[], dtype: Float) =>
    keep(tensor(device, size, { data: new Float32Array(product(size)).fill(Number.NaN), dtype }));
  try {
    const q = make(0, shape(B, H, M, D), spread);
    const k = make(1, shape(B, Hkv, N, D), spread);
    const v = make(2, shape(B, Hkv, N, Dv), valueSpread);
    const dOutput = make(3, shape(B, H, M, Dv), gradientSpread);
    const dLseData = normal(seed * 16 + 4, B * H * M);
    const { causal, scale, variant, maxDispatchFlops, attentionChunk, sinkTokens, softcap } =
      problem;
    const shared = defined({ causal, scale, attentionChunk, sinkTokens, softcap, layout });
    const features = featuresOf(problem, { B, H, M, N, D }, seed);
    const gpu = features.gpu((size, options) => keep(tensor(device, size, options)));
    const blockMask = features.blockMask && {
      blockMask: keep(await createBlockMask(device, ...features.blockMask)),
      maskFunction: undefined,
    };
    const settings = { ...shared, ...gpu, ...blockMask } as AttentionOptions;
    // Rows that belong to no entry stay as they were.
    const lse = keep(
      tensor(device, [B, H, M], {
        data: new Float32Array(B * H * M).fill(Number.NEGATIVE_INFINITY),
      }),
    );
    const output = keep(tensor(device, dOutput.shape, { dtype: dtypes[3] }));
    await attention(q.gpu, k.gpu, v.gpu, { ...settings, output, lse });
    const results = {
      dQ: poisoned(q.shape, dtypes[0]),
      dK: poisoned(k.shape, dtypes[1]),
      dV: poisoned(v.shape, dtypes[2]),
    };
    const dLse = problem.dLse && keep(tensor(device, [B, H, M], { data: dLseData }));
    const { ofSimilarity = [] } = problem;
    const found = await attentionBackward(q.gpu, k.gpu, v.gpu, {
      ...settings,
      ...Object.fromEntries(ofSimilarity.map((name) => [name, true])),
      ...defined({ variant, maxDispatchFlops }),
      ...results,
      ...(dLse && { dLse }),
      output,
      lse,
      dOutput: dOutput.gpu,
    } as AttentionBackwardOptions);
    const options: ReferenceBackwardOptions = {
      ...shared,
      ...features.cpu,
      dOutput: rowsFirst(dOutput, layout),
      ...(problem.dLse && { dLse: dLseData }),
    };
    const f64 = reference(q, k, v, options);
    // Gradients can be no better than the output that they are given.
    const given = rowsFirst({ shape: output.shape, data: await output.read() }, layout);
    const plain = reference(q, k, v, { ...options, precision: "f32", output: given });
    for (const [index, name] of (["dQ", "dK", "dV"] as const).entries()) {
      const dtype = dtypes[index];
      const result = results[name].permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]));
      const stored = { f64: f64[name], plain: plain[name].map(ROUND[dtype]) };
      expectClose(name, await result.read(), stored, result.shape, dtype);
    }
    for (const name of ofSimilarity) {
      const result = keep(found[name] as Tensor);
      const expected = { f64: f64[name], plain: plain[name] };
      expectClose(name, (await result.read()) as Float32Array, expected, result.shape);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** The elements of a tensor in BHMD order. */
function rowsFirst(
  { shape, data }: Pick<Made, "shape" | "data">,
  layout: Case["layout"],
): Float32Array {
  if (layout !== "bmhd") return data;
  const [, M, H, D] = shape;
  return Float32Array.from(data, (_, index) => {
    const d = index % D;
    const m = Math.floor(index / D) % M;
    const h = Math.floor(index / (D * M)) % H;
    const b = Math.floor(index / (D * M * H));
    return data[((b * M + m) * H + h) * D + d];
  });
}
