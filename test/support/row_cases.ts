// Problems of everything that works on rows or single elements, as fuzzing describes them: plain
// data, run on the GPU and compared with the reference slice by slice, so that a huge row hides no
// error of another.

import {
  addBias,
  copyTensor,
  gelu,
  layerNorm,
  logSoftmax,
  positionEncoding,
  project,
  rmsNorm,
  rotary,
  softmax,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import {
  layerNorm as norm64,
  pointwise as pointwise64,
  positionEncoding as positions64,
  project as project64,
  type ReferenceTensor,
  rotary as rotary64,
  softmaxAlong,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { elements } from "../../src/reference/tensors.ts";
import { type Float, product, ROUND } from "./cases.ts";

export type RowOperation =
  | (
      | "softmax"
      | "logSoftmax"
      | "layerNorm"
      | "rmsNorm"
      | "gelu"
      | "addBias"
      | "copyTensor"
      | "project"
    )
  | ("rotary" | "positionEncoding");

/** Hostile values of x, for one row in three or for some elements. */
export type RowExtreme = "huge" | "tiny" | "constant" | "far" | "zeros" | "nan" | "nothing";

export interface RowCase {
  readonly op: RowOperation;
  /** Sizes of x, which is [B, M, N], or [B, H, M, N] for rotary. */
  readonly B?: number;
  readonly H?: number;
  readonly M: number;
  readonly N: number;
  /** Columns of a projection. */
  readonly K?: number;
  readonly axis?: number;
  /** How x and the output are stored. Default f32. */
  readonly dtype?: readonly [x: Float, output: Float];
  /**
   * Numbers of the orders in which the axes of x and of the output lie in memory. Default in order.
   */
  readonly order?: readonly [x: number, output: number];
  /** Elements between rows of x in memory that belong to nobody. */
  readonly gap?: number;
  readonly epsilon?: number;
  /** Whether there is a residual, a weight, a bias. */
  readonly residual?: boolean;
  readonly weight?: boolean;
  readonly bias?: boolean;
  /**
   * Another form: gelu by tanh, rotary with neighbours as pairs, positions with all sines first.
   */
  readonly other?: boolean;
  readonly offset?: number;
  readonly spread?: number;
  readonly extremes?: readonly RowExtreme[];
  readonly seed?: number;
}

const UNIT = 2 ** -24;
const FACTORS = { huge: 1e18, tiny: 1e-20, zeros: 0 } as const;
const FAR = 8e6;
const HUGE_F16 = 100;
const FAR_F16 = 1000;

/** Makes x of a case, row-major. */
function values(
  { op, N, extremes = [], dtype = ["f32", "f32"], seed = 1, spread = 1 }: RowCase,
  count: number,
) {
  const data = normal(seed * 8, count, spread);
  const half = dtype.includes("f16");
  const has = (kind: RowExtreme) => extremes.includes(kind);
  for (let row = 0; row * N < count; row++) {
    const part = data.subarray(row * N, (row + 1) * N);
    const turn = (row + seed) % 3;
    if (turn === 0) {
      for (const kind of ["huge", "tiny", "zeros"] as const) {
        const factor = kind === "huge" && half ? HUGE_F16 : FACTORS[kind];
        if (has(kind)) for (let d = 0; d < N; d++) part[d] *= factor;
      }
    }
    if (turn === 1 && has("constant")) part.fill(part[0]);
    if (turn === 1 && has("far")) for (let d = 0; d < N; d++) part[d] += half ? FAR_F16 : FAR;
    if (turn === 2 && has("nothing") && op.endsWith("oftmax"))
      for (let d = row % 2; d < N; d += 2) part[d] = -Infinity;
    if (turn === 2 && has("nan") && row % 2 === 0) part[seed % N] = Number.NaN;
  }
  return data.map(ROUND[dtype[0]]);
}

/** Returns an order of `rank` axes by its number. */
function orderOf(rank: number, number: number): number[] {
  const left = Array.from({ length: rank }, (_, axis) => axis);
  let rest = number;
  return Array.from({ length: rank }, (_, taken) => {
    const [axis] = left.splice(rest % left.length, 1);
    rest = Math.floor(rest / (rank - taken));
    return axis;
  });
}

/**
 * Returns strides of a tensor whose axes lie in memory in another order, with a gap after each run
 * of the innermost axis.
 */
function stridesOf(shape: readonly number[], order: readonly number[], gap: number): number[] {
  const strides = shape.map(() => 0);
  let step = 1;
  for (const [place, axis] of [...order].reverse().entries()) {
    strides[axis] = step;
    step *= Math.max(1, shape[axis]);
    if (place === 0) step += gap;
  }
  return strides;
}

/**
 * The right result, the result of f32, and how far each element may be off beside three times what
 * f32 costs its slice.
 */
interface Expected {
  readonly f64: Float64Array;
  readonly plain: Float64Array;
  readonly allowed: (index: number, slice: { readonly most: number; readonly x: number }) => number;
  /** Elements of a slice in the order of the result; default rows. */
  readonly slice?: (index: number) => number;
}

interface Operands {
  readonly x: ReferenceTensor;
  readonly weight: ReferenceTensor | undefined;
  readonly bias: ReferenceTensor | undefined;
  readonly residual: ReferenceTensor | undefined;
}

/** Computes the right result of a case. */
function expected(problem: RowCase, { x, weight, bias, residual }: Operands): Expected {
  const { op, N, axis = -1, epsilon = 1e-5, other = false, offset = 0 } = problem;
  const both = <T>(work: (precision: "f64" | "f32") => T) => ({
    f64: work("f64"),
    plain: work("f32"),
  });
  const large = (_: number, { most }: { most: number }) => 4e-6 * most;
  if (op === "softmax" || op === "logSoftmax") {
    const along = axis < 0 ? axis + x.shape.length : axis;
    const step = product(x.shape.slice(along + 1));
    const slice = (index: number) =>
      Math.floor(index / (step * x.shape[along])) * step + (index % step);
    return {
      ...both((precision) => softmaxAlong(x, { axis, log: op === "logSoftmax", precision })),
      slice,
      allowed: large,
    };
  }
  if (op === "layerNorm" || op === "rmsNorm") {
    const options = { axis, epsilon, rms: op === "rmsNorm", weight, bias, residual };
    const { f64, plain } = both((precision) => norm64(x, { ...options, precision }).output);
    const width = product(x.shape.slice(axis < 0 ? axis + x.shape.length : axis));
    // Without a residual x is exact, so the result has to be right whatever the mean is; a sum with
    // a residual is rounded first.
    const tight = residual ? plain : f64;
    return {
      f64,
      plain: tight,
      slice: (i) => Math.floor(i / width),
      allowed: (_, { most }) => 2e-5 * Math.max(most, 1e-30),
    };
  }
  if (op === "project") {
    const K = N;
    const w = weight as ReferenceTensor;
    const absolute = (t: ReferenceTensor) => ({ ...t, data: Float64Array.from(t.data, Math.abs) });
    const sizes = project64(absolute(x), absolute(w));
    const results = both((precision) => project64(x, w, bias, { precision }));
    return {
      f64: results.f64,
      plain: results.f64,
      allowed: (i) => (K + 8) * UNIT * sizes[i] + 8 * UNIT * Math.abs(results.f64[i]),
    };
  }
  if (op === "rotary") {
    const options = {
      interleaved: other,
      position: (_: number, __: number, row: number) => row + offset,
    };
    return {
      ...both((precision) => rotary64(x, { ...options, precision })),
      allowed: (_, { x }) => 4e-6 * x,
    };
  }
  if (op === "positionEncoding") {
    const options = {
      position: (_: number, row: number) => row + offset,
      order: other ? ("halves" as const) : ("interleaved" as const),
    };
    return {
      ...both((precision) => positions64(x, { ...options, precision })),
      allowed: (_, { most }) => 4e-6 * (most + 1),
    };
  }
  const activation = op === "gelu" ? (other ? "gelu-tanh" : "gelu") : undefined;
  const options = { bias, residual, activation } as const;
  const { f64 } = both((precision) => pointwise64(x, { ...options, precision }));
  const parts = [x, bias, residual].flatMap((one) => (one ? [elements(one, x.shape)] : []));
  const size = (i: number) => parts.reduce((sum, part) => sum + Math.abs(part[i]), 0);
  // The slope of gelu is below 1.13, and it has to be right to 4e-6 of itself or of 1.
  const allowed = (i: number) =>
    4 * UNIT * size(i) + (activation ? 4e-6 * Math.max(Math.min(1, size(i)), Math.abs(f64[i])) : 0);
  return { f64, plain: f64, allowed };
}

/** Runs a case into a poisoned output and compares it with the reference. */
export async function runRowCase(device: GPUDevice, problem: RowCase): Promise<void> {
  const {
    op,
    B = 1,
    H = 1,
    M,
    N,
    K = 4,
    dtype = ["f32", "f32"],
    order = [0, 0],
    gap = 0,
    seed = 1,
    offset,
  } = problem;
  const used: Tensor[] = [];
  const put = (
    shape: readonly number[],
    data: Float32Array,
    dtype: Float,
    at: number,
    space: number,
  ) => {
    const strides = stridesOf(shape, orderOf(shape.length, at), space);
    used.push(tensor(device, shape, { data, dtype, strides }));
    return used[used.length - 1];
  };
  try {
    const shape = op === "rotary" ? [B, H, M, N] : [B, M, N];
    const x = { shape, data: values(problem, product(shape)) };
    const made = (asked: boolean | undefined, size: readonly number[], what: number) =>
      asked ? { shape: size, data: normal(seed * 8 + what, product(size)) } : undefined;
    const wide = op === "layerNorm" || op === "rmsNorm" ? shape.slice(problem.axis ?? -1) : [N];
    const weight = op === "project" ? made(true, [K, N], 1) : made(problem.weight, wide, 1);
    const bias = made(problem.bias || op === "addBias", op === "project" ? [K] : wide, 2);
    const residual = op === "project" ? undefined : made(problem.residual, shape, 3);
    const right = expected(problem, { x, weight, bias, residual });
    const outputShape = op === "project" ? [B, M, K] : shape;
    const nan = new Float32Array(product(outputShape)).fill(Number.NaN);
    const output = put(outputShape, nan, dtype[1], order[1], 0);
    const given = (one: ReferenceTensor | undefined) =>
      one && put(one.shape, one.data as Float32Array, "f32", 0, 0);
    const gpu = { weight: given(weight), bias: given(bias), residual: given(residual) };
    await call(problem, put(shape, x.data, dtype[0], order[0], gap), gpu, output, offset);
    compare(op, await output.read(), right, {
      x,
      shape: outputShape,
      width: outputShape[outputShape.length - 1],
      dtype: dtype[1],
    });
  } finally {
    for (const one of used) one.destroy();
  }
}

type Given = Readonly<Record<"weight" | "bias" | "residual", Tensor | undefined>>;

function call(
  { op, axis, epsilon, other = false }: RowCase,
  x: Tensor,
  { weight, bias, residual }: Given,
  output: Tensor,
  positionOffset = 0,
): Promise<unknown> {
  const along = { output, ...(axis !== undefined && { axis }) };
  const added = { output, ...(residual && { residual }) };
  const parts = { ...added, ...(bias && { bias }) };
  const norm = {
    ...along,
    ...parts,
    ...(weight && { weight }),
    ...(epsilon !== undefined && { epsilon }),
  };
  if (op === "softmax") return softmax(x, along);
  if (op === "logSoftmax") return logSoftmax(x, along);
  if (op === "layerNorm") return layerNorm(x, norm);
  if (op === "rmsNorm") return rmsNorm(x, norm);
  if (op === "gelu") return gelu(x, { ...parts, approximate: other ? "tanh" : "none" });
  if (op === "addBias") return addBias(x, bias as Tensor, added);
  if (op === "copyTensor") return copyTensor(x, parts);
  if (op === "project") return project(x, weight as Tensor, { output, ...(bias && { bias }) });
  if (op === "rotary") return rotary(x, { output, positionOffset, interleaved: other });
  return positionEncoding(x, { output, positionOffset, order: other ? "halves" : "interleaved" });
}

/**
 * The share of a result that storing it costs, and what is lost below the smallest numbers of the
 * dtype.
 */
const STORED = {
  f32: [UNIT, 2 ** -126],
  f16: [2 ** -11, 2 ** -24],
  bf16: [2 ** -8, 2 ** -126],
} as const;

function compare(
  op: string,
  actual: ArrayLike<number>,
  { f64, plain, allowed, slice }: Expected,
  {
    x,
    shape,
    width,
    dtype,
  }: { x: ReferenceTensor; shape: readonly number[]; width: number; dtype: Float },
): void {
  const sliceOf = slice ?? ((index: number) => Math.floor(index / width));
  const of = new Map<number, { most: number; x: number; cost: number }>();
  for (let i = 0; i < f64.length; i++) {
    const found = of.get(sliceOf(i)) ?? { most: 0, x: 0, cost: 0 };
    const larger = (a: number, b: number) => (Number.isFinite(b) ? Math.max(a, Math.abs(b)) : a);
    const own = x.data.length === f64.length ? x.data[i] : 0;
    of.set(sliceOf(i), {
      most: larger(found.most, f64[i]),
      x: larger(found.x, own),
      cost: larger(found.cost, plain[i] - f64[i]),
    });
  }
  const [share, least] = STORED[dtype];
  for (let i = 0; i < f64.length; i++) {
    const right = ROUND[dtype](f64[i]);
    const place = () => `${op}: element ${i} of [${shape}] is ${actual[i]}, expected ${f64[i]}`;
    if (!Number.isFinite(right)) {
      if (!Object.is(actual[i], right))
        throw new Error(`${place()}: what is not finite must be the same`);
      continue;
    }
    const row = of.get(sliceOf(i)) as { most: number; x: number; cost: number };
    const bound = 3 * row.cost + allowed(i, row) + share * Math.abs(f64[i]) + least;
    const error = Math.abs(actual[i] - f64[i]);
    if (!(error <= bound))
      throw new Error(
        `${place()}: off by ${error.toExponential(2)}, allowed ${bound.toExponential(2)}`,
      );
  }
}
