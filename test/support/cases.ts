// Attention problems as tests and fuzzing describe them: plain data, run on the GPU and compared
// with the reference.

import { bfloat16Bits, float16Bits } from "../../src/gpu/elements.ts";
import { bfloat16Value, float16Value } from "../../src/gpu/read.ts";
import {
  type AttentionOptions,
  type AttentionPlan,
  type AttentionProblem,
  attention,
  type BlockMask,
  createBlockMask,
  type Layout,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { expectClose } from "./closeness.ts";
import { expectExtremeClose, rowBounds } from "./extreme_bounds.ts";
import { addNans, makeExtreme } from "./extremes.ts";
import { defined, type Features, featuresOf } from "./features.ts";
import { poisonRows, unusedRows } from "./padding.ts";

/** Dtypes of q, k, v and output. */
export type Float = "f32" | "f16" | "bf16";

export interface Case
  extends Features,
    Pick<
      AttentionOptions,
      | "causal"
      | "scale"
      | "variant"
      | "kvSplits"
      | "maxDispatchFlops"
      | "attentionChunk"
      | "sinkTokens"
      | "softcap"
    > {
  readonly B?: number;
  readonly H?: number;
  /** Key heads; default H. */
  readonly Hkv?: number;
  readonly M: number;
  readonly N: number;
  readonly D: number;
  /** Default D. */
  readonly Dv?: number;
  readonly layout?: Layout;
  /** How q, k, v and output are stored: one dtype for all, or one for each. Default f32. */
  readonly dtype?: Float | readonly [q: Float, k: Float, v: Float, o: Float];
  /** Standard deviation of q and k. The deviation of scores is its square. */
  readonly spread?: number;
  /** Standard deviation of v. Default 1. */
  readonly valueSpread?: number;
  readonly seed?: number;
  /** Whether rows of q, k and v past the used lengths hold NaN, which must not get anywhere. */
  readonly poison?: boolean;
}

export const title = (problem: Case) =>
  Object.entries(problem)
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(" ");

/**
 * Runs a case into poisoned outputs and compares output and, but for plans that have none, LSE with
 * the reference. `plan` makes the plan; without it the public one-liner is called.
 */
export async function runCase(
  device: GPUDevice,
  problem: Case,
  plan?: (device: GPUDevice, problem: AttentionProblem) => Promise<AttentionPlan>,
  storesLse = true,
): Promise<void> {
  const {
    B = 1,
    H = 1,
    Hkv = H,
    M,
    N,
    D,
    Dv = D,
    layout = "bhmd",
    spread = 1,
    seed = 1,
    valueSpread = 1,
  } = problem;
  const shape = (b: number, h: number, m: number, d: number) =>
    layout === "bhmd" ? [b, h, m, d] : [b, m, h, d];
  const used: (Tensor | BlockMask)[] = [];
  const keep = <T extends Tensor | BlockMask>(made: T): T => {
    used.push(made);
    return made;
  };
  const dtypes = Array.isArray(problem.dtype)
    ? problem.dtype
    : new Array(4).fill(problem.dtype ?? "f32");
  const make = (what: number, size: number[], deviation = 1) => {
    const dtype: Float = dtypes[what];
    const drawn = normal(seed * 8 + what, product(size), deviation);
    const extreme = {
      of: ("QKV" as const)[what] as "Q" | "K" | "V",
      seed,
      ...defined({ extremes: problem.extremes }),
    };
    makeExtreme(drawn, size[3], { ...extreme, f16: dtypes.includes("f16") });
    const data = drawn.map(ROUND[dtype]);
    addNans(data, size[3], extreme);
    if (problem.poison) {
      const { qLengths, kvLengths, cuSeqlensQ, cuSeqlensKv } = problem;
      const unused = what
        ? unusedRows(B, N, kvLengths, cuSeqlensKv)
        : unusedRows(B, M, qLengths, cuSeqlensQ);
      poisonRows(data, size, layout, unused);
    }
    return {
      shape: size,
      data,
      gpu: keep(tensor(device, size, { data, dtype, label: "qkv"[what] })),
    };
  };
  try {
    const q = make(0, shape(B, H, M, D), spread);
    const k = make(1, shape(B, Hkv, N, D), spread);
    const v = make(2, shape(B, Hkv, N, Dv), valueSpread);
    const poison = (size: number[], dtype: Float = "f32") =>
      keep(tensor(device, size, { data: new Float32Array(product(size)).fill(Number.NaN), dtype }));
    const output = poison(shape(B, H, M, Dv), dtypes[3]);
    // Kernels that multiply in f16 are held to what f16 costs, not to f32 rounded once. They have
    // no LSE.
    const half = problem.variant?.endsWith("-f16") ?? false;
    const lse = half ? undefined : poison([B, H, M]);
    const rowMax = problem.rowMax ? { rowMax: poison([B, H, M]) } : {};
    const {
      causal,
      scale,
      variant,
      kvSplits,
      maxDispatchFlops,
      attentionChunk,
      sinkTokens,
      softcap,
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
    const gpu = features.gpu((size, options) => keep(tensor(device, size, options)));
    const blockMask = features.blockMask && {
      blockMask: keep(await createBlockMask(device, ...features.blockMask)),
      maskFunction: undefined,
    };
    const settings = {
      ...shared,
      variant,
      kvSplits,
      maxDispatchFlops,
      ...gpu,
      ...blockMask,
    } as AttentionOptions;
    const outputs = { output, ...(lse && { lse }), ...rowMax };
    const memory = { q: q.gpu, k: k.gpu, v: v.gpu, ...outputs };
    if (plan) await runPlan(device, await plan(device, { ...settings, ...memory }));
    else await attention(q.gpu, k.gpu, v.gpu, { ...settings, ...outputs });
    const values = await output
      .permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3]))
      .read();
    const options64 = { ...shared, ...features.cpu };
    const f64 = reference(q, k, v, options64);
    const halved = half && spread <= 50; // scores beyond f16 are as exact as those of other kernels
    const plain = reference(q, k, v, {
      ...options64,
      ...(halved && { store: ROUND.f16 }),
      precision: "f32",
    });
    const stored = plain.output.map(ROUND[dtypes[3] as Float]);
    const precision = halved ? "f16-products" : dtypes[3];
    const bounds = problem.extremes && rowBounds(q, k, v, options64);
    const compare = (
      name: "output" | "lse" | "rowMax",
      actual: ArrayLike<number>,
      both: Both,
      shape: number[],
    ) => {
      const as = name === "output" ? precision : "f32";
      if (!bounds) return expectClose(name, actual, both, shape, as);
      expectExtremeClose(
        name,
        actual,
        both,
        shape,
        as,
        bounds.map((row) => row?.[name]),
      );
    };
    compare("output", values, { f64: f64.output, plain: stored }, [B, H, M, Dv]);
    if (lse && storesLse)
      compare("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, [B, H, M]);
    if (rowMax.rowMax) {
      // Nothing is promised of the largest score if some score is NaN.
      const known = (values: ArrayLike<number>) =>
        Float64Array.from(values, (x, row) => (Number.isNaN(f64.lse[row]) ? Number.NaN : x));
      const both = { f64: known(f64.rowMax), plain: plain.rowMax };
      const given = await rowMax.rowMax.read();
      compare("rowMax", problem.extremes ? known(given) : given, both, [B, H, M]);
    }
  } finally {
    for (const one of used) one.destroy();
  }
}

/** Rounds to the nearest number of a dtype. */
export const ROUND: Readonly<Record<Float, (value: number) => number>> = {
  f32: Math.fround,
  f16: (value) => float16Value(float16Bits(value)),
  bf16: (value) => bfloat16Value(bfloat16Bits(value)),
};

interface Both {
  readonly f64: ArrayLike<number>;
  readonly plain: ArrayLike<number>;
}

async function runPlan(device: GPUDevice, plan: AttentionPlan): Promise<void> {
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}

export const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
