// Attention problems as tests describe them, run on the GPU and compared with the reference.

import { normal } from "../../bench/data.ts";
import {
  type AttentionOptions,
  type AttentionPlan,
  attention,
  type Layout,
  type planAttention,
  tensor,
} from "../../src/index.ts";
import { attention as reference } from "../../src/reference/index.ts";
import { expectClose } from "./closeness.ts";

export interface Case extends Pick<AttentionOptions, "causal" | "scale" | "variant" | "maxDispatchFlops"> {
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
  readonly queryOffset?: number | readonly number[];
  readonly kvLengths?: readonly number[];
  /** Standard deviation of q and k. Scores have its square. */
  readonly spread?: number;
  readonly seed?: number;
}

export const title = (problem: Case) =>
  Object.entries(problem)
    .map(([name, value]) => `${name}=${Array.isArray(value) ? `[${value}]` : value}`)
    .join(" ");

/**
 * Runs a case into poisoned outputs and compares output and, but for plans that have none, LSE with the reference.
 * `plan` makes the plan; without it the public one-liner is called.
 */
export async function runCase(
  device: GPUDevice,
  problem: Case,
  plan?: typeof planAttention,
  storesLse = true,
): Promise<void> {
  const { B = 1, H = 1, Hkv = H, M, N, D, Dv = D, layout = "bhmd", spread = 1, seed = 1, ...options } = problem;
  const shape = (b: number, h: number, m: number, d: number) => (layout === "bhmd" ? [b, h, m, d] : [b, m, h, d]);
  const make = (what: number, size: number[], deviation = 1) => {
    const data = normal(seed * 8 + what, product(size), deviation);
    return { shape: size, data, gpu: tensor(device, size, { data, label: "qkv"[what] }) };
  };
  const q = make(0, shape(B, H, M, D), spread);
  const k = make(1, shape(B, Hkv, N, D), spread);
  const v = make(2, shape(B, Hkv, N, Dv));
  const poison = (size: number[]) => tensor(device, size, { data: new Float32Array(product(size)).fill(Number.NaN) });
  const output = poison(shape(B, H, M, Dv));
  const lse = poison([B, H, M]);
  try {
    const settings = { ...options, layout } as AttentionOptions;
    const memory = { q: q.gpu, k: k.gpu, v: v.gpu, output, lse };
    if (plan) await runPlan(device, await plan(device, { ...settings, ...memory }));
    else await attention(q.gpu, k.gpu, v.gpu, { ...settings, output, lse });
    const values = await output.permute(...(layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3])).read();
    const options64 = { ...options, layout };
    const f64 = reference(q, k, v, options64);
    const plain = reference(q, k, v, { ...options64, precision: "f32" });
    expectClose("output", values, { f64: f64.output, plain: plain.output }, [B, H, M, Dv]);
    if (storesLse) expectClose("lse", await lse.read(), { f64: f64.lse, plain: plain.lse }, [B, H, M]);
  } finally {
    for (const used of [q.gpu, k.gpu, v.gpu, output, lse]) used.destroy();
  }
}

async function runPlan(device: GPUDevice, plan: AttentionPlan): Promise<void> {
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.queue.submit([encoder.finish()]);
  plan.destroy();
}

export const product = (sizes: readonly number[]) => sizes.reduce((total, size) => total * size, 1);
