// The gradients of linear attention on the CPU: the tokens in reverse.

import {
  decayState,
  heldValue,
  type LinearProblem,
  type LinearState,
  type LinearToken,
  linearProblem,
  type ReferenceLinearOptions,
  readState,
  writeToken,
  writtenValue,
} from "../linear_problem.ts";
import type { ReferenceTensor } from "../options.ts";
import { at, rowAt, zerosLike } from "../tensors.ts";

/** The options of linear attention, and the gradients of its results. */
export interface ReferenceLinearBackwardOptions extends ReferenceLinearOptions {
  /** [B, max(H, Hkv), M, Dv]. Default zeros. */
  readonly dOutput?: ArrayLike<number>;
  /** [B, Hkv, D, Dv] and [B, Hkv, D]. Default zeros. */
  readonly dState?: ArrayLike<number>;
  readonly dNormalizer?: ArrayLike<number>;
}

/**
 * The gradients of linear attention. Reading backwards, with o = S^T phi(q) / w, w = phi(q).z, or
 * o = scale S^T phi(q) and no w:
 *
 *     ds = do / w, or scale do,   dw = -do.o / w
 *     dphi(q) = S ds + dw z,   dS += phi(q) ds^T,   dz += dw phi(q)
 *
 * Writing backwards, with S' for the state after the decay:
 *
 *     du = dS^T phi(k),   dphi(k) = dS u + dz
 *     dv = beta du,   dbeta = du.(v - S'^T phi(k)),   dh = -beta du   (without beta dv = du)
 *     dphi(k) += S' dh,   dS += phi(k) dh^T
 *     dg_d = exp(g_d) (dS_d.S_d + dz_d z_d),   dS_d *= exp(g_d),   dz_d *= exp(g_d)
 *
 * with S and z of before the decay in dg. A token that doesn't count is not read.
 *
 * @param q See `linearAttention`, as for k and v
 * @returns [B, H, ...] in every layout: dQ, dK and dV of the shapes of q, k and v, dDecay and dBeta
 *   of theirs, empty without one; dPastState and dPastNormalizer of the state before the first
 *   token, given or not
 */
export function linearAttentionBackward(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceLinearBackwardOptions,
) {
  const problem = linearProblem(q, k, v, options);
  const { B, H, Hq, Hk, Hkv, M, N, D, Dv } = problem.sizes;
  const { pastState, pastNormalizer, dState, dNormalizer, dOutput } = options;
  const dQuery = zerosLike({ shape: [B, Hq, M, D] });
  const dKey = zerosLike({ shape: [B, Hk, N, D] });
  const dValue = zerosLike({ shape: [B, Hkv, N, Dv] });
  const dDecay = zerosLike(problem.decay ?? { shape: [0, 0, 0, 0] });
  const dBeta = zerosLike(problem.beta ?? { shape: [0, 0, 0, 0] });
  const dPastState = Float64Array.from(dState ?? new Float64Array(B * Hkv * D * Dv));
  const dPastNormalizer = Float64Array.from(dNormalizer ?? new Float64Array(B * Hkv * D));

  for (let b = 0; b < B; b++) {
    for (let head = 0; head < Hkv; head++) {
      const index = b * Hkv + head;
      const matrix = { length: D * Dv };
      const column = { length: D };
      const states: LinearState[] = [
        {
          S: Float64Array.from(matrix, (_, i) => pastState?.[index * D * Dv + i] ?? 0),
          z: Float64Array.from(column, (_, i) => pastNormalizer?.[index * D + i] ?? 0),
        },
      ];
      const tokens = Array.from({ length: N }, (_, n) => problem.token(b, head, n));
      for (const token of tokens) {
        const next = copyOf(states[states.length - 1]);
        if (token) writeToken(next, token, problem);
        states.push(next);
      }
      const gradient = {
        S: dPastState.subarray(index * D * Dv, (index + 1) * D * Dv),
        z: dPastNormalizer.subarray(index * D, (index + 1) * D),
      };
      const read = (state: LinearState, m: number) => {
        for (const h of problem.readers(head)) {
          const query = problem.query(b, h, m);
          const place = ((b * H + h) * M + m) * Dv;
          const dO = Float64Array.from({ length: Dv }, (_, c) => dOutput?.[place + c] ?? 0);
          const dPhi = readBackward(problem, { state, gradient }, query, dO);
          addRow(rowAt(dQuery, b, problem.qHead(h), m), dPhi, problem, query.map(problem.slope));
        }
      };
      if (!problem.causal) for (let m = 0; m < M; m++) read(states[N], m);
      for (let n = N - 1; n >= 0; n--) {
        if (problem.causal) read(states[n + 1], n);
        const token = tokens[n];
        if (!token) continue;
        const own = writeBackward(problem, { state: states[n], gradient }, token);
        const slopes = token.key.map(problem.slope);
        addRow(rowAt(dKey, b, problem.kHead(head), n), own.dPhi, problem, slopes);
        addRow(rowAt(dValue, b, head, n), own.dValue, problem);
        if (problem.beta) {
          const place = at(dBeta, b, problem.betaHead(head), n);
          dBeta.data[place] = problem.round(dBeta.data[place] + own.dBeta);
        }
        if (problem.decay) addRow(rowAt(dDecay, b, head, n), own.dDecay, problem);
      }
    }
  }
  return {
    dQ: dQuery.data,
    dK: dKey.data,
    dV: dValue.data,
    dDecay: dDecay.data,
    dBeta: dBeta.data,
    dPastState,
    dPastNormalizer,
  };
}

const copyOf = ({ S, z }: LinearState): LinearState => ({ S: S.slice(), z: z.slice() });

/** Adds numbers, each times its factor, to a row; to a row of one number it adds their sum. */
function addRow(
  row: Float64Array,
  numbers: Float64Array,
  { round }: Pick<LinearProblem, "round">,
  factors?: Float64Array,
): void {
  numbers.forEach((x, d) => {
    const place = row.length > 1 ? d : 0;
    row[place] = round(row[place] + round(x * (factors?.[d] ?? 1)));
  });
}

/** A state, and the gradient of the state after it. */
interface Moment {
  readonly state: LinearState;
  readonly gradient: LinearState;
}

/** Adds to the gradient of the state that a query reads. @returns that of phi(q) */
function readBackward(
  problem: LinearProblem,
  { state, gradient }: Moment,
  query: Float64Array,
  dO: Float64Array,
): Float64Array {
  const { normalized, scale, round } = problem;
  const Dv = dO.length;
  const { output, weight } = readState(state, query, problem);
  const dQuery = new Float64Array(query.length);
  if (normalized && weight === 0) return dQuery;
  const dSum = dO.map((x) => round(normalized ? x / weight : scale * x));
  const along = dO.reduce((sum, x, c) => round(sum + round(x * output[c])), 0);
  const dWeight = normalized ? round(-along / weight) : 0;
  for (let d = 0; d < query.length; d++) {
    for (let c = 0; c < Dv; c++) {
      const place = d * Dv + c;
      dQuery[d] = round(dQuery[d] + round(state.S[place] * dSum[c]));
      gradient.S[place] = round(gradient.S[place] + round(query[d] * dSum[c]));
    }
    dQuery[d] = round(dQuery[d] + round(dWeight * state.z[d]));
    gradient.z[d] = round(gradient.z[d] + round(dWeight * query[d]));
  }
  return dQuery;
}

/** Makes of the gradient of the state after a token the one of the state before it. */
function writeBackward(problem: LinearProblem, { state, gradient }: Moment, token: LinearToken) {
  const { round } = problem;
  const { key, value, left, beta } = token;
  const { S: dS, z: dZ } = gradient;
  const Dv = value.length;
  const decayed = copyOf(state);
  decayState(decayed, token, problem);
  const u = writtenValue(decayed, token, problem);
  const dU = heldValue(gradient, token, problem); // dS^T phi(k)
  const dPhi = key.map((_, d) =>
    u.reduce((sum, x, c) => round(sum + round(x * dS[d * Dv + c])), dZ[d]),
  );
  let dBeta = 0;
  if (beta !== undefined) {
    const held = heldValue(decayed, token, problem);
    dBeta = dU.reduce((sum, x, c) => round(sum + round(x * round(value[c] - held[c]))), 0);
    for (let d = 0; d < key.length; d++) {
      for (let c = 0; c < Dv; c++) {
        const place = d * Dv + c;
        const dHeld = round(-beta * dU[c]);
        dPhi[d] = round(dPhi[d] + round(decayed.S[place] * dHeld));
        dS[place] = round(dS[place] + round(key[d] * dHeld));
      }
    }
  }
  const dDecay = new Float64Array(left ? key.length : 0);
  for (const [d, factor] of left?.entries() ?? []) {
    let kept = round(dZ[d] * state.z[d]);
    for (let c = 0; c < Dv; c++) {
      const place = d * Dv + c;
      kept = round(kept + round(dS[place] * state.S[place]));
      dS[place] = round(dS[place] * factor);
    }
    dDecay[d] = round(factor * kept);
    dZ[d] = round(dZ[d] * factor);
  }
  const dValue = beta === undefined ? dU : dU.map((x) => round(beta * x));
  return { dPhi, dValue, dBeta, dDecay };
}
