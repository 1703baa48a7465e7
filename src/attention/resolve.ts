// Turns a problem as the caller gives it into numbers that kernels take. All input is checked here,
// before the GPU sees any of it.

import { check, show } from "../errors.ts";
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
import { defaultScale, type Extension, hasPlainScores, resolveOptions } from "../scores/resolve.ts";
import type { ResolvedOptions } from "../scores/resolved.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { KvSourceOwner } from "./kv_source.ts";
import type { TakenProblem, TakenScoreProblem } from "./problem.ts";
import type { ResolvedProblem } from "./resolved.ts";

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

/** What the keys and values of a problem are. */
interface Keys {
  readonly k?: TensorSpec;
  readonly v?: TensorSpec;
  readonly cache?: KvSourceOwner;
}

/** Checks the part of a problem that scores depend on, and v if there is one. */
export function resolveScores<Values extends boolean>(
  label: string,
  problem: TakenScoreProblem,
  values: Values,
  extension: Extension | undefined,
) {
  const { layout = "bhmd" } = problem;
  checkOptions(label, problem);
  const own: Keys = problem;
  const given =
    own.cache !== undefined && extension
      ? extension.keysOfCache(label, own)
      : { k: own.k, v: own.v, cache: undefined };
  const q = toBhmd(label, "q", problem.q, layout, FLOATS);
  const k = toBhmd(label, "k", given.k as TensorSpec, layout, FLOATS);
  const v = values ? toBhmd(label, "v", given.v as TensorSpec, layout, FLOATS) : undefined;
  checkShapes(label, layout, q, k, v);
  const [batch, heads, rowsQ, headDim] = q.shape;
  const [, kvHeads, rowsKv] = k.shape;
  const rowsOf = ({ shape }: TensorSpec) => shape[0] * shape[1] * shape[2];
  const normRows = { q: rowsOf(q), k: rowsOf(given.cache?.k ?? k) };
  const tensors = { batch, heads, headDim, rowsQ, rowsKv, normRows };
  const asked = { label, options: problem, tensors, cache: given.cache };
  const resolved = resolveOptions(asked, extension);
  const scale = problem.scale ?? defaultScale(resolved.similarity, headDim);
  const bounded = resolved.options.some(({ bounds }) => bounds);
  check(
    Math.abs(scale) <= LARGE_SCALE || bounded || (values && hasPlainScores(resolved)),
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
    cache: given.cache,
    ...resolved,
    extension,
    scale,
    maxDispatchFlops: problem.maxDispatchFlops,
  };
}

/**
 * Beyond this scale plain scores are computed in another unit:
 * shaders/variants/similarity_scaled.wesl.
 */
const LARGE_SCALE = 2 ** 64;

export const isLargeScale = (problem: ResolvedOptions & { readonly scale: number }): boolean =>
  Math.abs(problem.scale) > LARGE_SCALE && hasPlainScores(problem);

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
