// Says how far a right result may be from float64 if values are hostile. Rows that see nothing
// hostile are held to the bound of ordinary problems, from their own rows only; a row of large
// scores or values has its own bound, because one bound for all would hide errors of every other
// row.

import { errorBound, type Precision } from "../../src/reference/bounds.ts";
import {
  attentionScores,
  type ReferenceOptions,
  type ReferenceTensor,
  worstElement,
} from "../../src/reference/index.ts";
import { type Row, rowsOf } from "../../src/reference/rows.ts";
import { at, toBhmd } from "../../src/reference/tensors.ts";

/** 2^-24: a result of f32 is off by at most this share of itself. */
const UNIT = 2 ** -24;
/** A row with scores, sums of magnitudes or values beyond this has its own bound. */
const ORDINARY = 1e4;

/** How far a row's results may be off. An ordinary row has no such bound. */
export interface RowBound {
  readonly output: number;
  readonly lse: number;
  readonly rowMax: number;
}

/**
 * Returns the bounds of all rows [B, H, M]. A score of f32 is off by at most
 *
 *     e_j = u (D + 8) scale sum_d |q_d k_jd| + 8 u |s_j| + 4 u |s_j - s_t| + 128 u
 *
 * (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), where t is the key with the
 * largest score. The log-sum-exp then lies between those of s - e and s + e. The output is an
 * average of the values, those of weights within exp(+-e) of the right ones:
 * |o' - o| <= 2 sum_j min(1, exp(s_j - s_t + e_j + e_t)) |v_j - v_t|, and
 * |o' - o| <= (exp(2 max e) - 1) sum_j w_j |v_j - o|.
 */
export function rowBounds(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceOptions,
): (RowBound | undefined)[] {
  const { layout = "bhmd" } = options;
  const [query, key, value] = [q, k, v].map((tensor) => toBhmd(tensor, layout));
  const [B, H, M, D] = query.shape;
  const [, kvHeads, N] = key.shape;
  const rows = rowsOf([B, H, M, N], options);
  const scores = attentionScores(q, k, { ...options, stage: "scores" });
  const sizes = attentionScores(magnitudes(q), magnitudes(k), { ...options, stage: "raw" });
  const width = rows.maxKeys;
  return Array.from({ length: B * H * M }, (_, number) => {
    const row = rows.find(number);
    if (!row) return undefined;
    const from = number * width;
    const start = (j: number) =>
      at(value, row.batch, Math.floor((row.head * kvHeads) / H), row.keyRow + j);
    const columns = Array.from({ length: value.shape[3] }, (_, d) => d * value.strides[3]);
    // A column with a NaN is NaN, which bounds don't describe.
    const valuesOf = (j: number) => columns.map((step) => value.data[start(j) + step] || 0);
    const sink = options.sinks?.[row.head] ?? Number.NEGATIVE_INFINITY;
    return boundOf(
      seenKeys(row, scores.subarray(from), sizes.subarray(from), valuesOf),
      sink,
      D,
      columns.length,
    );
  });
}

interface Key {
  readonly s: number;
  readonly size: number;
  readonly v: readonly number[];
}

function seenKeys(
  row: Row,
  scores: Float64Array,
  sizes: Float64Array,
  valuesOf: (j: number) => readonly number[],
): Key[] {
  const keys: Key[] = [];
  for (let j = row.begin; j < row.end; j++) {
    if (scores[j] === Number.NEGATIVE_INFINITY) continue;
    keys.push({ s: scores[j], size: Math.abs(sizes[j]), v: valuesOf(j) });
  }
  return keys;
}

function boundOf(
  keys: readonly Key[],
  sink: number,
  D: number,
  columns: number,
): RowBound | undefined {
  const largest = (values: readonly number[]) =>
    values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const isOrdinary = keys.every(
    ({ s, size, v }) => Math.abs(s) < ORDINARY && size < ORDINARY && largest(v) < ORDINARY,
  );
  if (isOrdinary || !keys.length) return undefined;
  // A sink is one more key, of value 0.
  const all =
    sink > Number.NEGATIVE_INFINITY
      ? [...keys, { s: sink, size: 0, v: new Array<number>(columns).fill(0) }]
      : keys;
  const top = all.reduce((best, key) => (key.s > best.s ? key : best));
  const off = ({ s, size }: Key) =>
    UNIT * ((D + 8) * size + 8 * Math.abs(s) + 4 * Math.min(Math.abs(s - top.s), 1e4) + 128);
  const logSum = (sign: number) => {
    const shifted = all.map((key) => key.s + sign * off(key));
    const most = Math.max(...shifted);
    return most + Math.log(shifted.reduce((sum, s) => sum + Math.exp(s - most), 0));
  };
  const lse = logSum(0);
  const rounding = (all.length + 32) * 2 * UNIT;
  const distance = (v: readonly number[], w: readonly number[]) =>
    largest(v.map((x, d) => x - w[d]));
  const share = (key: Key) =>
    key === top ? 1 : Math.min(1, Math.exp(key.s - top.s + off(key) + off(top)));
  const apart = all.reduce((sum, key) => sum + 2 * share(key) * distance(key.v, top.v), 0);
  const most = 2 * all.reduce((a, key) => Math.max(a, distance(key.v, top.v)), 0);
  const weight = (key: Key) => Math.exp(key.s - lse);
  const mean = top.v.map((_, d) => all.reduce((sum, key) => sum + weight(key) * key.v[d], 0));
  const worst = all.reduce((a, key) => Math.max(a, off(key)), 0);
  const near =
    worst < 1
      ? Math.expm1(2 * worst) *
        all.reduce((sum, key) => sum + weight(key) * distance(key.v, mean), 0)
      : most;
  const moved = Math.max(logSum(1) - lse, lse - logSum(-1));
  const tops = keys.map((key) => key.s);
  const maxOf = (sign: number) => Math.max(...keys.map((key) => key.s + sign * off(key)));
  const rowMax = Math.max(...tops);
  return {
    output:
      Math.min(apart, most, near) +
      rounding * all.reduce((sum, key) => sum + share(key) * largest(key.v), 0),
    lse: moved + rounding + 8 * UNIT * Math.abs(lse),
    rowMax: Math.max(maxOf(1) - rowMax, rowMax - maxOf(-1)) + 4 * UNIT * Math.abs(rowMax),
  };
}

const magnitudes = (tensor: ReferenceTensor): ReferenceTensor => ({
  ...tensor,
  data: Float64Array.from(tensor.data, Math.abs),
});

/**
 * The share of a result that storing it costs, and what is lost below the smallest numbers of the
 * dtype.
 */
const STORED: Readonly<Record<Precision, readonly [share: number, least: number]>> = {
  f32: [0, 0],
  f16: [2 ** -11, 2 ** -24],
  bf16: [2 ** -8, 0],
  "f16-products": [2 ** -8, 2 ** -14],
};

/**
 * Fails unless NaN is exactly where float64 has it, infinities too, ordinary rows are within the
 * bound of ordinary rows, and every other one within its own.
 *
 * @param bounds A bound for each row, the last axis of the shape; or for each element if there are
 * as many bounds as elements
 */
export function expectExtremeClose(
  what: string,
  actual: ArrayLike<number>,
  { f64, plain }: { f64: ArrayLike<number>; plain: ArrayLike<number> },
  shape: readonly number[],
  precision: Precision = "f32",
  bounds: readonly (number | undefined)[] = [],
): void {
  const count = f64.length;
  if (actual.length !== count)
    throw new Error(`${what}: ${actual.length} elements, expected ${count}`);
  const width = bounds.length ? count / bounds.length : count;
  const [share, least] = STORED[precision];
  const ordinary: number[] = [];
  for (let i = 0; i < count; i++) {
    const is = actual[i];
    const right = f64[i];
    const place = () =>
      `${what}: element [${indexOf(i, shape)}] of [${shape}] is ${is}, expected ${right}`;
    if (Number.isNaN(right) || !Number.isFinite(right)) {
      if (!Object.is(is, right)) throw new Error(`${place()}: what is not finite must be the same`);
      continue;
    }
    if (Number.isNaN(is)) throw new Error(`${place()}: NaN where nothing that it sees is NaN`);
    const bound = bounds[Math.floor(i / width)];
    if (bound === undefined) {
      ordinary.push(i);
      continue;
    }
    const allowed = bound + share * Math.abs(right) + least;
    const error = Math.abs(is - right);
    if (!(error <= allowed))
      throw new Error(
        `${place()}: off by ${error.toExponential(2)}, allowed ${allowed.toExponential(2)}`,
      );
  }
  const pick = (values: ArrayLike<number>) => Float64Array.from(ordinary, (i) => values[i]);
  const mine = pick(actual);
  const right = pick(f64);
  // A plain evaluation that overflows says nothing of what f32 costs.
  const evaluated = pick(plain).map((x, at) => (Number.isFinite(x) ? x : right[at]));
  const bound = errorBound(right, evaluated, precision);
  const worst = worstElement(mine, right, [mine.length]);
  if (worst.error <= bound) return;
  const index = indexOf(ordinary[worst.index[0]], shape);
  throw new Error(
    `${what}: element [${index}] of [${shape}] is ${worst.actual}, expected ${worst.expected}: off by ${worst.error.toExponential(2)}, allowed ${bound.toExponential(2)}`,
  );
}

function indexOf(element: number, shape: readonly number[]): number[] {
  let rest = element;
  return [...shape]
    .reverse()
    .map((size) => {
      const index = rest % size;
      rest = Math.floor(rest / size);
      return index;
    })
    .reverse();
}
