// What attention costs, in one place: every table and every JSON file counts like this.

/** Sizes and mask of a problem. */
export interface Dims {
  readonly B: number;
  readonly H: number;
  /** Key heads. */
  readonly Hkv: number;
  readonly M: number;
  readonly N: number;
  readonly D: number;
  readonly Dv: number;
  /** Whether a causal mask applies, with the last query at the last key. */
  readonly causal: boolean;
  /** Keys before its own that a query sees; all if absent. */
  readonly window?: number;
  /** Keys of each batch entry; all N if absent. */
  readonly kvLengths?: readonly number[];
  /** How q, k, v and the output are stored; f32 if absent. */
  readonly dtype?: "f16";
  /** What a query and a key are compared by; their dot product if absent. */
  readonly similarity?: { readonly kind: "additive"; readonly vector: readonly number[] };
}

/**
 * Returns the operations of a problem. A multiply-add counts as two: 2 (D + Dv) for every query and
 * each key that it sees; exp and the rest count as none.
 */
export function flopsOf(dims: Dims): number {
  let pairs = 0;
  for (let b = 0; b < dims.B; b++) {
    const keys = dims.kvLengths?.[b] ?? dims.N;
    for (let i = 0; i < dims.M; i++) {
      const position = i + keys - dims.M;
      const end = dims.causal ? Math.min(position + 1, keys) : keys;
      pairs += Math.max(0, end - Math.max(0, position - (dims.window ?? keys)));
    }
  }
  return 2 * (dims.D + dims.Dv) * dims.H * pairs;
}

/** Bytes that have to move at least once: q, k, v in and the output out. */
export function bytesOf({ B, H, Hkv, M, N, D, Dv, dtype }: Dims): number {
  return (dtype === "f16" ? 2 : 4) * B * (H * M * (D + Dv) + Hkv * N * (D + Dv));
}

/** The window of a problem, as its options say it. */
export const windowOf = ({ window }: Dims) =>
  window !== undefined && { window: [window, -1] as const };

/** Bytes of the scores that the naive way keeps in memory, f32. */
export function naiveBytesOf({ B, H, M, N }: Pick<Dims, "B" | "H" | "M" | "N">): number {
  return 4 * B * H * M * N;
}
