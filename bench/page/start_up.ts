// A page that has loaded nothing of Fovea: it imports the package when it is told to, and computes
// once.

import type { Dims } from "../cost.ts";
import { inputs } from "../inputs.ts";

/** Milliseconds of each phase, in order. */
export interface Phases {
  readonly import: number;
  readonly device: number;
  readonly prewarm?: number;
  readonly plan: number;
  readonly run: number;
}

export interface Start {
  readonly phases: Phases;
  readonly kernel: string;
  readonly workspaceBytes: number;
}

declare global {
  interface Window {
    startUp: typeof startUp;
  }
}

/** Attention of seeded inputs by the package at `url`, whose output becomes the file `output`. */
async function startUp(url: string, dims: Dims, seed: number, warm: boolean): Promise<Start> {
  const { B, H, Hkv, M, N, D, Dv, causal } = dims;
  const { q, k, v } = inputs(dims, seed);
  const marks = [performance.now()];
  const mark = () => marks.push(performance.now());

  const {
    planAttention,
    prewarm,
    requestFoveaDevice,
    tensor,
  }: typeof import("../../src/index.ts") = await import(/* @vite-ignore */ url);
  mark();
  const device = await requestFoveaDevice();
  mark();
  const shapes = { q: [B, H, M, D], k: [B, Hkv, N, D], v: [B, Hkv, N, Dv] };
  const problem = {
    q: { shape: shapes.q },
    k: { shape: shapes.k },
    v: { shape: shapes.v },
    causal,
  };
  if (warm) await prewarm(device, [problem]);
  mark();
  const plan = await planAttention(device, problem);
  mark();
  const upload = (shape: number[], data: Float32Array) => tensor(device, shape, { data });
  const memory = { q: upload(shapes.q, q), k: upload(shapes.k, k), v: upload(shapes.v, v) };
  const output = tensor(device, [B, H, M, Dv]);
  const encoder = device.createCommandEncoder();
  plan.encode(encoder, { ...memory, output });
  device.queue.submit([encoder.finish()]);
  const values = (await output.read()) as Float32Array<ArrayBuffer>;
  mark();

  await fetch("/files/output", { method: "PUT", body: values });
  const [imported, gotten, warmed, planned, ran] = marks
    .slice(1)
    .map((at, index) => at - marks[index]);
  const phases = {
    import: imported,
    device: gotten,
    ...(warm && { prewarm: warmed }),
    plan: planned,
    run: ran,
  };
  return { phases, kernel: plan.kernel, workspaceBytes: plan.workspaceBytes };
}
window.startUp = startUp;
