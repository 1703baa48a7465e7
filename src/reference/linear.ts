// Linear attention as plain loops on the CPU, token by token. The kernels are measured against it.

import {
  linearProblem,
  type ReferenceLinearOptions,
  readState,
  writeToken,
} from "./linear_problem.ts";
import type { ReferenceTensor } from "./options.ts";

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
  const problem = linearProblem(q, k, v, options);
  const { causal, sizes } = problem;
  const { B, H, Hkv, M, N, D, Dv } = sizes;
  const { pastState, pastNormalizer } = options;
  const output = new Float64Array(B * H * M * Dv);
  const state = Float64Array.from(pastState ?? new Float64Array(B * Hkv * D * Dv));
  const normalizer = Float64Array.from(pastNormalizer ?? new Float64Array(B * Hkv * D));

  for (let b = 0; b < B; b++) {
    for (let head = 0; head < Hkv; head++) {
      const index = b * Hkv + head;
      const own = {
        S: state.subarray(index * D * Dv, (index + 1) * D * Dv),
        z: normalizer.subarray(index * D, (index + 1) * D),
      };
      const read = (m: number) => {
        for (const h of problem.readers(head)) {
          const { output: row } = readState(own, problem.query(b, h, m), problem);
          output.set(row, ((b * H + h) * M + m) * Dv);
        }
      };
      for (let n = 0; n < N; n++) {
        const token = problem.token(b, head, n);
        if (token) writeToken(own, token, problem);
        if (causal) read(n);
      }
      if (!causal) for (let m = 0; m < M; m++) read(m);
    }
  }
  return { output, state, normalizer };
}
