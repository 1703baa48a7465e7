// Linear attention as plain loops on the CPU, token by token. The kernels are measured against it.

import type { Layout } from "../types.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { at, broadcast, toBhmd } from "./tensors.ts";

export interface ReferenceLinearOptions {
  /**
   * Default "linear", mapped and normalised. If a rule is given, the other defaults are those of
   * ONNX.
   */
  readonly updateRule?: "linear" | "gated" | "delta" | "gated_delta";
  /** Default true with a rule. */
  readonly causal?: boolean;
  /** phi: elu(x) + 1, or x. Default "none" with a rule, otherwise "elu". */
  readonly featureMap?: "elu" | "none";
  /** Default false with a rule. */
  readonly normalized?: boolean;
  /** Factor of an output that is not normalised. Default 1 / sqrt(D). */
  readonly scale?: number;
  /** [B, Hkv, N, 1 | D], log space. */
  readonly decay?: ReferenceTensor;
  /** [B, Hkv | 1, N, 1] */
  readonly beta?: ReferenceTensor;
  readonly kvLengths?: ArrayLike<number>;
  /** [B | 1, N]; 0 for a token that leaves the state as it is. */
  readonly keyMask?: ReferenceTensor;
  /** [B, Hkv, D, Dv] and [B, Hkv, D]. Default zeros. */
  readonly pastState?: ArrayLike<number>;
  readonly pastNormalizer?: ArrayLike<number>;
  /** Axis order of q, k, v, decay and beta; results are [B, H, M, Dv]. Default "bhmd". */
  readonly layout?: Layout;
  /** Rounds the result of every operation. Default "f64". */
  readonly precision?: "f64" | "f32";
}

export interface ReferenceLinearResult {
  /** [B, max(H, Hkv), M, Dv] */
  readonly output: Float64Array;
  /** [B, Hkv, D, Dv] */
  readonly state: Float64Array;
  /** [B, Hkv, D] */
  readonly normalizer: Float64Array;
}

/**
 * Linear attention (Katharopoulos et al., arXiv 2006.16236), and the update rules of ONNX
 * LinearAttention-27:
 *
 *     S <- exp(g) S,   u = beta (v - S^T k) or v,   S <- S + phi(k) u^T
 *     o = S^T phi(q) / (phi(q).z), or scale S^T phi(q)
 *
 * @param q [B, H, M, D]
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]; if a tensor has fewer heads than another one, each of them serves
 *   several neighbours
 */
export function linearAttention(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceLinearOptions = {},
): ReferenceLinearResult {
  const {
    updateRule,
    layout = "bhmd",
    keyMask,
    kvLengths,
    pastState,
    pastNormalizer,
    precision,
  } = options;
  const { causal = updateRule !== undefined, normalized = updateRule === undefined } = options;
  const elu = (options.featureMap ?? (updateRule ? "none" : "elu")) === "elu";
  const { round } = roundingOf(precision);
  const [query, key, value] = [q, k, v].map((tensor) => toBhmd(tensor, layout));
  const decay = options.decay && toBhmd(options.decay, layout);
  const beta = options.beta && toBhmd(options.beta, layout);
  const mask = keyMask && broadcast(keyMask, 2);
  const [B, Hq, M, D] = query.shape;
  const [, Hk, N] = key.shape;
  const [, Hkv, , Dv] = value.shape;
  const H = Math.max(Hq, Hkv);
  const scale = round(options.scale ?? 1 / Math.sqrt(D));
  const phi = (x: number) => (elu ? (x > 0 ? round(x + 1) : round(Math.exp(x))) : x);
  const output = new Float64Array(B * H * M * Dv);
  const state = Float64Array.from(pastState ?? new Float64Array(B * Hkv * D * Dv));
  const normalizer = Float64Array.from(pastNormalizer ?? new Float64Array(B * Hkv * D));

  for (let b = 0; b < B; b++) {
    for (let head = 0; head < Hkv; head++) {
      const S = state.subarray((b * Hkv + head) * D * Dv, (b * Hkv + head + 1) * D * Dv);
      const z = normalizer.subarray((b * Hkv + head) * D, (b * Hkv + head + 1) * D);

      const write = (n: number) => {
        if (n >= (kvLengths?.[b] ?? N)) return;
        if (mask && !mask.data[mask.offset + b * mask.strides[0] + n * mask.strides[1]]) return;
        const kRow = Array.from({ length: D }, (_, d) =>
          phi(key.data[at(key, b, Math.floor((head * Hk) / Hkv), n) + d * key.strides[3]]),
        );
        if (decay) {
          for (let d = 0; d < D; d++) {
            const g =
              decay.data[at(decay, b, head, n) + (decay.shape[3] > 1 ? d * decay.strides[3] : 0)];
            const left = round(Math.exp(g));
            z[d] = round(z[d] * left);
            for (let c = 0; c < Dv; c++) S[d * Dv + c] = round(S[d * Dv + c] * left);
          }
        }
        for (let c = 0; c < Dv; c++) {
          let u = value.data[at(value, b, head, n) + c * value.strides[3]];
          if (beta) {
            let held = 0;
            for (let d = 0; d < D; d++) held = round(held + round(S[d * Dv + c] * kRow[d]));
            u = round(beta.data[at(beta, b, beta.shape[1] > 1 ? head : 0, n)] * round(u - held));
          }
          for (let d = 0; d < D; d++) S[d * Dv + c] = round(S[d * Dv + c] + round(kRow[d] * u));
        }
        for (let d = 0; d < D; d++) z[d] = round(z[d] + kRow[d]);
      };

      const read = (h: number, m: number) => {
        const qRow = Array.from({ length: D }, (_, d) =>
          phi(query.data[at(query, b, Math.floor((h * Hq) / H), m) + d * query.strides[3]]),
        );
        let weight = 0;
        for (let d = 0; d < D; d++) weight = round(weight + round(qRow[d] * z[d]));
        for (let c = 0; c < Dv; c++) {
          let sum = 0;
          for (let d = 0; d < D; d++) sum = round(sum + round(qRow[d] * S[d * Dv + c]));
          const value = normalized ? (weight === 0 ? 0 : round(sum / weight)) : round(scale * sum);
          output[((b * H + h) * M + m) * Dv + c] = value;
        }
      };

      const readers = Array.from({ length: H / Hkv }, (_, of) => head * (H / Hkv) + of);
      for (let n = 0; n < N; n++) {
        write(n);
        if (causal) for (const h of readers) read(h, n);
      }
      if (!causal) for (let m = 0; m < M; m++) for (const h of readers) read(h, m);
    }
  }
  return { output, state, normalizer };
}
