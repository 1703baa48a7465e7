// The inputs of a problem: seeded, and without anything of the engine.

import { normal } from "../src/reference/random.ts";
import type { Dims } from "./cost.ts";

/** q, k and v, dense [B, H, rows, D]. */
export interface InputArrays {
  readonly q: Float32Array<ArrayBuffer>;
  readonly k: Float32Array<ArrayBuffer>;
  readonly v: Float32Array<ArrayBuffer>;
}

/** Makes the seeded inputs of a problem. */
export function inputs({ B, H, Hkv, M, N, D, Dv }: Dims, seed: number): InputArrays {
  return {
    q: normal(3 * seed, B * H * M * D),
    k: normal(3 * seed + 1, B * Hkv * N * D),
    v: normal(3 * seed + 2, B * Hkv * N * Dv),
  };
}
