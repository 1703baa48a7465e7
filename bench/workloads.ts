// Attention as real models have it: one layer of each.

import { type Dims, flopsOf } from "./cost.ts";

export interface Workload extends Dims {
  /** Model and phase. */
  readonly name: string;
  /** Lengths that may be halved if the full problem takes too long. */
  readonly cuttable: readonly ("M" | "N")[];
}

const self = { causal: true, cuttable: ["M", "N"] as const };

export const WORKLOADS: readonly Workload[] = [
  { name: "GPT-2 small, prefill", B: 1, H: 12, Hkv: 12, M: 1024, N: 1024, D: 64, Dv: 64, ...self },
  { name: "Llama-3.2-1B, prefill", B: 1, H: 32, Hkv: 8, M: 2048, N: 2048, D: 64, Dv: 64, ...self },
  {
    name: "Llama-3.1-8B, prefill",
    B: 1,
    H: 32,
    Hkv: 8,
    M: 2048,
    N: 2048,
    D: 128,
    Dv: 128,
    ...self,
  },
  {
    name: "BERT-base, padded batch",
    B: 4,
    H: 12,
    Hkv: 12,
    M: 512,
    N: 512,
    D: 64,
    Dv: 64,
    causal: false,
    cuttable: ["M", "N"],
    kvLengths: [512, 384, 211, 64],
  },
  {
    name: "ViT-B/16",
    B: 1,
    H: 12,
    Hkv: 12,
    M: 197,
    N: 197,
    D: 64,
    Dv: 64,
    causal: false,
    cuttable: [],
  },
  {
    name: "Whisper small, cross",
    B: 1,
    H: 12,
    Hkv: 12,
    M: 448,
    N: 1500,
    D: 64,
    Dv: 64,
    causal: false,
    cuttable: ["M"],
  },
  {
    name: "Stable Diffusion 1.5, self",
    B: 2,
    H: 8,
    Hkv: 8,
    M: 4096,
    N: 4096,
    D: 40,
    Dv: 40,
    causal: false,
    cuttable: ["M", "N"],
  },
  {
    name: "Stable Diffusion 1.5, cross",
    B: 2,
    H: 8,
    Hkv: 8,
    M: 4096,
    N: 77,
    D: 40,
    Dv: 40,
    causal: false,
    cuttable: ["M"],
  },
];

/** Returns the workload with its cuttable lengths halved until it costs at most `maxFlops`. */
export function cutTo(workload: Workload, maxFlops: number): Workload {
  let cut = workload;
  while (flopsOf(cut) > maxFlops && cut.cuttable.length) {
    const halved = Object.fromEntries(cut.cuttable.map((axis) => [axis, Math.ceil(cut[axis] / 2)]));
    const lengths = cut.kvLengths && {
      kvLengths: cut.kvLengths.map((length) => Math.ceil(length / 2)),
    };
    cut = { ...cut, ...halved, ...lengths };
  }
  return cut;
}
