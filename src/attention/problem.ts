// From what the caller says to numbers that the kernels take. All input is checked here, before the GPU sees any of it.

import { check } from "../errors.ts";
import { extentOf, resolveSpec } from "../gpu/tensor.ts";
import type { Layout, TensorSpec } from "../types.ts";
import { type Features, resolveFeatures } from "./features.ts";
import type { ScoreOptions } from "./options.ts";

/** The problem that a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface AttentionProblem extends ScoreOptions {
  /** [B, H, M, D]. A tensor, or what one will look like. f32. */
  readonly q: TensorSpec;
  /** [B, Hkv, N, D], H a multiple of Hkv: query head h uses key head floor(h * Hkv / H). */
  readonly k: TensorSpec;
  /** [B, Hkv, N, Dv] */
  readonly v: TensorSpec;
  /** [B, H, M, Dv]. Default: dense. */
  readonly output?: TensorSpec;
  /** Ask for the log-sum-exp of the scores, [B, H, M] f32: `true` for a dense tensor, or what it will look like. */
  readonly lse?: boolean | TensorSpec;
  /** Ask for the largest score of each row, [B, H, M] f32, natural units, -Infinity where a row sees no key. */
  readonly rowMax?: boolean | TensorSpec;
  /** Axis order of q, k, v and output; the shapes are then given in that order. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Take this row of the kernel's tile table instead of the one that fits the device. For benchmarks. */
  readonly variant?: string;
  /**
   * Floating-point operations after which a dispatch is cut in two, so that none runs long enough for a browser's or
   * system's watchdog (2 s on Windows), or for a frame. Default 2^36.
   */
  readonly maxDispatchFlops?: number;
  /** Name of the plan's GPU objects in errors and captures. Default `"attention"`. */
  readonly label?: string;
}

export type ResolvedSpec = Required<TensorSpec>;

/** A checked problem. Tensors are in BHMD order. */
export interface ResolvedProblem extends Features {
  readonly label: string;
  readonly layout: Layout;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly q: ResolvedSpec;
  readonly k: ResolvedSpec;
  readonly v: ResolvedSpec;
  readonly output: ResolvedSpec;
  /** The shapes of the output in the caller's layout, and of the log-sum-exp. */
  readonly outputShape: readonly number[];
  readonly lseShape: readonly number[];
  readonly lse: ResolvedSpec | undefined;
  readonly rowMax: ResolvedSpec | undefined;
  readonly scale: number;
  readonly variant: string | undefined;
  readonly maxDispatchFlops: number;
}

const AXES: Readonly<Record<Layout, readonly string[]>> = { bhmd: ["B", "H", "M", "D"], bmhd: ["B", "M", "H", "D"] };

/** Checks a problem and fills in its defaults. Throws FoveaError("argument") that names what is wrong. */
export function resolveProblem(problem: AttentionProblem): ResolvedProblem {
  check(
    typeof problem === "object" && problem !== null,
    "argument",
    () => `attention: expected a problem { q, k, v, ... }, got ${problem}.`,
  );
  const { label = "attention", layout = "bhmd" } = problem;
  checkOptions(label, problem);
  const q = toBhmd(label, "q", problem.q, layout);
  const k = toBhmd(label, "k", problem.k, layout);
  const v = toBhmd(label, "v", problem.v, layout);
  checkShapes(label, layout, q, k, v);
  const [batch, heads, rowsQ, headDim] = q.shape;
  const [, kvHeads, rowsKv] = k.shape;
  const vDim = v.shape[3];

  const outputShape = [batch, heads, rowsQ, vDim];
  const lseShape = [batch, heads, rowsQ];
  const output = problem.output ? toBhmd(label, "output", problem.output, layout) : dense(outputShape, layout);
  expectShape(label, "output", output, outputShape, layout);
  const perRow = (name: "lse" | "rowMax") => {
    const asked = problem[name] === true ? { shape: lseShape } : problem[name] || undefined;
    const spec = asked && float32(label, name, resolveSpec(`${label}: ${name}`, asked));
    if (spec) expectShape(label, name, spec, lseShape);
    return spec;
  };

  return {
    ...{ label, layout, heads, kvHeads, headDim, vDim, q, k, v, output, lseShape },
    ...{ lse: perRow("lse"), rowMax: perRow("rowMax") },
    ...resolveFeatures(label, problem, { batch, heads, rowsQ, rowsKv }),
    outputShape: reorder(output, layout).shape,
    scale: problem.scale ?? 1 / Math.sqrt(headDim),
    variant: problem.variant,
    maxDispatchFlops: problem.maxDispatchFlops ?? 2 ** 36,
  };
}

function checkOptions(label: string, { layout = "bhmd", scale, maxDispatchFlops = 1 }: AttentionProblem): void {
  check(layout in AXES, "argument", () => `${label}: layout must be "bhmd" or "bmhd", got ${JSON.stringify(layout)}.`);
  check(
    scale === undefined || Number.isFinite(scale),
    "argument",
    () => `${label}: scale must be a finite number, got ${scale}. Leave it out for 1 / sqrt(D).`,
  );
  check(
    maxDispatchFlops > 0,
    "argument",
    () => `${label}: maxDispatchFlops must be a positive number, got ${maxDispatchFlops}.`,
  );
}

function checkShapes(label: string, layout: Layout, q: ResolvedSpec, k: ResolvedSpec, v: ResolvedSpec): void {
  const shapes = () => `q is ${shapeText(q, layout)}, k ${shapeText(k, layout)}, v ${shapeText(v, layout)}`;
  const expect = (condition: boolean, what: string) =>
    check(condition, "argument", () => `${label}: ${what} (axes ${AXES[layout].join("")}): ${shapes()}.`);
  const [batch, heads, , headDim] = q.shape;
  const [, kvHeads, seqKv] = k.shape;
  expect(k.shape[0] === batch && v.shape[0] === batch, "q, k and v must have the same batch size");
  expect(k.shape[3] === headDim, "q and k must have the same head dim");
  expect(v.shape[1] === kvHeads, "k and v must have the same number of heads");
  expect(v.shape[2] === seqKv, "k and v must have the same number of keys");
  expect(headDim >= 1 && v.shape[3] >= 1, "head dims start at 1");
  expect(heads >= 1 && kvHeads >= 1, "there must be a head");
  expect(heads % kvHeads === 0, `the ${heads} query heads must be a multiple of the ${kvHeads} key heads`);
}

/** The spec with its axes in BHMD order. */
function toBhmd(label: string, name: string, spec: TensorSpec, layout: Layout): ResolvedSpec {
  check(
    typeof spec === "object" && spec !== null && Array.isArray(spec.shape),
    "argument",
    () => `${label}: ${name} must be a tensor, or { shape, strides?, offset?, dtype? }, got ${spec}.`,
  );
  const resolved = resolveSpec(`${label}: ${name}`, spec);
  check(
    resolved.shape.length === 4,
    "argument",
    () =>
      `${label}: ${name} must have the four axes ${AXES[layout].join("")}, got shape [${spec.shape}]. Use view() to add axes of size 1, or splitHeads() to take heads apart.`,
  );
  check(
    resolved.shape.every((size) => size < 2 ** 29),
    "limit",
    () => `${label}: ${name} has an axis of 2^29 or more: [${spec.shape}].`,
  );
  return reorder(float32(label, name, resolved), layout);
}

function float32(label: string, name: string, spec: ResolvedSpec): ResolvedSpec {
  check(spec.dtype === "f32", "argument", () => `${label}: ${name} must be f32, got ${spec.dtype}.`);
  return spec;
}

/** From the caller's layout to BHMD or back: both ways the axes in the middle are swapped. */
export const reorder = (spec: ResolvedSpec, layout: Layout): ResolvedSpec => {
  if (layout === "bhmd") return spec;
  const swap = ([a, b, c, d]: readonly number[]) => [a, c, b, d];
  return { ...spec, shape: swap(spec.shape), strides: swap(spec.strides) };
};

const dense = (shape: readonly number[], layout: Layout): ResolvedSpec => {
  const inLayout = reorder({ shape, strides: shape, offset: 0, dtype: "f32" }, layout).shape;
  return reorder(resolveSpec("output", { shape: inLayout }), layout);
};

const shapeText = (spec: ResolvedSpec, layout: Layout) => `[${reorder(spec, layout).shape.join(", ")}]`;

function expectShape(label: string, name: string, spec: ResolvedSpec, shape: readonly number[], layout?: Layout): void {
  const text = (s: ResolvedSpec) => (layout ? shapeText(s, layout) : `[${s.shape.join(", ")}]`);
  check(
    shape.every((size, axis) => spec.shape[axis] === size) && spec.shape.length === shape.length,
    "argument",
    () => `${label}: ${name} must be ${text({ ...spec, shape })}, got ${text(spec)}.`,
  );
  check(
    !overlapsItself(spec),
    "overlap",
    () =>
      `${label}: elements of ${name} share memory (shape [${spec.shape}], strides [${spec.strides}]); an output needs a place for each.`,
  );
}

/** Whether two indices reach the same element, for strides that nest; strides that interleave count as overlapping. */
function overlapsItself({ shape, strides }: ResolvedSpec): boolean {
  if (shape.includes(0)) return false;
  const axes = shape.map((size, axis) => ({ size, stride: strides[axis] })).filter(({ size }) => size > 1);
  axes.sort((a, b) => a.stride - b.stride);
  let extent = 1;
  for (const { size, stride } of axes) {
    if (stride < extent) return true;
    extent = extentOf([size], [stride]) - 1 + extent;
  }
  return false;
}
