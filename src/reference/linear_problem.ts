// Linear attention of one head: its numbers, and the two things that a token does.

import type { Layout } from "../types.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { at, broadcast, type Strided, toBhmd } from "./tensors.ts";

export interface ReferenceLinearOptions {
  /**
   * Default "linear", which is mapped and normalised; with a rule given the defaults are those of
   * ONNX.
   */
  readonly updateRule?: "linear" | "gated" | "delta" | "gated_delta";
  /** Default true with a rule. */
  readonly causal?: boolean;
  /** phi: elu(x) + 1, or x. Default "none" with a rule, otherwise "elu". */
  readonly featureMap?: "elu" | "none";
  /** Default false with a rule. */
  readonly normalized?: boolean;
  /** Factor of what is not normalised. Default 1 / sqrt(D). */
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

/** What a head has summed up. */
export interface LinearState {
  /** [D, Dv] */
  readonly S: Float64Array;
  /** [D] */
  readonly z: Float64Array;
}

/** What a token writes. */
export interface LinearToken {
  /** phi(k), D numbers. */
  readonly key: Float64Array;
  /** Dv numbers. */
  readonly value: Float64Array;
  /** exp(decay), D numbers, of which a state keeps so much. */
  readonly left: Float64Array | undefined;
  readonly beta: number | undefined;
}

/** Sizes, options and rows of a problem. */
export type LinearProblem = ReturnType<typeof linearProblem>;

export function linearProblem(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceLinearOptions,
) {
  const { updateRule, layout = "bhmd", keyMask, kvLengths } = options;
  const { causal = updateRule !== undefined, normalized = updateRule === undefined } = options;
  const elu = (options.featureMap ?? (updateRule ? "none" : "elu")) === "elu";
  const { round } = roundingOf(options.precision);
  const [query, key, value] = [q, k, v].map((tensor) => toBhmd(tensor, layout));
  const decay = options.decay && toBhmd(options.decay, layout);
  const beta = options.beta && toBhmd(options.beta, layout);
  const mask = keyMask && broadcast(keyMask, 2);
  const [B, Hq, M, D] = query.shape;
  const [, Hk, N] = key.shape;
  const [, Hkv, , Dv] = value.shape;
  const H = Math.max(Hq, Hkv);
  const phi = (x: number) => (elu ? (x > 0 ? round(x + 1) : round(Math.exp(x))) : x);
  /** The heads of q and k that an output's head and a state's head read. */
  const qHead = (h: number) => Math.floor((h * Hq) / H);
  const kHead = (head: number) => Math.floor((head * Hk) / Hkv);
  const betaHead = (head: number) => (beta && beta.shape[1] > 1 ? head : 0);

  function counts(b: number, n: number): boolean {
    if (n >= (kvLengths?.[b] ?? N)) return false;
    if (!mask) return true;
    return mask.data[mask.offset + b * mask.strides[0] + n * mask.strides[1]] !== 0;
  }
  /** The token n of a state's head; none if it leaves the state as it is. */
  function token(b: number, head: number, n: number): LinearToken | undefined {
    if (!counts(b, n)) return undefined;
    const gates = decay && rowOf(decay, at(decay, b, head, n));
    return {
      key: rowOf(key, at(key, b, kHead(head), n)).map(phi),
      value: rowOf(value, at(value, b, head, n)),
      left:
        gates &&
        Float64Array.from({ length: D }, (_, d) =>
          round(Math.exp(gates[gates.length > 1 ? d : 0])),
        ),
      beta: beta?.data[at(beta, b, betaHead(head), n)],
    };
  }
  return {
    sizes: { B, H, Hq, Hk, Hkv, M, N, D, Dv },
    causal,
    normalized,
    round,
    scale: round(options.scale ?? 1 / Math.sqrt(D)),
    decay,
    beta,
    qHead,
    kHead,
    betaHead,
    token,
    /** phi(q) of a row of the output. */
    query: (b: number, h: number, m: number) => rowOf(query, at(query, b, qHead(h), m)).map(phi),
    /** phi'(x), from phi(x). */
    slope: (mapped: number) => (elu ? Math.min(mapped, 1) : 1),
    /** Output heads that read a state. */
    readers: (head: number) =>
      Array.from({ length: H / Hkv }, (_, reader) => head * (H / Hkv) + reader),
  };
}

const rowOf = ({ data, shape, strides }: Strided, start: number) =>
  Float64Array.from({ length: shape[3] }, (_, d) => data[start + d * strides[3]]);

/** S <- exp(g) S, z <- exp(g) z */
export function decayState(
  { S, z }: LinearState,
  { left, value }: LinearToken,
  { round }: Pick<LinearProblem, "round">,
): void {
  const Dv = value.length;
  for (const [d, factor] of left?.entries() ?? []) {
    z[d] = round(z[d] * factor);
    for (let c = 0; c < Dv; c++) S[d * Dv + c] = round(S[d * Dv + c] * factor);
  }
}

/** S^T k: what a state gives back for a key. */
export function heldValue(
  { S }: LinearState,
  { key, value }: LinearToken,
  { round }: Pick<LinearProblem, "round">,
): Float64Array {
  const Dv = value.length;
  return value.map((_, c) => key.reduce((held, x, d) => round(held + round(S[d * Dv + c] * x)), 0));
}

/** u = beta (v - S^T k), or v without beta. */
export function writtenValue(
  state: LinearState,
  token: LinearToken,
  problem: Pick<LinearProblem, "round">,
): Float64Array {
  const { beta, value } = token;
  const { round } = problem;
  if (beta === undefined) return value;
  const held = heldValue(state, token, problem);
  return value.map((x, c) => round(beta * round(x - held[c])));
}

/** What a token does to a state: it decays, then S <- S + phi(k) u^T, z <- z + phi(k). */
export function writeToken(
  state: LinearState,
  token: LinearToken,
  problem: Pick<LinearProblem, "round">,
): void {
  const { S, z } = state;
  const { key } = token;
  const { round } = problem;
  decayState(state, token, problem);
  const u = writtenValue(state, token, problem);
  const Dv = u.length;
  for (let d = 0; d < key.length; d++) {
    for (let c = 0; c < Dv; c++) S[d * Dv + c] = round(S[d * Dv + c] + round(key[d] * u[c]));
    z[d] = round(z[d] + key[d]);
  }
}

/** What a query reads: S^T phi(q) / (phi(q).z), or scale S^T phi(q), and what it divides by. */
export function readState(
  { S, z }: LinearState,
  query: Float64Array,
  { normalized, round, scale, sizes: { Dv } }: LinearProblem,
) {
  const weight = query.reduce((sum, x, d) => round(sum + round(x * z[d])), 0);
  const output = Float64Array.from({ length: Dv }, (_, c) => {
    const sum = query.reduce((total, x, d) => round(total + round(x * S[d * Dv + c])), 0);
    return normalized ? (weight === 0 ? 0 : round(sum / weight)) : round(scale * sum);
  });
  return { output, weight };
}
