// The gradients of multiplicative attention: those of attention with projected queries, and of the
// projection.

import {
  type AttentionBackwardOptions,
  type AttentionGradients,
  BACKWARD_OPTIONS,
  gradientsInto,
} from "../attention/gradients/backward.ts";
import { prepareBackward } from "../attention/gradients/plan.ts";
import { type AttentionBackwardProblem, BACKWARD_PROBLEM } from "../attention/gradients/problem.ts";
import { type OptionNames, readOptions, type Taken } from "../given.ts";
import { checkDevice, settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import { PROJECTION } from "../operations/projection.ts";
import { PROJECTION_BACKWARD } from "../operations/projection_backward.ts";
import { checkTensors, runOnce } from "../plan/run.ts";
import {
  checkedSpec,
  dense,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
} from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { resolveMultiplicative } from "./multiplicative.ts";
import { MultiplicativeBackwardPlan } from "./multiplicative_backward_plan.ts";
import { turnedShape } from "./multiplicative_views.ts";

/**
 * A problem of {@link planMultiplicativeAttentionBackward}: one of attention's gradients, and the
 * weights between q and k.
 */
export interface MultiplicativeBackwardProblem extends AttentionBackwardProblem {
  /** W: [Dq, Dk] for all heads, or [H, Dq, Dk]. f32, f16 or bf16. */
  readonly weight: TensorSpec;
  /** The gradient of the weights, of their shape. Default: dense, of their dtype. */
  readonly dWeight?: TensorSpec;
}

/** The names of all members of a problem. */
const MULTIPLICATIVE_BACKWARD_PROBLEM = {
  ...BACKWARD_PROBLEM,
  weight: "any",
  dWeight: "any",
} as const satisfies OptionNames<MultiplicativeBackwardProblem & { cache: object }>;

/** Options of {@link multiplicativeAttentionBackward}: those of attention's gradients. */
export interface MultiplicativeBackwardOptions extends AttentionBackwardOptions {
  /** Where the gradient of the weights goes. Default: a new tensor, the caller's to destroy. */
  readonly dWeight?: Tensor;
}

/** The names of the options. */
const MULTIPLICATIVE_BACKWARD_OPTIONS: OptionNames<MultiplicativeBackwardOptions> = {
  ...BACKWARD_OPTIONS,
  dWeight: "any",
};

export interface MultiplicativeGradients extends AttentionGradients {
  /** [Dq, Dk] or [H, Dq, Dk], as the weights are, and of their dtype. */
  readonly dWeight: FloatTensor;
}

/**
 * Compiles the gradients of multiplicative attention (see {@link planMultiplicativeAttention}). The
 * queries are projected once more, q' = q W, and dQ' is the gradient of q' by the gradients of
 * attention:
 *
 * ```
 * dQ = dQ' W^T,   dW = q^T dQ', summed over batch entries, queries and the heads that share W
 * ```
 *
 * The scale is 1 by default. The plan keeps q' and dQ' as f32, [B, H, M, Dk] each; nothing of size
 * M x N is in memory. The same inputs on the same device give the same bits.
 *
 * Source: Effective Approaches to Attention-based Neural Machine Translation (arXiv 1508.04025),
 * section 3.1.
 *
 * Rejects with FoveaError, as {@link planAttentionBackward} does, and then has allocated nothing.
 *
 * @example
 * const backward = await planMultiplicativeAttentionBackward(device, { q, k, v, weight });
 * backward.encode(encoder, { output, lse, dOutput, dQ, dK, dV, dWeight });
 */
export async function planMultiplicativeAttentionBackward(
  device: GPUDevice,
  problem: MultiplicativeBackwardProblem,
): Promise<MultiplicativeBackwardPlan> {
  const taken = await readOptions(LABEL, problem, MULTIPLICATIVE_BACKWARD_PROBLEM);
  const { plan, allocated } = await prepareMultiplicativeBackward(
    device,
    taken as Taken<MultiplicativeBackwardProblem>,
  );
  await allocated;
  return plan;
}

/**
 * The gradients of multiplicative attention on the GPU; see
 * {@link planMultiplicativeAttentionBackward} for the formula.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, Dq], f32, f16 or bf16, as are all others but lse and dLse
 * @param k [B, Hkv, N, Dk]
 * @param v [B, Hkv, N, Dv]
 * @param weight [Dq, Dk], or [H, Dq, Dk]
 *
 * @example
 * const { output, lse } = await multiplicativeAttention(q, k, v, weight, { lse: true });
 * const { dQ, dK, dV, dWeight } = await multiplicativeAttentionBackward(q, k, v, weight, {
 *   output,
 *   lse,
 *   dOutput,
 * });
 */
export async function multiplicativeAttentionBackward(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  weight: Tensor,
  asked: MultiplicativeBackwardOptions,
): Promise<MultiplicativeGradients> {
  const options = await readOptions(LABEL, asked, MULTIPLICATIVE_BACKWARD_OPTIONS);
  const { label = LABEL, output, lse, dOutput, dLse } = options;
  checkTensors(label, { q, k, v, weight, output, lse, dOutput }, { dLse });
  const prepared = await prepareMultiplicativeBackward(q.device, {
    ...options,
    q,
    k,
    v,
    weight,
    lse: lse as Tensor,
  });
  const { resolved, dQ, dWeight } = prepared;
  const results = await runOnce(q.device, label, prepared, options, (make) => {
    const ofQueries = options.dQ ?? make("dQ", dQ.shape, dQ.dtype);
    return {
      ...gradientsInto({ ...options, dQ: ofQueries }, resolved, make),
      dWeight: options.dWeight ?? make("dWeight", dWeight.shape, dWeight.dtype),
    };
  });
  return results as MultiplicativeGradients;
}

const LABEL = "multiplicativeAttentionBackward";

async function prepareMultiplicativeBackward(
  device: GPUDevice,
  { dQ: dQGiven, dWeight: dWeightGiven, weight: _, ...rest }: Taken<MultiplicativeBackwardProblem>,
) {
  checkDevice(device);
  const problem = { ...rest, weight: _, label: rest.label ?? LABEL };
  const { label, layout, q, weight } = resolveMultiplicative(problem);
  const inLayout = reorder(q, layout);
  const result = (name: string, given: TensorSpec | undefined, like: ResolvedSpec) => {
    const spec = given
      ? checkedSpec(label, name, given, FLOATS)
      : dense(like.shape, "bhmd", like.dtype);
    expectShape(label, name, spec, like.shape);
    expectApart(label, name, spec);
    return spec;
  };
  const dQ = result("dQ", dQGiven, inLayout);
  const dWeight = result("dWeight", dWeightGiven, weight);
  const columns = weight.shape[weight.shape.length - 1];
  const scratch = (name: string) =>
    tensor(device, [...inLayout.shape.slice(0, 3), columns], { label: `${label} ${name}` });
  const projected = scratch("projected q");
  const made: { destroy(): void }[] = [projected];
  try {
    const dProjected = scratch("gradient of projected q");
    made.push(dProjected);
    const rows = (spec: ResolvedSpec | Tensor) => reorder(toSpec(spec), layout);
    const turned = turnedShape(weight);
    const projection = await PROJECTION.prepare(device, {
      x: q,
      weight: turned,
      output: rows(projected),
      label,
    });
    made.push(projection.plan);
    const attention = await prepareBackward(device, {
      ...rest,
      label,
      scale: rest.scale ?? 1,
      q: projected,
      dQ: dProjected,
    });
    made.push(attention.plan);
    const backward = await PROJECTION_BACKWARD.prepare(device, {
      x: q,
      weight: turned,
      dOutput: rows(dProjected),
      dX: rows(dQ),
      dWeight: turnedShape(dWeight),
      gradients: ["dX", "dWeight"],
      label,
    });
    made.push(backward.plan);
    const isTensor = (given: unknown) => (given instanceof Tensor ? given : undefined);
    const plan = MultiplicativeBackwardPlan.make({
      label,
      layout,
      projection: projection.plan,
      attention: attention.plan,
      backward: backward.plan,
      projected,
      dProjected,
      given: {
        q: isTensor(rest.q),
        weight: isTensor(_),
        dQ: isTensor(dQGiven),
        dWeight: isTensor(dWeightGiven),
      },
    });
    const allocated = settle([
      projected.allocated,
      dProjected.allocated,
      projection.allocated,
      attention.allocated,
      backward.allocated,
    ]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved: attention.resolved, dQ, dWeight };
  } catch (error) {
    for (const one of made) one.destroy();
    throw error;
  }
}

/** Where the elements of a tensor lie. */
const toSpec = ({ shape, strides, offset, dtype }: ResolvedSpec | Tensor): ResolvedSpec => ({
  shape,
  strides,
  offset,
  dtype,
});
