// Multiplicative attention (Luong's general score): the queries projected once, then dot products.

import {
  ATTENTION_OPTIONS,
  type AttentionOptions,
  type AttentionResult,
  resultsOf,
} from "../attention/attention.ts";
import { preparePlan } from "../attention/plan_attention.ts";
import { ATTENTION_PROBLEM, type AttentionProblem } from "../attention/problem.ts";
import { check } from "../errors.ts";
import { readOptions, type Taken } from "../given.ts";
import { checkDevice, settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { PROJECTION } from "../operations/projection.ts";
import { checkTensors, type MakeResult, runOnce } from "../plan/run.ts";
import { checkedSpec, checkLayout, FLOATS, type ResolvedSpec, toBhmd } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { MultiplicativePlan } from "./multiplicative_plan.ts";

/**
 * A problem of {@link planMultiplicativeAttention}: one of attention, and the weights between q and
 * k.
 */
export interface MultiplicativeProblem extends AttentionProblem {
  /** W: [Dq, Dk] for all heads, or [H, Dq, Dk]. f32, f16 or bf16. */
  readonly weight: TensorSpec;
}

/** The names of all members of a problem: keys in a cache can't be projected. */
const { cache: _cache, ...MULTIPLICATIVE_PROBLEM } = {
  ...ATTENTION_PROBLEM,
  weight: "any" as const,
};

/** Options of {@link multiplicativeAttention}: those of attention. */
export interface MultiplicativeOptions extends AttentionOptions {}

/**
 * Compiles multiplicative attention (Luong's general score): q is projected by W once, by a tiled
 * kernel, and then compared with k by dot products, so that nothing of size M x N is in memory.
 * Options, rules and results are those of {@link planAttention}.
 *
 * ```
 * s[b,h,i,j] = scale * q[b,h,i,:]^T W[h] k[b,g,j,:]
 * q [B, H, M, Dq], W [Dq, Dk] or [H, Dq, Dk], k [B, Hkv, N, Dk]
 * ```
 *
 * The scale is 1 by default. Without W this is `planAttention` with `scale: 1`, the plain dot
 * product.
 *
 * Source: Effective Approaches to Attention-based Neural Machine Translation (arXiv 1508.04025),
 * section 3.1.
 *
 * Rejects with FoveaError, as {@link planAttention} does, and then has allocated nothing.
 *
 * @example
 * const plan = await planMultiplicativeAttention(device, { q, k, v, weight });
 * plan.encode(encoder, { output });
 */
export async function planMultiplicativeAttention(
  device: GPUDevice,
  problem: MultiplicativeProblem,
): Promise<MultiplicativePlan> {
  const taken = await readOptions(LABEL, problem, MULTIPLICATIVE_PROBLEM);
  const { plan, allocated } = await prepareMultiplicative(
    device,
    taken as Taken<MultiplicativeProblem>,
  );
  await allocated;
  return plan;
}

/**
 * Multiplicative attention on the GPU; see {@link planMultiplicativeAttention} for the formula.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, Dq], f32, f16 or bf16, as are all others, each with its own dtype
 * @param k [B, Hkv, N, Dk]
 * @param v [B, Hkv, N, Dv]
 * @param weight [Dq, Dk], or [H, Dq, Dk]
 *
 * @example
 * const { output } = await multiplicativeAttention(q, k, v, weight, { causal: true });
 */
export async function multiplicativeAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  weight: Tensor,
  asked: MultiplicativeOptions = {},
): Promise<AttentionResult> {
  const options = await readOptions(LABEL, asked, ATTENTION_OPTIONS);
  const { label = LABEL } = options;
  checkTensors(label, { q, k, v, weight });
  const { plan, allocated, resolved } = await prepareMultiplicative(q.device, {
    ...options,
    q,
    k,
    v,
    weight,
  });
  const results = (make: MakeResult) => resultsOf(options, resolved, make);
  return runOnce(
    q.device,
    label,
    { plan, allocated },
    options,
    results,
  ) as Promise<AttentionResult>;
}

const LABEL = "multiplicativeAttention";

async function prepareMultiplicative(device: GPUDevice, problem: Taken<MultiplicativeProblem>) {
  checkDevice(device);
  const { label, layout, q, weight } = resolveMultiplicative(problem);
  const perHead = weight.shape.length === 3;
  const headAxis = layout === "bhmd" ? 1 : 2;
  const inLayout = problem.q.shape.slice(0, 3);
  const columns = weight.shape[weight.shape.length - 1];
  const projected = tensor(device, [...inLayout, columns], { label: `${label} projected q` });
  const made: { destroy(): void }[] = [projected];
  try {
    const xAll = resolveSpec(`${label}: q`, problem.q);
    const begun = Array.from({ length: perHead ? q.shape[1] : 1 }, async (_, head) => {
      const at = (spec: ResolvedSpec, axis: number) => (perHead ? slice(spec, axis, head) : spec);
      const own = perHead ? withoutAxis(slice(weight, 0, head)) : weight;
      const x = at(xAll, headAxis);
      const output = perHead ? projected.slice(headAxis, head, head + 1) : projected;
      const projection = await PROJECTION.prepare(device, {
        x,
        weight: transposed(own),
        output,
        label,
      });
      made.push(projection.plan);
      return projection;
    });
    await settle(begun); // waits for all plans, so that all are freed if one fails
    const projections = await Promise.all(begun);
    const { weight: _, ...rest } = problem;
    const attention = await preparePlan(device, {
      ...rest,
      label,
      scale: problem.scale ?? 1,
      q: projected,
    });
    made.push(attention.plan);
    const isTensor = (spec: TensorSpec) => ("device" in spec ? (spec as Tensor) : undefined);
    const given = { q: isTensor(problem.q), weight: isTensor(problem.weight) };
    const parts = {
      label,
      attention: attention.plan,
      projections: projections.map(({ plan }) => plan),
      projected,
      headAxis,
      perHead,
      given,
    };
    const waits = [
      projected.allocated,
      attention.allocated,
      ...projections.map(({ allocated }) => allocated),
    ];
    const allocated = settle(waits);
    const plan = MultiplicativePlan.make(parts);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved: attention.resolved };
  } catch (error) {
    for (const one of made) one.destroy();
    throw error;
  }
}

/** Checks q and the weights; the rest is attention's to check. */
export function resolveMultiplicative(
  problem: Pick<
    Taken<MultiplicativeProblem>,
    "q" | "weight" | "label" | "layout" | "similarity"
  > & { readonly k: TensorSpec },
) {
  const { label = LABEL, layout = "bhmd" } = problem;
  checkLayout(label, layout);
  check(
    problem.similarity === undefined || problem.similarity === "dot",
    "argument",
    () => `${label}: the projected queries are compared by dot products; leave similarity out.`,
  );
  const q = toBhmd(label, "q", problem.q, layout, FLOATS);
  const k = toBhmd(label, "k", problem.k, layout, FLOATS);
  const weight = checkedSpec(label, "weight", problem.weight, FLOATS);
  const heads = q.shape[1];
  const inner = q.shape[3];
  const columns = k.shape[3];
  const { shape } = weight;
  const expected = shape.length === 3 ? [heads, inner, columns] : [inner, columns];
  check(
    shape.length === expected.length && expected.every((size, axis) => size === shape[axis]),
    "argument",
    () =>
      `${label}: weight must be [Dq, Dk] = [${inner}, ${columns}] or [H, Dq, Dk] = [${heads}, ${inner}, ${columns}], got [${shape.join(", ")}].`,
  );
  return { label, layout, q, weight };
}

const slice = (spec: ResolvedSpec, axis: number, index: number): ResolvedSpec => ({
  ...spec,
  shape: spec.shape.map((size, at) => (at === axis ? 1 : size)),
  offset: spec.offset + index * spec.strides[axis],
});

const withoutAxis = (spec: ResolvedSpec): ResolvedSpec => ({
  ...spec,
  shape: spec.shape.slice(1),
  strides: spec.strides.slice(1),
});

const transposed = (spec: ResolvedSpec): ResolvedSpec => ({
  ...spec,
  shape: [...spec.shape].reverse(),
  strides: [...spec.strides].reverse(),
});
