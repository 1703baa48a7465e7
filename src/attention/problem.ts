// From what the caller says to numbers that the kernels take. All input is checked here, before the
// GPU sees any of it.

import { check, show } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import {
  AXES,
  checkedSpec,
  checkLayout,
  dense,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
  toBhmd,
} from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";
import { keysAndValues } from "./cached.ts";
import { defaultScale, type Extension, resolveFeatures, SCORE_OPTIONS } from "./features.ts";
import type { KvSourceOwner } from "./kv_source.ts";
import type { ScoreOptions, TunedAttention } from "./options.ts";
import type { Features, ResolvedProblem } from "./resolved.ts";

/** What scores are made of: the part of a problem that has no values. */
export interface ScoreProblem extends ScoreOptions {
  /**
   * [B, H, M, D]. A tensor, or what one will look like. f32, f16 or bf16, as also k, v and output,
   * each its own.
   */
  readonly q: TensorSpec;
  /** [B, Hkv, N, D], H a multiple of Hkv: query head h uses key head floor(h * Hkv / H). */
  readonly k: TensorSpec;
  /**
   * Axis order of q, k, v and output; the shapes are then given in that order. Default `"bhmd"`.
   */
  readonly layout?: Layout;
  /**
   * Floating-point operations after which a dispatch is cut in two, so that none runs long enough
   * for a browser's or system's watchdog (2 s on Windows), or for a frame. Default 2^36, and 2^32
   * on software adapters.
   */
  readonly maxDispatchFlops?: number;
  /**
   * Name of the plan's GPU objects in errors and captures. Default the name of the function, as
   * `"attention"`.
   */
  readonly label?: string;
}

/**
 * The problem that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface AttentionProblem extends ScoreProblem {
  /** [B, Hkv, N, Dv] */
  readonly v: TensorSpec;
  /** [B, H, M, Dv]. Default: dense, of the dtype of q. */
  readonly output?: TensorSpec;
  /**
   * Ask for the log-sum-exp of the scores, [B, H, M] f32: `true` for a dense tensor, or what it
   * will look like.
   */
  readonly lse?: boolean | TensorSpec;
  /**
   * Ask for the largest score of each row, [B, H, M] f32, natural units, -Infinity where a row sees
   * no key.
   */
  readonly rowMax?: boolean | TensorSpec;
  /**
   * Workgroups that share the keys of a row where up to 16 queries are decoded. The default depends
   * on shapes, batch size and device; a number of your own gives the same bits for an entry,
   * whatever else is in its batch.
   */
  readonly kvSplits?: number;
  /**
   * Where q, k and v are f16 in rows of multiples of 4 elements, up to 128, and the device has
   * shader-f16: multiply in f16, twice as many at a time, and sum in f32 after 8 or 16 products.
   * Errors are then about those of an evaluation that stores scores and probabilities in f16 (1 to
   * 2.5 times), and up to 7 times those of the default, which rounds nothing but the output. Large
   * scores are multiplied in f32, and so is everything where scores are modified or masked by more
   * than causality, windows, lengths and sinks, and where dropout, lse or rowMax is asked for.
   * Default false.
   */
  readonly allowF16Products?: boolean;
  /**
   * Take this row of the kernel's tile table instead of the one that fits the device. For
   * benchmarks and tests.
   */
  readonly variant?: string;
  /**
   * What {@link tune} found for this problem on this adapter, in place of variant and kvSplits.
   * Throws FoveaError("argument") for the result of another adapter or another problem.
   */
  readonly tuned?: TunedAttention;
}

/**
 * A problem whose keys and values are in a cache. N is the most keys that an entry can have, which
 * masks and biases in memory have to cover; how many it has is known to the cache.
 */
export type Cached<Problem extends ScoreProblem> = Omit<Problem, "k" | "v"> & {
  /** A `KvCache` or a `PagedKvCache`. */
  readonly cache: KvSourceOwner;
};

/** Problems as they are read. */
export type TakenScoreProblem = Taken<ScoreProblem | Cached<ScoreProblem>>;
export type TakenProblem = Taken<AttentionProblem | Cached<AttentionProblem>>;

/** The names of all members of a problem without values. */
export const SCORE_PROBLEM: OptionNames<ScoreProblem | Cached<ScoreProblem>> = {
  ...SCORE_OPTIONS,
  q: "any",
  k: "any",
  cache: "any",
  layout: "string",
  maxDispatchFlops: "number",
  label: "string",
};

/** The names of all members of a problem. */
export const ATTENTION_PROBLEM: OptionNames<AttentionProblem | Cached<AttentionProblem>> = {
  ...SCORE_PROBLEM,
  v: "any",
  output: "any",
  lse: "any",
  rowMax: "any",
  kvSplits: "number",
  allowF16Products: "boolean",
  variant: "string",
  tuned: "any",
};

/**
 * Checks a problem and fills in its defaults. Throws FoveaError("argument") that names what is
 * wrong.
 *
 * @param extension What `loadExtension` gives for the problem
 */
export function resolveProblem(
  problem: TakenProblem,
  extension: Extension | undefined,
): ResolvedProblem {
  const { label = "attention", layout = "bhmd" } = problem;
  const { kvSplits, allowF16Products = false } = problem;
  check(
    typeof allowF16Products === "boolean",
    "argument",
    () => `${label}: allowF16Products must be true or false, got ${show(allowF16Products)}.`,
  );
  check(
    kvSplits === undefined || (Number.isInteger(kvSplits) && kvSplits >= 1 && kvSplits <= 4096),
    "argument",
    () => `${label}: kvSplits must be a whole number from 1 to 4096, got ${kvSplits}.`,
  );
  const scores = resolveScores(label, problem, true, extension);
  const { q, lseShape, vDim } = scores;
  const outputShape = [...lseShape, vDim];
  const output = problem.output
    ? toBhmd(label, "output", problem.output, layout, FLOATS)
    : dense(outputShape, layout, q.dtype);
  expectShape(
    label,
    "output",
    reorder(output, layout),
    reorder({ ...output, shape: outputShape }, layout).shape,
  );
  expectApart(label, "output", output);
  const perRow = (name: "lse" | "rowMax") => {
    const asked = problem[name] === true ? { shape: lseShape } : problem[name] || undefined;
    if (!asked) return undefined;
    const spec = checkedSpec(label, name, asked);
    expectShape(label, name, spec, lseShape);
    expectApart(label, name, spec);
    return spec;
  };
  return {
    ...scores,
    output,
    lse: perRow("lse"),
    rowMax: perRow("rowMax"),
    outputShape: reorder(output, layout).shape,
    variant: problem.variant,
    allowF16Products,
    kvSplits,
    tuned: problem.tuned,
  };
}

/** Checks what scores are made of, and v where there is one. */
export function resolveScores<Values extends boolean>(
  label: string,
  problem: TakenScoreProblem,
  values: Values,
  extension: Extension | undefined,
) {
  const { layout = "bhmd" } = problem;
  checkOptions(label, problem);
  const given = keysAndValues(label, problem);
  const q = toBhmd(label, "q", problem.q, layout, FLOATS);
  const k = toBhmd(label, "k", given.k as TensorSpec, layout, FLOATS);
  const v = values ? toBhmd(label, "v", given.v as TensorSpec, layout, FLOATS) : undefined;
  checkShapes(label, layout, q, k, v);
  const [batch, heads, rowsQ, headDim] = q.shape;
  const [, kvHeads, rowsKv] = k.shape;
  const rowsOf = ({ shape }: TensorSpec) => shape[0] * shape[1] * shape[2];
  const normRows = { q: rowsOf(q), k: rowsOf(given.source?.k ?? k) };
  const sizes = { batch, heads, headDim, rowsQ, rowsKv, normRows };
  const features = resolveFeatures(label, problem, sizes, given.source, extension);
  const scale = problem.scale ?? defaultScale(features.similarity, headDim);
  const bounded = features.softcap !== undefined || features.similarity.kind === "normalized";
  check(
    Math.abs(scale) <= LARGE_SCALE || bounded || (values && hasPlainScores(features)),
    "argument",
    () =>
      `${label}: a scale beyond ${LARGE_SCALE} goes with plain scores or a softcap only, got ${scale}.`,
  );
  return {
    label,
    layout,
    heads,
    kvHeads,
    headDim,
    q,
    k,
    lseShape: [batch, heads, rowsQ],
    v: v as Values extends true ? ResolvedSpec : undefined,
    vDim: v?.shape[3] ?? 0,
    source: given.source,
    ...features,
    extension,
    scale,
    maxDispatchFlops: problem.maxDispatchFlops,
  };
}

/** Beyond it plain scores have a unit of their own: shaders/variants/similarity_scaled.wesl. */
const LARGE_SCALE = 2 ** 64;

export const isLargeScale = (problem: Features & { readonly scale: number }): boolean =>
  Math.abs(problem.scale) > LARGE_SCALE && hasPlainScores(problem);

/** Whether scores are products with a scale and temperature, and masked by their places only. */
export function hasPlainScores(features: Features): boolean {
  const { similarity, softcap, bias, mask, scoreFunction, maskFunction, tables } = features;
  const more = softcap ?? bias ?? mask ?? scoreFunction ?? maskFunction;
  return (
    similarity.kind === "dot" &&
    !more &&
    !tables.some(({ at }) => at === "slopes_at" || at === "relative_values_at")
  );
}

function checkOptions(
  label: string,
  { layout = "bhmd", scale, maxDispatchFlops = 1 }: TakenScoreProblem,
): void {
  checkLayout(label, layout);
  check(
    scale === undefined || Number.isFinite(Math.fround(scale)),
    "argument",
    () =>
      `${label}: scale must be a finite number of f32, got ${show(scale)}. Leave it out for the default.`,
  );
  check(
    maxDispatchFlops > 0,
    "argument",
    () => `${label}: maxDispatchFlops must be a positive number, got ${maxDispatchFlops}.`,
  );
}

function checkShapes(
  label: string,
  layout: Layout,
  q: ResolvedSpec,
  k: ResolvedSpec,
  v?: ResolvedSpec,
): void {
  const values = v ? `, v ${shapeText(v, layout)}` : "";
  const shapes = () => `q is ${shapeText(q, layout)}, k ${shapeText(k, layout)}${values}`;
  const expect = (condition: boolean, what: string) =>
    check(condition, "argument", () => `${label}: ${what} (axes ${AXES[layout]}): ${shapes()}.`);
  const [batch, heads, , headDim] = q.shape;
  const [, kvHeads, seqKv] = k.shape;
  const all = v ? "q, k and v" : "q and k";
  expect(
    k.shape[0] === batch && (!v || v.shape[0] === batch),
    `${all} must have the same batch size`,
  );
  expect(k.shape[3] === headDim, "q and k must have the same head dim");
  expect(!v || v.shape[1] === kvHeads, "k and v must have the same number of heads");
  expect(!v || v.shape[2] === seqKv, "k and v must have the same number of keys");
  expect(headDim >= 1 && (!v || v.shape[3] >= 1), "head dims start at 1");
  expect(heads >= 1 && kvHeads >= 1, "there must be a head");
  expect(
    heads % kvHeads === 0,
    `the ${heads} query heads must be a multiple of the ${kvHeads} key heads`,
  );
}

const shapeText = (spec: ResolvedSpec, layout: Layout) =>
  `[${reorder(spec, layout).shape.join(", ")}]`;
