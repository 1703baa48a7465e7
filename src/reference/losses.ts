// Losses and their gradients, as plain loops.

import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { broadcast, sizeOf } from "./tensors.ts";

export interface ReferenceCrossEntropyOptions {
  /** [C]. Default 1 for all. */
  readonly classWeights?: ArrayLike<number>;
  /** Default -100. */
  readonly ignoreIndex?: number;
  /** Default 0. */
  readonly labelSmoothing?: number;
  /** Default `"mean"`. */
  readonly reduction?: "mean" | "sum" | "none";
  /** The arithmetic. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/** What is known of a row: its maximum, its sum, and the log of its sum. */
function rowOf(x: ArrayLike<number>, begin: number, count: number, round: (x: number) => number) {
  let m = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < count; c++) {
    const value = x[begin + c];
    if (value > m || Number.isNaN(value)) m = value;
  }
  let l = 0;
  for (let c = 0; c < count; c++) l = round(l + round(Math.exp(round(x[begin + c] - m))));
  return { m, l };
}

/** Numbers of the rows and their classes, as the loss and its gradient need them. */
function classesOf(
  logits: ReferenceTensor,
  target: ArrayLike<number>,
  options: ReferenceCrossEntropyOptions,
) {
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean", classWeights } = options;
  const C = logits.shape[logits.shape.length - 1];
  const weight = (c: number) => classWeights?.[c] ?? 1;
  const counts = Array.from(target, (y) => y !== ignoreIndex);
  let divisor = reduction === "mean" ? 0 : 1;
  if (reduction === "mean")
    for (const [r, counted] of counts.entries()) if (counted) divisor += weight(target[r]);
  const keep = 1 - labelSmoothing;
  const share = labelSmoothing / C;
  return { C, weight, counts, divisor, keep, share, reduction };
}

/**
 * The cross-entropy of logits [..., C] and classes [...]:
 *
 *     loss[r] = keep w_y (lse - x_y) + share sum_c w_c (lse - x_c)
 *
 * @param logits dense
 * @returns one number, or one a row with reduction none
 */
export function crossEntropy(
  logits: ReferenceTensor,
  target: ArrayLike<number>,
  options: ReferenceCrossEntropyOptions = {},
): Float64Array {
  const { C, weight, counts, divisor, keep, share, reduction } = classesOf(logits, target, options);
  const { round } = roundingOf(options.precision);
  const losses = Float64Array.from(counts, (counted, r) => {
    const y = target[r];
    if (!counted) return 0;
    if (!(y >= 0 && y < C)) return Number.NaN;
    const { m, l } = rowOf(logits.data, r * C, C, round);
    const cost = (c: number) => round(round(m - logits.data[r * C + c]) + round(Math.log(l)));
    let all = 0;
    if (share) for (let c = 0; c < C; c++) all = round(all + round(weight(c) * cost(c)));
    return round(round(keep * weight(y) * cost(y)) + round(share * all));
  });
  if (reduction === "none") return losses;
  let sum = 0;
  for (const loss of losses) sum += loss;
  return Float64Array.of(sum / divisor);
}

/**
 * The gradient of {@link crossEntropy} by the logits.
 *
 * @param dLoss one number, or one a row with reduction none
 * @returns [..., C]
 */
export function crossEntropyBackward(
  logits: ReferenceTensor,
  target: ArrayLike<number>,
  dLoss: ArrayLike<number>,
  options: ReferenceCrossEntropyOptions = {},
): Float64Array {
  const { C, weight, counts, divisor, keep, share, reduction } = classesOf(logits, target, options);
  const { round } = roundingOf(options.precision);
  const dLogits = new Float64Array(logits.data.length);
  let allWeights = 0;
  for (let c = 0; c < C; c++) allWeights += weight(c);
  for (const [r, counted] of counts.entries()) {
    if (!counted) continue;
    const y = target[r];
    const known = y >= 0 && y < C && divisor !== 0;
    const g = round((reduction === "none" ? dLoss[r] : dLoss[0]) / divisor);
    const { m, l } = rowOf(logits.data, r * C, C, round);
    const own = keep * weight(y);
    for (let c = 0; c < C; c++) {
      const p = round(round(Math.exp(round(logits.data[r * C + c] - m))) / l);
      const slope = round(round((own + share * allWeights) * p) - (c === y ? own : 0));
      const value = round(g * round(slope - share * weight(c)));
      dLogits[r * C + c] = known ? value : Number.NaN;
    }
  }
  return dLogits;
}

export interface ReferenceLossOptions {
  /** `"squared"`, (x - t)^2; `"logistic"`, the binary cross-entropy of a logit. */
  readonly kind: "squared" | "logistic";
  /** Default `"mean"`. */
  readonly reduction?: "mean" | "sum" | "none";
  /** What each element weighs, and a positive target; they broadcast. Default 1. */
  readonly weight?: ReferenceTensor;
  readonly posWeight?: ReferenceTensor;
  /** The arithmetic. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/** The elements of a tensor that broadcasts to a shape, in row-major order. */
function spread(one: ReferenceTensor | undefined, shape: readonly number[]): (i: number) => number {
  if (!one) return () => 1;
  const { data, strides, offset } = broadcast(one, shape.length);
  return (index) => {
    let at = offset;
    let rest = index;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += (rest % shape[axis]) * strides[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    return data[at];
  };
}

const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/**
 * The loss of elements and their targets: (x - t)^2, or
 * w ((1 - t) softplus(x) + p t softplus(-x)).
 *
 * @param x dense
 * @param target dense, of the shape of x
 * @returns one number, or one an element with reduction none
 */
export function elementLoss(
  x: ReferenceTensor,
  target: ArrayLike<number>,
  { kind, reduction = "mean", precision, ...weights }: ReferenceLossOptions,
): Float64Array {
  const { round } = roundingOf(precision);
  const weight = spread(weights.weight, x.shape);
  const positive = spread(weights.posWeight, x.shape);
  const losses = Float64Array.from(x.data, (value, i) => {
    const t = target[i];
    if (kind === "squared") return round(round(value - t) ** 2);
    const negative = round(round(1 - t) * round(softplus(value)));
    return round(weight(i) * round(negative + round(positive(i) * t * round(softplus(-value)))));
  });
  if (reduction === "none") return losses;
  let sum = 0;
  for (const loss of losses) sum += loss;
  return Float64Array.of(reduction === "mean" ? sum / sizeOf(x.shape) : sum);
}

/**
 * The gradients of {@link elementLoss} by x and by the target.
 *
 * @param dLoss one number, or one an element with reduction none
 */
export function elementLossBackward(
  x: ReferenceTensor,
  target: ArrayLike<number>,
  dLoss: ArrayLike<number>,
  { kind, reduction = "mean", precision, ...weights }: ReferenceLossOptions,
) {
  const { round } = roundingOf(precision);
  const weight = spread(weights.weight, x.shape);
  const positive = spread(weights.posWeight, x.shape);
  const divisor = reduction === "mean" ? sizeOf(x.shape) : 1;
  const dX = new Float64Array(x.data.length);
  const dTarget = new Float64Array(x.data.length);
  for (let i = 0; i < x.data.length; i++) {
    const value = x.data[i];
    const t = target[i];
    const g = round((reduction === "none" ? dLoss[i] : dLoss[0]) / divisor);
    if (kind === "squared") {
      dX[i] = round(g * round(2 * round(value - t)));
      dTarget[i] = -dX[i];
      continue;
    }
    const p = positive(i);
    const falling = round(p * t * round(sigmoid(-value)));
    const slope = round(round(round(1 - t) * round(sigmoid(value))) - falling);
    const byTarget = round(round(p * round(softplus(-value))) - round(softplus(value)));
    dX[i] = round(g * round(weight(i) * slope));
    dTarget[i] = round(g * round(weight(i) * byTarget));
  }
  return { dX, dTarget };
}

/** The place of the largest element of each row [..., C]: the first one, and a NaN before all. */
export function argmax({ data, shape }: ReferenceTensor): Int32Array {
  const C = shape[shape.length - 1];
  return Int32Array.from({ length: data.length / C }, (_, r) => {
    let best = 0;
    for (let c = 1; c < C; c++) {
      const value = data[r * C + c];
      const most = data[r * C + best];
      if (value > most || (Number.isNaN(value) && !Number.isNaN(most))) best = c;
    }
    return best;
  });
}
